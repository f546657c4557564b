//! The client of one node: everything it decides, as one machine.
//!
//! It is composed of the election ([`crate::rendezvous`], [`electing`]), the life of each package ([`package`],
//! [`preparing`], [`storing`], [`deleting`]), incoming transfers ([`receiving`], [`silence`], [`unserved`]) and their pace
//! ([`steering`]), what it serves to others ([`serving`]), its reports as a member ([`membership`]) and, while it is the
//! rendezvous point, its office's coordination ([`leading`]); [`hearing`] sorts messages. The driver feeds [`Event`]s and
//! acts on [`Output`]s; it verifies and stores chunks before it says that they are stored. Beside the machine stands
//! [`ServerAddresses`]: a node has to find the server before it has a machine.

mod answering;
mod deleting;
mod electing;
mod event;
#[cfg(test)]
mod fixture;
mod gathering;
mod hearing;
mod leading;
mod membership;
mod package;
mod parent;
mod planning;
mod preparing;
mod progress;
mod receiving;
mod running_time;
mod server_addresses;
pub(crate) mod serving;
mod silence;
mod steering;
mod storing;
mod unserved;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::digest::Digest;
use crate::message::{MemberReport, Message, SignedBytes, Term, TransferId};
use crate::names::{NodeName, PackageKey};
use crate::office::OfficeType;
use crate::peer::{MessageClass, NodeRef, Peer};
use crate::plan::Plan;
use crate::rendezvous::Rendezvous;

use answering::PendingAnswer;
use deleting::Deletions;
pub use event::{
    BUSY, BroadcastRequest, ControlSignal, DISK_FULL, Event, INVENTORY_NEEDED, MISSING, NOT_FOLLOWING, NOT_GRANTED,
    NOT_READY, NOT_RENDEZVOUS_POINT, Output, PreparedPackage, Refusal, StoredPackage,
};
use gathering::Gathering;
use leading::Leading;
use package::Package;
use parent::Parent;
pub use progress::PackageProgress;
use receiving::Incoming;
use running_time::RunningTime;
pub use server_addresses::ServerAddresses;

/// Regular look at deadlines, retries and silent transfers.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);
/// Old versions are looked at this often at least, for those whose time is over.
pub const PRUNE_INTERVAL_MAX: Duration = Duration::from_secs(600);
/// How often a client greets the server.
pub const HELLO_INTERVAL: Duration = Duration::from_secs(10);
/// How often a member reports to its rendezvous point even if nothing changed.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a rendezvous point reports its office to the server.
pub const OFFICE_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// What a client knows of itself from its enrolment.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Itself.
    pub me: NodeRef,
    /// Random number of this run.
    pub boot_id: u64,
    /// Type of its office.
    pub office_type: OfficeType,
    /// Whether its office is the Central Office.
    pub central: bool,
    /// Highest election term it remembers.
    pub term: Term,
    /// Seed of its random choices.
    pub seed: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: StdRng,
    /// Everything below is in its time, and not by the clock.
    time: RunningTime,
    election: Rendezvous,
    leading: Option<Leading>,
    plan: Option<Plan>,
    signed_plan: Option<SignedBytes>,
    /// Packages by digest of their root.
    packages: BTreeMap<Digest, Package>,
    /// What the store had at the start and no plan has claimed yet.
    unclaimed: BTreeMap<Digest, StoredPackage>,
    /// Older versions that may still be on disk, which go with their distribution.
    older: BTreeMap<Digest, StoredPackage>,
    transfers: BTreeMap<TransferId, Incoming>,
    /// Transfers or packages changed: holders may have to be told another pace.
    pace_due: bool,
    /// Answers to broadcast questions that wait for their moment, by who asked.
    answers: BTreeMap<NodeName, PendingAnswer>,
    serving: BTreeSet<(NodeName, TransferId)>,
    next_transfer: TransferId,
    /// Of what it said last of its packages.
    sequence: u64,
    parent: Parent,
    housekeeping_at: Instant,
    gathering: Gathering,
    /// Deadlines of whatever waits: earlier ones win, and everything is looked at.
    wake_at: Option<Instant>,
    prune_at: Instant,
    hello_at: Instant,
    report_at: Instant,
    inventory_due: bool,
    /// When the last one was sent to the rendezvous point: it is not repeated before it can have arrived.
    inventory_sent_at: Option<Instant>,
    /// How often it was sent again since the rendezvous point accepted a report.
    inventories_unanswered: u32,
    /// When the report was sent whose answer has not come: the next one waits for it and says more at once.
    report_sent_at: Option<Instant>,
    report_waits: bool,
    deletions: Deletions,
    outputs: VecDeque<Output>,
}

impl Client {
    /// A client that just enrolled. `stored` is what its store holds.
    pub fn new(now: Instant, config: ClientConfig, stored: Vec<StoredPackage>) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        let election = Rendezvous::new(now, config.me.clone(), config.office_type, config.term, &mut rng);
        let first_transfer = config.boot_id << 24;
        Self {
            rng,
            time: RunningTime::default(),
            election,
            leading: None,
            plan: None,
            signed_plan: None,
            packages: BTreeMap::new(),
            older: BTreeMap::new(),
            unclaimed: stored.into_iter().map(|package| (package.digest, package)).collect(),
            transfers: BTreeMap::new(),
            pace_due: false,
            answers: BTreeMap::new(),
            serving: BTreeSet::new(),
            next_transfer: first_transfer,
            sequence: 0,
            parent: Parent::default(),
            housekeeping_at: now,
            gathering: Gathering::default(),
            wake_at: None,
            prune_at: now,
            hello_at: now,
            report_at: now,
            inventory_due: false,
            inventory_sent_at: None,
            inventories_unanswered: 0,
            report_sent_at: None,
            report_waits: false,
            deletions: Deletions::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, event: Event) {
        let now = self.take_in(now);
        match event {
            Event::Plan { signed, plan } => self.take_plan(now, signed, plan),
            Event::Delivered { to, .. } => self.delivered(now, &to),
            Event::Undelivered { to, message, refused } => self.undelivered(now, &to, message, refused),
            Event::Broadcast { from, request } => self.hear_broadcast(now, from, request),
            Event::Prepared(prepared) => self.prepared(now, prepared),
            Event::PrepareFailed { digest, reason, message, is_final } => {
                self.prepare_failed(now, digest, reason, message, is_final);
            }
            Event::TransferStarted { transfer } => self.transfer_started(now, transfer),
            Event::ChunkStored { transfer, index } => self.chunk_stored(now, transfer, index),
            Event::ChunkRejected { transfer, bytes } => self.chunk_rejected(now, transfer, bytes),
            Event::TransferEnded { transfer, failure } => self.transfer_ended(now, transfer, failure),
            Event::Flushed { digest, runs } => self.flushed(now, digest, &runs),
            Event::ChunksLost { digest, runs } => self.chunks_lost(now, digest, &runs),
            Event::StoreFailed { digest, reason, message } => self.store_failed(now, digest, reason, message),
            Event::Deleted { .. } => self.deleted(now),
            Event::Pruned { digest } => {
                self.older.remove(&digest);
            }
            Event::Published { digest } => self.published(now, digest),
            Event::ServeEnded { to, transfer } => {
                self.serving.remove(&(to, transfer));
            }
        }
        self.drive_election(now);
        self.steer_paces();
    }

    /// Acts on deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.take_in(now);
        self.election.handle_timeout(now);
        self.drive_election(now);
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.retry_packages(now);
            self.hurry(now);
        }
        if self.gathering.due().is_some_and(|at| at <= now) {
            self.act(now);
        }
        if self.housekeeping_at <= now {
            self.housekeeping_at = now + HOUSEKEEPING_INTERVAL;
            self.greet(now);
            self.retry_packages(now);
            self.end_silent_transfers(now);
            self.prune(now);
            self.act(now);
        }
        self.give_answers(now);
        self.steer_paces();
    }

    /// Next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Client::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        self.time.on_clock(self.due())
    }

    /// The same by the node's own time.
    fn due(&self) -> Instant {
        let deadlines = [self.election.poll_timeout(), self.gathering.due(), self.wake_at, self.answer_at()];
        deadlines.into_iter().flatten().fold(self.housekeeping_at, Instant::min)
    }

    /// Whether the node is its office's rendezvous point.
    pub fn is_rendezvous_point(&self) -> bool {
        self.election.is_leading()
    }

    /// The office's rendezvous point as far as this node knows.
    pub fn rendezvous_point(&self) -> Option<&NodeRef> {
        if self.election.is_leading() { Some(&self.config.me) } else { self.election.leader() }
    }

    /// Current election term.
    pub fn term(&self) -> Term {
        self.election.term()
    }

    /// The plan in force.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The package of this digest, if it is planned or not yet gone.
    pub fn key_of(&self, digest: Digest) -> Option<&PackageKey> {
        self.packages.get(&digest).map(|package| &package.planned.key)
    }

    /// The node's own time.
    fn take_in(&mut self, clock: Instant) -> Instant {
        let due = self.due();
        self.time.take_in(clock, due)
    }

    fn revision(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.revision)
    }

    fn send(&mut self, to: Peer, class: MessageClass, message: Message) {
        self.outputs.push_back(Output::Send { to, class, message });
    }

    fn send_small(&mut self, to: &NodeRef, message: Message) {
        self.send(Peer::Node(to.clone()), MessageClass::Small, message);
    }

    /// Something changed that should be reported or acted upon soon.
    fn hurry(&mut self, now: Instant) {
        self.gathering.hurry(now, self.members_led());
    }

    /// Chunks arrived, here or at a member.
    fn gained(&mut self, now: Instant, bytes: u64) {
        self.gathering.gained(now, bytes, self.members_led());
    }

    /// Members whose rendezvous point this is.
    fn members_led(&self) -> usize {
        self.leading.as_ref().map_or(0, |leading| leading.view.member_count())
    }

    /// Something may be done at that moment and not before.
    fn wake_at(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn act(&mut self, now: Instant) {
        self.gathering.acted(now);
        if self.leading.is_some() {
            self.lead(now);
        } else {
            self.report(now);
        }
    }

    fn empty_report(&self) -> MemberReport {
        MemberReport {
            boot_id: self.config.boot_id,
            plan_revision: self.revision(),
            term: self.election.term(),
            packages: Vec::new(),
        }
    }
}
