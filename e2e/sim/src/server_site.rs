//! The server: its library, its life as a process, the driver around its machine, and how messages travel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use peerdist_core::client::Event;
use peerdist_core::digest::Digest;
use peerdist_core::message::{Message, decode_envelope, encode_envelope};
use peerdist_core::names::{NodeName, OfficeName, PackageKey};
use peerdist_core::office::OfficeTree;
use peerdist_core::peer::{ContentClass, MessageClass, Peer};
use peerdist_core::server::{Server, ServerConfig, ServerEvent, ServerOutput};
use peerdist_core::wire::{LARGE_MESSAGE_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX};
use prost::Message as _;

use crate::world::{Action, World};

/// What bringing a package in takes.
const INGEST_TIME: Duration = Duration::from_millis(100);
/// How long a message to a dead process stays without an answer.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// Revisions that one life of the server may give out.
const REVISIONS_PER_LIFE: u64 = 1 << 20;

/// The server.
#[derive(Debug)]
pub(crate) struct ServerSite {
    pub(crate) machine: Option<Server>,
    pub(crate) life: u64,
    /// Ingested packages, in the order of their sequence numbers.
    pub(crate) library: Vec<Digest>,
    /// Nodes that enrolled are remembered over restarts.
    known: BTreeSet<peerdist_core::peer::NodeRef>,
    /// So are nodes that were complete, by package.
    complete: BTreeMap<Digest, BTreeSet<NodeName>>,
    retention_seconds: u64,
    wakes_at: Option<Duration>,
}

impl ServerSite {
    pub(crate) fn new(retention_seconds: u64) -> Self {
        Self {
            machine: None,
            life: 0,
            library: Vec::new(),
            known: BTreeSet::new(),
            complete: BTreeMap::new(),
            retention_seconds,
            wakes_at: None,
        }
    }

    /// What the database keeps of a node's progress.
    fn remember(&mut self, node: NodeName, digest: Digest, is_complete: bool) {
        let complete = self.complete.entry(digest).or_default();
        if is_complete {
            complete.insert(node);
        } else {
            complete.remove(&node);
        }
    }
}

/// Above which revision the plans of a life of the server lie: always above those of the life before, except that the
/// second one has lost its disk, and has a clock that is behind that of the first.
fn begins_above(life: u64) -> u64 {
    let place = if life < 2 { 1 - life } else { life };
    (place + 1) * REVISIONS_PER_LIFE
}

impl World {
    pub(crate) fn start_server(&mut self) {
        let now = self.instant();
        let config = ServerConfig {
            addresses: Vec::new(),
            retention_seconds: self.server.retention_seconds,
            last_revision: begins_above(self.server.life),
        };
        self.server.machine = Some(Server::new(now, config));
        self.server.wakes_at = None;
        let life = self.server.life;
        for digest in self.server.library.clone() {
            if let Some(content) = self.catalog.get(digest) {
                let ingested = content.ingested();
                let complete = self.server.complete.get(&digest).cloned().unwrap_or_default();
                let remembered = ServerEvent::Remembered { package: ingested.key.clone(), complete };
                self.tell_server(life, ServerEvent::Ingested(ingested));
                self.tell_server(life, remembered);
            }
        }
        for node in self.server.known.clone() {
            self.tell_server(life, ServerEvent::Enrolled { node });
        }
        self.show_objects();
    }

    pub(crate) fn kill_server(&mut self) {
        self.server.life += 1;
        self.server.machine = None;
        self.break_streams_of(&None);
    }

    /// The objects as they are now.
    pub(crate) fn show_objects(&mut self) {
        let offices = self.offices.values().map(|simulated| simulated.office.clone());
        let tree = OfficeTree::new(offices).expect("scenarios have valid trees");
        let distributions = self.distributions.clone();
        // The library knows which version became current last.
        for content in distributions.values().filter_map(|wanted| self.catalog.find(&wanted.package())) {
            self.server.library.sort_by_key(|digest| *digest == content.digest);
        }
        let life = self.server.life;
        self.tell_server(life, ServerEvent::Desired { tree, distributions });
    }

    pub(crate) fn wake_server(&mut self, life: u64) {
        let (now, wall) = (self.instant(), self.wall());
        if self.server.life == life && self.server.wakes_at.is_some_and(|planned| planned <= self.now) {
            self.server.wakes_at = None;
            if let Some(machine) = &mut self.server.machine {
                machine.handle_timeout(now, wall);
            }
            self.drain_server();
        }
    }

    pub(crate) fn tell_server(&mut self, life: u64, event: ServerEvent) {
        let (now, wall) = (self.instant(), self.wall());
        match &event {
            ServerEvent::Ingested(package) if !self.server.library.contains(&package.digest) => {
                self.server.library.push(package.digest);
            }
            ServerEvent::Enrolled { node } => {
                self.server.known.insert(node.clone());
            }
            _ => {}
        }
        if let Some(machine) = self.server.machine.as_mut().filter(|_| self.server.life == life) {
            machine.handle(now, wall, event);
            self.drain_server();
        }
    }

    fn drain_server(&mut self) {
        let mut count = 0;
        while let Some(output) = self.server.machine.as_mut().and_then(Server::poll) {
            count += 1;
            self.act_for_server(output);
        }
        self.measures.outputs(count);
        let (base, now, life) = (self.base, self.now, self.server.life);
        let Some(machine) = &self.server.machine else { return };
        let at = machine.poll_timeout().saturating_duration_since(base).max(now);
        if self.server.wakes_at.is_none_or(|planned| planned > at) {
            self.server.wakes_at = Some(at);
            self.at(at, Action::Wake(None, life));
        }
    }

    fn act_for_server(&mut self, output: ServerOutput) {
        let life = self.server.life;
        match output {
            ServerOutput::Send { to, class, message } => self.send(Peer::Server, life, Peer::Node(to), class, message),
            ServerOutput::SendPlan { to, class, plan } => {
                let message = Message::Plan(plan.sign(&signing_key()));
                self.send(Peer::Server, life, Peer::Node(to), class, message);
            }
            ServerOutput::Ingest { distribution } => {
                let content = self.catalog.find(&distribution.package()).expect("scenarios know every version");
                let ingested = ServerEvent::Ingested(content.ingested());
                self.after(INGEST_TIME, Action::TellServer(life, Box::new(ingested)));
            }
            ServerOutput::Serve { to, transfer, digest, runs, pace } => {
                self.open_stream(None, life, to, ContentClass::Foreground, transfer, digest, &runs, pace);
            }
            ServerOutput::Wanted(wanted) => self.forget_unwanted(&wanted),
            ServerOutput::NodeCompleted { node, digest, .. } => self.server.remember(node.name, digest, true),
            ServerOutput::OfficeReported { report, .. } => {
                for package in report.packages {
                    for (node, state) in package.nodes {
                        self.server.remember(node, package.digest, state.complete);
                    }
                }
            }
            ServerOutput::CancelIngest { .. } => {}
        }
    }

    /// The database keeps what nodes had of packages in these offices alone.
    fn forget_unwanted(&mut self, wanted: &BTreeMap<PackageKey, BTreeSet<OfficeName>>) {
        for (key, offices) in wanted {
            let Some(digest) = self.catalog.find(key).map(|content| content.digest) else { continue };
            if let Some(complete) = self.server.complete.get_mut(&digest) {
                complete.retain(|node| self.clients.get(node).is_some_and(|site| offices.contains(&site.me.office)));
            }
        }
    }

    /// Puts a message on its way, as bytes, within the limit of its class.
    pub(crate) fn send(&mut self, from: Peer, from_life: u64, to: Peer, class: MessageClass, message: Message) {
        let envelope = encode_envelope(&message, String::new());
        let limit = if class == MessageClass::Small { SMALL_MESSAGE_BYTES_MAX } else { LARGE_MESSAGE_BYTES_MAX };
        let bytes = envelope.encoded_len();
        assert!(bytes <= limit, "a message of {bytes} bytes in a class of at most {limit}: {message:?}");
        let message = Box::new(decode_envelope(envelope).expect("what a machine sends can be read"));
        self.measures.message();
        let crosses = self.crosses_offices(&from, &to);
        if self.network.loses(&mut self.rng) {
            return self.undelivered(from, from_life, to, *message, None, DELIVERY_TIMEOUT);
        }
        let delay = self.network.message_delay(crosses, &mut self.rng);
        self.after(delay, Action::Arrive { from, from_life, to, message, sent_at: self.now });
    }

    pub(crate) fn arrive(&mut self, from: Peer, from_life: u64, to: Peer, message: Message, sent_at: Duration) {
        let (now, crosses) = (self.instant(), self.crosses_offices(&from, &to));
        let answer = match (&to, &from) {
            (Peer::Server, Peer::Node(node)) => {
                let machine = self.server.machine.as_mut();
                let answer = machine.map(|machine| machine.message(now, node, message.clone()));
                self.drain_server();
                answer.map(|answer| answer.err().map(|refusal| refusal.reason.to_owned()))
            }
            (Peer::Server, Peer::Server) => None,
            (Peer::Node(node), _) => self.client_hears(&node.name, from.clone(), message.clone()),
        };
        let delay = self.network.message_delay(crosses, &mut self.rng);
        if sent_at + DELIVERY_TIMEOUT <= self.now {
            // The sender has given up already, and the message does its work all the same.
            return;
        }
        match answer {
            None => self.undelivered(from, from_life, to, message, None, DELIVERY_TIMEOUT),
            Some(Some(reason)) => self.undelivered(from, from_life, to, message, Some(reason), delay),
            Some(None) if self.network.loses(&mut self.rng) => {
                self.undelivered(from, from_life, to, message, None, DELIVERY_TIMEOUT);
            }
            Some(None) => {
                if let (Peer::Node(node), Message::MemberReport(_)) = (from, message) {
                    self.after(delay, Action::Tell(node.name, from_life, Box::new(Event::Delivered { to })));
                }
            }
        }
    }

    pub(crate) fn undelivered(
        &mut self,
        from: Peer,
        life: u64,
        to: Peer,
        message: Message,
        refused: Option<String>,
        after: Duration,
    ) {
        if let Peer::Node(node) = from {
            let event = Event::Undelivered { to, message, refused };
            self.after(after, Action::Tell(node.name, life, Box::new(event)));
        }
    }

    /// One way between a node's office and a peer.
    pub(crate) fn delay_between(&self, office: &OfficeName, peer: &Peer) -> Duration {
        let crosses = match peer {
            Peer::Server => self.offices.get(office).is_some_and(|simulated| simulated.office.parent.is_some()),
            Peer::Node(node) => node.office != *office,
        };
        self.network.delay(crosses)
    }

    fn crosses_offices(&self, one: &Peer, other: &Peer) -> bool {
        match (one, other) {
            (Peer::Node(node), other) | (other, Peer::Node(node)) => match other {
                Peer::Node(peer) => peer.office != node.office,
                Peer::Server => self.offices.get(&node.office).is_some_and(|office| office.office.parent.is_some()),
            },
            (Peer::Server, Peer::Server) => false,
        }
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The key that plans are signed with here.
pub(crate) fn trusted_keys() -> [VerifyingKey; 1] {
    [signing_key().verifying_key()]
}
