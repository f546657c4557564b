//! A node: its disk, its life as a process, and the driver around its machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::client::{
    BroadcastRequest, Client, ClientConfig, ControlSignal, DISK_FULL, Event, Output, PreparedPackage,
};
use peerdist_core::digest::Digest;
use peerdist_core::message::{Message, TransferId};
use peerdist_core::names::NodeName;
use peerdist_core::office::OfficeType;
use peerdist_core::peer::{ContentClass, NodeRef, Peer};
use peerdist_core::plan::{Plan, PlannedPackage};
use peerdist_core::server::ServerEvent;
use rand::Rng;

use crate::hostile::Lie;
use crate::server_site::trusted_keys;
use crate::store::Store;
use crate::stream::StreamId;
use crate::world::{Action, World};

/// Written chunks are journalled at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// What a flush takes.
const FLUSH_TIME: Duration = Duration::from_millis(4);
/// What a publication takes.
const PUBLISH_TIME: Duration = Duration::from_millis(5);
/// Pause between two tries to enrol.
const ENROL_RETRY: Duration = Duration::from_secs(1);
/// How long a request to a dead process stays without an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// A node.
#[derive(Debug)]
pub struct ClientSite {
    pub(crate) me: NodeRef,
    /// Its disk.
    pub store: Store,
    enrolled: Option<(OfficeType, bool)>,
    pub(crate) process: Option<Process>,
    /// What it lies about.
    pub(crate) lie: Option<Lie>,
    /// Counts its processes, so that what was meant for an earlier one is dropped.
    pub(crate) life: u64,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) machine: Client,
    pub(crate) expected: BTreeMap<TransferId, ExpectedTransfer>,
    flush_planned: bool,
    wakes_at: Option<Duration>,
}

/// A transfer that the machine asked for, as the driver knows it.
#[derive(Debug)]
pub(crate) struct ExpectedTransfer {
    pub(crate) from: Peer,
    pub(crate) class: ContentClass,
    pub(crate) digest: Digest,
    pub(crate) wanted: BTreeSet<ChunkIndex>,
    pub(crate) early: Vec<ControlSignal>,
    pub(crate) stream: Option<StreamId>,
}

impl ClientSite {
    pub(crate) fn new(me: NodeRef) -> Self {
        Self { me, store: Store::default(), enrolled: None, process: None, lie: None, life: 0 }
    }

    /// The machine, while the process lives.
    pub fn machine(&self) -> Option<&Client> {
        self.process.as_ref().map(|process| &process.machine)
    }
}

impl World {
    pub(crate) fn start_client(&mut self, node: &NodeName, life: u64) {
        let Some(site) = self.clients.get(node).filter(|site| site.life == life && site.process.is_none()) else {
            return;
        };
        let me = site.me.clone();
        if site.enrolled.is_none() {
            let office = self.server.machine.as_ref().and_then(|server| server.office(&me.office));
            let Some(enrolled) = office else {
                return self.after(ENROL_RETRY, Action::Start(node.clone(), life));
            };
            let server_life = self.server.life;
            self.tell_server(server_life, ServerEvent::Enrolled { node: me.clone() });
            if let Some(site) = self.clients.get_mut(node) {
                site.enrolled = Some(enrolled);
            }
        }
        let (boot_id, seed, now) = (u64::from(self.rng.random::<u32>()), self.rng.random(), self.instant());
        let Some(site) = self.clients.get_mut(node) else { return };
        let Some((office_type, central)) = site.enrolled else { return };
        let config = ClientConfig { me, boot_id, office_type, central, term: 0, seed };
        site.process = Some(Process {
            machine: Client::new(now, config, site.store.inventory()),
            expected: BTreeMap::new(),
            flush_planned: false,
            wakes_at: None,
        });
        self.drain_client(node);
    }

    /// A process dies, and what is not flushed with it.
    pub(crate) fn kill_client(&mut self, node: &NodeName) {
        let Some(site) = self.clients.get_mut(node) else { return };
        site.life += 1;
        site.process = None;
        site.store.lose_unflushed();
        self.break_streams_of(&Some(node.clone()));
    }

    pub(crate) fn wake_client(&mut self, node: &NodeName, life: u64) {
        let now = self.instant();
        let at = self.now;
        if let Some(process) = self.process(node, life)
            && process.wakes_at.is_some_and(|planned| planned <= at)
        {
            process.wakes_at = None;
            process.machine.handle_timeout(now);
            self.drain_client(node);
        }
    }

    pub(crate) fn process(&mut self, node: &NodeName, life: u64) -> Option<&mut Process> {
        self.clients.get_mut(node).filter(|site| site.life == life)?.process.as_mut()
    }

    pub(crate) fn tell(&mut self, node: &NodeName, life: u64, event: Event) {
        let now = self.instant();
        if let Some(process) = self.process(node, life) {
            process.machine.handle(now, event);
            self.drain_client(node);
        }
    }

    pub(crate) fn hear(&mut self, node: &NodeName, from: NodeRef, request: BroadcastRequest) {
        if let Some(site) = self.clients.get(node) {
            self.tell(node, site.life, Event::Broadcast { from, request });
        }
    }

    /// A message for a client. `None` when no process is there.
    pub(crate) fn client_hears(&mut self, node: &NodeName, from: Peer, message: Message) -> Option<Option<String>> {
        let now = self.instant();
        let site = self.clients.get(node)?;
        let life = site.life;
        site.process.as_ref()?;
        if let Some(answer) = self.liar_hears(node, &from, &message) {
            return Some(answer);
        }
        let machine = &mut self.process(node, life)?.machine;
        let answer = match message {
            Message::Plan(signed) => match Plan::open(&signed, &trusted_keys()) {
                Ok(plan) => {
                    machine.handle(now, Event::Plan { signed, plan });
                    None
                }
                Err(error) => panic!("a plan of the server is refused: {error}"),
            },
            message => machine.message(now, from, message).err().map(|refusal| refusal.reason.to_owned()),
        };
        self.drain_client(node);
        Some(answer)
    }

    /// Acts on all outputs and sets the alarm anew.
    pub(crate) fn drain_client(&mut self, node: &NodeName) {
        let mut count = 0;
        loop {
            let Some(site) = self.clients.get_mut(node) else { return };
            let (life, me) = (site.life, site.me.clone());
            let Some(process) = &mut site.process else { return };
            let Some(output) = process.machine.poll() else { break };
            count += 1;
            if let Some(output) = self.tell_lies(node, output) {
                self.act_for_client(&me, life, output);
            }
        }
        self.measures.outputs(count);
        self.set_alarm(node);
    }

    fn set_alarm(&mut self, node: &NodeName) {
        let (base, now) = (self.base, self.now);
        let Some(site) = self.clients.get_mut(node) else { return };
        let life = site.life;
        let Some(process) = &mut site.process else { return };
        let at = process.machine.poll_timeout().saturating_duration_since(base).max(now);
        if process.wakes_at.is_none_or(|planned| planned > at) {
            process.wakes_at = Some(at);
            self.at(at, Action::Wake(Some(node.clone()), life));
        }
    }

    fn act_for_client(&mut self, me: &NodeRef, life: u64, output: Output) {
        let node = me.name.clone();
        match output {
            Output::Send { to, class, message } => self.send(Peer::Node(me.clone()), life, to, class, message),
            Output::Broadcast(request) => self.broadcast(me, &request),
            Output::Prepare { planned, from } => self.prepare(node, life, planned, from),
            Output::Expect { transfer, from, class, digest, runs } => {
                if let Some(process) = self.process(&node, life) {
                    let expected = process.expected.entry(transfer).or_insert_with(|| ExpectedTransfer {
                        from,
                        class,
                        digest,
                        wanted: BTreeSet::new(),
                        early: Vec::new(),
                        stream: None,
                    });
                    expected.wanted.extend(runs.iter().flat_map(|run| run.range()));
                    let count = process.expected.len();
                    self.measures.transfers(count);
                }
            }
            Output::Steer { transfer, signal } => self.steer(&node, life, transfer, signal),
            Output::Serve { to, class, transfer, digest, runs, pace } => {
                self.open_stream(Some(me.clone()), life, to, class, transfer, digest, &runs, pace);
            }
            Output::Flush => self.after(FLUSH_TIME, Action::Flush(node, life)),
            Output::Publish { digest } => self.after(PUBLISH_TIME, Action::Publish(node, life, digest)),
            Output::Delete { digest } => {
                if let Some(site) = self.clients.get_mut(&node) {
                    site.store.delete(digest);
                }
                self.tell(&node, life, Event::Deleted { digest });
            }
            Output::Prune { distribution, versions, retention_seconds } => {
                let now = self.instant();
                let Some(site) = self.clients.get_mut(&node) else { return };
                let grace = Duration::from_secs(retention_seconds);
                for digest in site.store.prune(now, &distribution, versions, grace) {
                    self.tell(&node, life, Event::Pruned { digest });
                }
            }
        }
    }

    fn broadcast(&mut self, me: &NodeRef, request: &BroadcastRequest) {
        let heard: Vec<NodeName> = self
            .clients
            .values()
            .filter(|site| site.me.office == me.office && site.me.name != me.name && site.process.is_some())
            .map(|site| site.me.name.clone())
            .collect();
        for to in heard {
            if !self.network.loses(&mut self.rng) {
                let delay = self.network.message_delay(false, &mut self.rng);
                self.after(delay, Action::Hear { to, from: me.clone(), request: request.clone() });
            }
        }
    }

    fn prepare(&mut self, node: NodeName, life: u64, planned: PlannedPackage, from: Peer) {
        let Some(site) = self.clients.get(&node) else { return };
        if site.store.has_manifest(planned.digest) {
            return self.after(PUBLISH_TIME, Action::Place { node, life, digest: planned.digest });
        }
        let delay = self.delay_between(&site.me.office.clone(), &from);
        self.after(delay, Action::AskForManifest { asker: node, life, planned: Box::new(planned), from });
    }

    pub(crate) fn ask_for_manifest(&mut self, asker: NodeName, life: u64, planned: &PlannedPackage, from: &Peer) {
        let Some(me) = self.clients.get(&asker).map(|site| site.me.clone()) else { return };
        let delay = self.delay_between(&me.office, from);
        let (digest, now) = (planned.digest, self.instant());
        let allowed = match from {
            Peer::Server => self.server.machine.as_ref().map(|server| server.may_read_manifest(&me, &digest)),
            Peer::Node(holder) => self.clients.get_mut(&holder.name).and_then(|site| {
                let machine = &mut site.process.as_mut()?.machine;
                Some(machine.may_read_manifest(now, &me, digest) && site.store.has_manifest(digest))
            }),
        };
        if allowed == Some(true) {
            return self.after(delay, Action::Place { node: asker, life, digest });
        }
        let pause = if allowed.is_none() { REQUEST_TIMEOUT } else { delay };
        let (reason, message) = ("ManifestUnavailable".to_owned(), "a page did not come".to_owned());
        let failed = Event::PrepareFailed { digest, reason, message, is_final: false };
        self.after(pause, Action::Tell(asker, life, Box::new(failed)));
    }

    pub(crate) fn place(&mut self, node: &NodeName, life: u64, digest: Digest) {
        let Some(content) = self.catalog.get(digest).cloned() else { return };
        let Some(site) = self.clients.get_mut(node).filter(|site| site.life == life) else { return };
        let is_there = site.store.package(digest).is_some_and(|package| package.written.is_full());
        if site.store.is_full() && !is_there {
            let (reason, message) = disk_full();
            let failed = Event::PrepareFailed { digest, reason, message, is_final: true };
            return self.tell(node, life, failed);
        }
        site.store.put_manifest(digest);
        let bytes_from_local = site.store.prepare(&content, &self.catalog);
        let Some(on_disk) = site.store.package(digest) else { return };
        let prepared = PreparedPackage {
            digest,
            lengths: content.lengths.clone(),
            available: on_disk.written.clone(),
            held: on_disk.held.clone(),
            published: on_disk.published && on_disk.current,
            bytes_from_local,
        };
        self.plan_flush(node, life);
        self.tell(node, life, Event::Prepared(prepared));
    }

    /// Somebody wrote: the next regular flush is due within a second.
    pub(crate) fn plan_flush(&mut self, node: &NodeName, life: u64) {
        let dirty = self.clients.get(node).is_some_and(|site| site.store.is_dirty());
        if let Some(process) = self.process(node, life)
            && dirty
            && !process.flush_planned
        {
            process.flush_planned = true;
            self.after(FLUSH_INTERVAL, Action::Flush(node.clone(), life));
        }
    }

    pub(crate) fn flush_soon(&mut self, node: &NodeName, life: u64) {
        self.after(FLUSH_TIME, Action::Flush(node.clone(), life));
    }

    pub(crate) fn flush(&mut self, node: &NodeName, life: u64) {
        let Some(site) = self.clients.get_mut(node).filter(|site| site.life == life) else { return };
        let Some(process) = &mut site.process else { return };
        process.flush_planned = false;
        for (digest, runs) in site.store.flush() {
            self.tell(node, life, Event::Flushed { digest, runs });
        }
    }

    pub(crate) fn publish(&mut self, node: &NodeName, life: u64, digest: Digest) {
        let now = self.instant();
        let Some(site) = self.clients.get_mut(node).filter(|site| site.life == life) else { return };
        let published = site.store.publish(now, digest);
        let event = if published {
            self.note_publication();
            Event::Published { digest }
        } else {
            let (reason, message) = ("NotWhole".to_owned(), "the package is not held whole".to_owned());
            Event::StoreFailed { digest, reason, message }
        };
        self.tell(node, life, event);
    }
}

/// What a store says that has no space.
pub(crate) fn disk_full() -> (String, String) {
    (DISK_FULL.to_owned(), "the disk is full: make room".to_owned())
}
