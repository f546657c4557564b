//! Slow machines: each process gets time for a moment and then none for another, by a schedule of its own. Whatever
//! concerns a process that gets none waits until it does: messages, chunks, its own deadlines. Nothing is lost and
//! nobody dies; only clocks run on.

use std::collections::BTreeMap;
use std::time::Duration;

use peerdist_core::peer::{NodeRef, Peer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::server_site::DELIVERY_TIMEOUT;
use crate::stream::StreamId;
use crate::world::{Action, Site, World};

/// A process that gets time gets at least this much.
const RUN_MIN: Duration = Duration::from_millis(1);

/// How slow the machines of a run are.
#[derive(Debug, Clone, Copy)]
pub struct Slowness {
    /// A process gets time for so long at most,
    pub run_max: Duration,
    /// and then none for so long at most; most pauses are much shorter.
    pub stall_max: Duration,
}

/// When a process gets time.
#[derive(Debug, Clone, Copy, Default)]
struct Schedule {
    runs_until: Duration,
    stalls_until: Duration,
}

/// The schedules of all processes.
#[derive(Debug)]
pub(crate) struct Stalls {
    slowness: Option<Slowness>,
    rng: StdRng,
    schedules: BTreeMap<Site, Schedule>,
}

impl Stalls {
    pub(crate) fn new(seed: u64, slowness: Option<Slowness>) -> Self {
        Self { slowness, rng: StdRng::seed_from_u64(seed ^ 0x51), schedules: BTreeMap::new() }
    }

    /// From now on every process gets all the time that it wants.
    pub(crate) fn end(&mut self) {
        self.slowness = None;
    }

    /// When the process can do something next.
    fn next_run(&mut self, site: &Site, now: Duration) -> Duration {
        let Some(slowness) = self.slowness else { return now };
        let schedule = self.schedules.entry(site.clone()).or_default();
        while schedule.stalls_until <= now {
            let runs = RUN_MIN + slowness.run_max.mul_f64(self.rng.random());
            schedule.runs_until = schedule.stalls_until + runs;
            schedule.stalls_until = schedule.runs_until + slowness.stall_max.mul_f64(self.rng.random::<f64>().powi(3));
        }
        if now < schedule.runs_until { now } else { schedule.stalls_until }
    }
}

impl World {
    /// Lets an action wait for a process that gets no time now. Returns it when it can be done.
    pub(crate) fn done_in_time(&mut self, action: Action) -> Option<Action> {
        let Some(site) = self.concerned(&action) else { return Some(action) };
        let at = self.stalls.next_run(&site, self.now);
        if at == self.now {
            return Some(action);
        }
        if let Action::Arrive { from, from_life, to, message, sent_at } = &action {
            let gives_up_at = *sent_at + DELIVERY_TIMEOUT;
            if gives_up_at <= at {
                let (from, from_life, to, message) = (from.clone(), *from_life, to.clone(), message.clone());
                self.at(gives_up_at, Action::GiveUp { from, from_life, to, message });
            }
        }
        self.at(at, action);
        None
    }

    /// Whose process an action needs.
    fn concerned(&self, action: &Action) -> Option<Site> {
        match action {
            Action::Wake(site, _) => Some(site.clone()),
            Action::Arrive { to: peer, .. } | Action::AskForManifest { from: peer, .. } => Some(site_of(peer)),
            Action::Hear { to: node, .. }
            | Action::Tell(node, _, _)
            | Action::Place { node, .. }
            | Action::Flush(node, _)
            | Action::Publish(node, _, _) => Some(Some(node.clone())),
            Action::TellServer(_, _) => Some(None),
            Action::StreamOpens(stream) | Action::ChunkArrives(stream, _) | Action::StreamEnds(stream, _) => {
                self.receiver(*stream)
            }
            Action::StreamSends(stream, _) | Action::Signal(stream, _) => self.sender(*stream),
            Action::Start(_, _) | Action::StartServer | Action::GiveUp { .. } | Action::Operate(_) | Action::Look => {
                None
            }
        }
    }

    fn receiver(&self, stream: StreamId) -> Option<Site> {
        self.streams.get(&stream).map(|stream| Some(stream.receiver.name.clone()))
    }

    fn sender(&self, stream: StreamId) -> Option<Site> {
        let name = |node: &NodeRef| node.name.clone();
        self.streams.get(&stream).map(|stream| stream.sender.as_ref().map(name))
    }
}

fn site_of(peer: &Peer) -> Site {
    peer.node().map(|node| node.name.clone())
}
