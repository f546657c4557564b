//! The loop: actions in the order of their time, each handed to the machine it concerns. Nothing here decides; it does
//! what the drivers of the node agent do, on virtual time. `client_site`, `server_site`, `stream` and `operator` hold
//! the parts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::client::{BroadcastRequest, ControlSignal, Event};
use peerdist_core::digest::Digest;
use peerdist_core::distribution::Distribution;
use peerdist_core::message::Message;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName};
use peerdist_core::peer::{NodeRef, Peer};
use peerdist_core::plan::PlannedPackage;
use peerdist_core::server::ServerEvent;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::client_site::ClientSite;
use crate::content::Catalog;
use crate::deaths::Deaths;
use crate::measure::Measures;
use crate::network::Network;
use crate::scenario::{Operation, Scenario, SimulatedOffice};
use crate::server_site::ServerSite;
use crate::stalls::Stalls;
use crate::stream::{Stream, StreamId};

/// How often the run is looked at: whether it is done, and whether it is quiet enough.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The time of day at which every run begins, in seconds since 1970.
const EPOCH_SECONDS: i64 = 1_800_000_000;

/// Where a machine lives. `None` is the server.
pub(crate) type Site = Option<NodeName>;

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Action {
    /// The machine's own deadline.
    Wake(Site, u64),
    /// A node starts, or tries again to enrol.
    Start(NodeName, u64),
    /// The server starts.
    StartServer,
    /// A message arrives.
    Arrive { from: Peer, from_life: u64, to: Peer, message: Box<Message>, sent_at: Duration },
    /// The sender of a message has waited long enough for its answer.
    GiveUp { from: Peer, from_life: u64, to: Peer, message: Box<Message> },
    /// A broadcast arrives.
    Hear { to: NodeName, from: NodeRef, request: BroadcastRequest },
    /// Something a client's driver tells it.
    Tell(NodeName, u64, Box<Event>),
    /// Something the server's driver tells it.
    TellServer(u64, Box<ServerEvent>),
    /// A request for the pages of a manifest arrives.
    AskForManifest { asker: NodeName, life: u64, planned: Box<PlannedPackage>, from: Peer },
    /// The pages of a manifest are there: the place is made.
    Place { node: NodeName, life: u64, digest: Digest },
    /// A node flushes what is written.
    Flush(NodeName, u64),
    /// A node publishes.
    Publish(NodeName, u64, Digest),
    /// A stream reaches its receiver.
    StreamOpens(StreamId),
    /// The sender of a stream puts its next chunk on the link, or waits for wants.
    StreamSends(StreamId, u64),
    /// A chunk arrives.
    ChunkArrives(StreamId, ChunkIndex),
    /// The receiver's signal reaches the sender.
    Signal(StreamId, ControlSignal),
    /// The receiver notices the end of a stream: in good order, or broken off.
    StreamEnds(StreamId, bool),
    /// The operator does something.
    Operate(Box<Operation>),
    /// Everything is looked at.
    Look,
}

/// A fleet while it runs.
pub struct World {
    pub(crate) base: Instant,
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    queue: BTreeMap<(Duration, u64), Action>,
    next_number: u64,
    pub(crate) network: Network,
    pub(crate) stalls: Stalls,
    pub(crate) catalog: Catalog,
    pub(crate) offices: BTreeMap<OfficeName, SimulatedOffice>,
    pub(crate) distributions: BTreeMap<DistributionKey, Distribution>,
    pub(crate) clients: BTreeMap<NodeName, ClientSite>,
    pub(crate) server: ServerSite,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) next_stream: StreamId,
    pub(crate) measures: Measures,
    pub(crate) deaths: Deaths,
    pub(crate) operations_left: usize,
    done: bool,
    last_publication: Option<Duration>,
    watch: bool,
    actions_at_now: u64,
}

impl World {
    /// A fleet whose processes all start now.
    pub fn new(scenario: &Scenario) -> Self {
        #[allow(clippy::disallowed_methods, reason = "some instant to start from")]
        let base = Instant::now();
        let mut world = Self {
            base,
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(scenario.seed),
            queue: BTreeMap::new(),
            next_number: 0,
            network: Network::new(scenario.network.clone()),
            stalls: Stalls::new(scenario.seed, scenario.slowness),
            catalog: scenario.catalog.clone(),
            offices: BTreeMap::new(),
            distributions: scenario.distributions.iter().map(|wanted| (wanted.key.clone(), wanted.clone())).collect(),
            clients: BTreeMap::new(),
            server: ServerSite::new(scenario.retention_seconds),
            streams: BTreeMap::new(),
            next_stream: 0,
            measures: Measures::default(),
            deaths: Deaths::default(),
            operations_left: scenario.operations.len(),
            done: false,
            last_publication: None,
            watch: false,
            actions_at_now: 0,
        };
        world.at(Duration::ZERO, Action::StartServer);
        for office in &scenario.offices {
            world.add_office(office.clone());
        }
        for (at, operation) in &scenario.operations {
            world.at(*at, Action::Operate(Box::new(operation.clone())));
        }
        world.at(LOOK_INTERVAL, Action::Look);
        world
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// When the last node published something.
    pub fn completed_at(&self) -> Option<Duration> {
        self.last_publication
    }

    pub(crate) fn note_publication(&mut self) {
        self.last_publication = Some(self.now);
    }

    /// What was counted.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Who died.
    pub fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// Runs until every target is complete and nothing more is going to be done to the fleet. False when that is not
    /// so at the deadline.
    pub fn run_until_complete(&mut self, deadline: Duration) -> bool {
        (self.done, self.watch) = (false, true);
        while !self.done && self.now < deadline && self.step() {}
        self.done
    }

    /// Runs for so long, whatever happens.
    pub fn run_for(&mut self, time: Duration) {
        self.watch = false;
        let end = self.now + time;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) && self.step() {}
        self.now = end;
    }

    /// From now on all processes get all the time that they want.
    pub fn end_slowness(&mut self) {
        self.stalls.end();
    }

    /// The operator does something now.
    pub fn operate(&mut self, operation: Operation) {
        self.operations_left += 1;
        self.at(self.now, Action::Operate(Box::new(operation)));
    }

    pub(crate) fn at(&mut self, at: Duration, action: Action) {
        self.next_number += 1;
        self.queue.insert((at.max(self.now), self.next_number), action);
    }

    pub(crate) fn after(&mut self, delay: Duration, action: Action) {
        self.at(self.now + delay, action);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let epoch = Timestamp::from_second(EPOCH_SECONDS).expect("a moment in this century");
        epoch + self.now
    }

    fn step(&mut self) -> bool {
        let Some(((at, _), action)) = self.queue.pop_first() else { return false };
        if at > self.now {
            self.actions_at_now = 0;
        }
        self.now = at;
        self.actions_at_now += 1;
        self.measures.action(self.actions_at_now);
        if let Some(action) = self.done_in_time(action) {
            self.act(action);
        }
        true
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Wake(site, life) => self.wake(site, life),
            Action::Start(node, life) => self.start_client(&node, life),
            Action::StartServer => self.start_server(),
            Action::Arrive { from, from_life, to, message, sent_at } => {
                self.arrive(from, from_life, to, *message, sent_at)
            }
            Action::GiveUp { from, from_life, to, message } => {
                self.undelivered(from, from_life, to, *message, None, Duration::ZERO);
            }
            Action::Hear { to, from, request } => self.hear(&to, from, request),
            Action::Tell(node, life, event) => self.tell(&node, life, *event),
            Action::TellServer(life, event) => self.tell_server(life, *event),
            Action::AskForManifest { asker, life, planned, from } => {
                self.ask_for_manifest(asker, life, &planned, &from);
            }
            Action::Place { node, life, digest } => self.place(&node, life, digest),
            Action::Flush(node, life) => self.flush(&node, life),
            Action::Publish(node, life, digest) => self.publish(&node, life, digest),
            Action::StreamOpens(stream) => self.stream_opens(stream),
            Action::StreamSends(stream, turn) => self.stream_sends(stream, turn),
            Action::ChunkArrives(stream, index) => self.chunk_arrives(stream, index),
            Action::Signal(stream, signal) => self.signal_arrives(stream, signal),
            Action::StreamEnds(stream, whole) => self.stream_ends(stream, whole),
            Action::Operate(operation) => {
                self.operations_left -= 1;
                self.carry_out(*operation);
            }
            Action::Look => {
                self.measures.look(self.clients.len() as u64);
                self.usurp();
                self.after(LOOK_INTERVAL, Action::Look);
                self.done = self.watch && self.is_complete();
            }
        }
    }

    fn wake(&mut self, site: Site, life: u64) {
        match site {
            None => self.wake_server(life),
            Some(node) => self.wake_client(&node, life),
        }
    }
}
