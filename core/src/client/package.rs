//! One package on a node: where it is in its life, what is there of it, and what is still to be said of that. How it is
//! begun is in [`super::preparing`], what its store says in [`super::storing`].

use std::time::{Duration, Instant};

use super::event::PreparedPackage;
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, indices_of};
use crate::message::{NodeState, PackageDelta, RUNS_MAX};
use crate::plan::PlannedPackage;
use crate::swarm::office_view::ChunkLengths;
use crate::swarm::upstream::Upstream;

/// Pause before a manifest is asked for again the first time; it doubles with every failure.
const PREPARE_RETRY_MIN: Duration = Duration::from_millis(40);
/// Longest pause before a manifest is asked for again.
const PREPARE_RETRY_MAX: Duration = Duration::from_millis(1_280);
/// A member to which nothing comes says this often what it lacks.
const LACKS_AGAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Where a package is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not begun, or to be tried again at that time.
    Planned(Option<Instant>),
    /// Manifest and place on disk are being made.
    Preparing,
    /// Chunks are being fetched. In a transit office it stays here.
    Fetching,
    /// Being published.
    Publishing,
    /// Publishing failed and is tried again at that time.
    PublishFailed(Instant),
    /// Published.
    Published,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Planned(_) => "planned",
            Self::Preparing => "preparing",
            Self::Fetching => "fetching",
            Self::Publishing => "publishing",
            Self::PublishFailed(_) => "failed",
            Self::Published => "published",
        }
    }
}

#[derive(Debug)]
pub(super) struct Package {
    pub(super) planned: PlannedPackage,
    pub(super) phase: Phase,
    /// A newer version took its place; its bytes stay until that one is prepared.
    pub(super) superseded: bool,
    pub(super) lengths: ChunkLengths,
    pub(super) available: ChunkSet,
    pub(super) held: ChunkSet,
    pub(super) in_flight: ChunkSet,
    pub(super) upstream: Upstream,
    pub(super) state: NodeState,
    unreported: ChunkSet,
    unreported_lost: ChunkSet,
    state_changed: bool,
    pub(super) completion_due: bool,
    /// When manifest and place on disk were made.
    pub(super) prepared_at: Option<Instant>,
    /// The store had some of it when the process started.
    pub(super) on_disk: bool,
    /// It has been published, though it may be damaged since: consumers may use it.
    pub(super) published: bool,
    prepare_failures: u32,
    /// When it says again what it lacks, while nothing comes.
    lacks_again_at: Option<Instant>,
}

impl Package {
    /// `run` is the boot id of this run of the node, `sequence` that of what it said last.
    pub(super) fn new(planned: PlannedPackage, run: u64, sequence: u64) -> Self {
        Self {
            planned,
            phase: Phase::Planned(None),
            superseded: false,
            lengths: Vec::new().into(),
            available: ChunkSet::default(),
            held: ChunkSet::default(),
            in_flight: ChunkSet::default(),
            upstream: Upstream::default(),
            state: NodeState { run, sequence, ..NodeState::default() },
            unreported: ChunkSet::default(),
            unreported_lost: ChunkSet::default(),
            state_changed: true,
            completion_due: false,
            prepared_at: None,
            on_disk: false,
            published: false,
            prepare_failures: 0,
            lacks_again_at: None,
        }
    }

    /// Whether manifest and place on disk are there.
    pub(super) fn is_prepared(&self) -> bool {
        !matches!(self.phase, Phase::Planned(_) | Phase::Preparing)
    }

    /// Whether there is something to say of it to the rendezvous point.
    pub(super) fn is_reported(&self) -> bool {
        self.is_prepared() || self.state.error.is_some()
    }

    /// Whether this node cannot take it, for want of space or another failure that does not go away by itself.
    pub(super) fn is_refused_by_store(&self) -> bool {
        !self.is_prepared() && self.state.error.is_some()
    }

    /// A transit copy is the rendezvous point's to fetch. Whoever has one from earlier goes on serving it, and whoever
    /// gave the role away for want of space finds out whether it has the space now.
    pub(super) fn is_left_to_others(&self, leading: bool) -> bool {
        !self.planned.target && !leading && !self.on_disk && self.state.error.is_none()
    }

    pub(super) fn capacity(&self) -> u32 {
        self.lengths.len() as u32
    }

    /// Whether every chunk is here and survives a crash.
    pub(super) fn is_whole(&self) -> bool {
        self.available.is_full() && self.held.is_full()
    }

    pub(super) fn bytes_of(&self, index: ChunkIndex) -> u64 {
        self.lengths.get(index as usize).copied().map_or(0, u64::from)
    }

    pub(super) fn gain(&mut self, index: ChunkIndex) {
        if self.available.insert(index) {
            self.unreported_lost.remove(index);
            self.unreported.insert(index);
            self.state_changed = true;
        }
    }

    /// The chunk is not readable any more.
    pub(super) fn lose(&mut self, index: ChunkIndex) {
        if self.available.remove(index) {
            self.unreported_lost.insert(index);
            self.unreported.remove(index);
        }
        if self.held.remove(index) {
            self.state.bytes_held = self.state.bytes_held.saturating_sub(self.bytes_of(index));
        }
    }

    fn prepare_pause(&self) -> Duration {
        PREPARE_RETRY_MIN.saturating_mul(1 << self.prepare_failures.min(8)).min(PREPARE_RETRY_MAX)
    }

    /// Notes that it could not be prepared. Returns the pause before the next try.
    pub(super) fn prepare_failed(&mut self) -> Duration {
        let pause = self.prepare_pause();
        self.prepare_failures = self.prepare_failures.saturating_add(1);
        pause
    }

    /// Manifests that did not come, or places that could not be made, in a row.
    pub(super) fn prepare_failures(&self) -> u32 {
        self.prepare_failures
    }

    /// For the status: why nothing comes, by a reason word and a sentence.
    pub(super) fn waits_because(&mut self, reason: &str, message: String) {
        self.note_wait(Some((reason.to_owned(), message)));
    }

    /// For the status: nothing keeps it waiting.
    pub(super) fn waits_for_nothing(&mut self) {
        self.note_wait(None);
    }

    fn note_wait(&mut self, why: Option<(String, String)>) {
        if self.state.waits != why {
            self.state.waits = why;
            self.touch();
        }
    }

    pub(super) fn touch(&mut self) {
        self.state_changed = true;
    }

    /// What the next report says of this package; bounded, the rest goes with the one after. What is on the way to it
    /// knows the client. `sequence` is that of what the node said last.
    pub(super) fn take_delta(&mut self, sequence: &mut u64) -> Option<PackageDelta> {
        if !self.state_changed && self.unreported.is_empty() && self.unreported_lost.is_empty() {
            return None;
        }
        let available = take_runs(&mut self.unreported);
        let lost = take_runs(&mut self.unreported_lost);
        self.state_changed = false;
        *sequence += 1;
        self.state.sequence = *sequence;
        Some(PackageDelta {
            digest: self.planned.digest,
            available,
            lost,
            coming: Vec::new(),
            state: self.state.clone(),
        })
    }

    /// Messages overtake each other, so the rendezvous point may believe that this node has what it lacks, and would
    /// never have it fetched. While nothing comes, the node says again what it lacks.
    pub(super) fn say_what_it_lacks(&mut self, now: Instant) {
        let wanted = self.phase == Phase::Fetching && self.planned.target && !self.planned.paused;
        if !wanted || !self.in_flight.is_empty() || self.available.is_full() {
            self.lacks_again_at = None;
        } else if *self.lacks_again_at.get_or_insert(now + LACKS_AGAIN_INTERVAL) <= now {
            self.unreported_lost = self.available.complement();
            self.lacks_again_at = Some(now + LACKS_AGAIN_INTERVAL);
        }
    }

    /// The node is its own rendezvous point: it needs no reports.
    pub(super) fn forget_delta(&mut self) {
        self.forget_gains();
        self.unreported_lost = ChunkSet::new(self.capacity());
    }

    /// A full inventory makes earlier gains needless. It only adds, so what was lost is still to be said.
    pub(super) fn forget_gains(&mut self) {
        self.unreported = ChunkSet::new(self.capacity());
        self.state_changed = false;
    }

    /// It was not heard that these chunks are gone.
    pub(super) fn lose_again(&mut self, runs: &[ChunkRun]) {
        for index in indices_of(runs, self.capacity()) {
            if !self.available.contains(index) {
                self.unreported_lost.insert(index);
            }
        }
    }

    /// The rendezvous point does not know of a chunk that is here.
    pub(super) fn report_again(&mut self, index: ChunkIndex) {
        self.unreported_lost.remove(index);
        self.unreported.insert(index);
    }

    pub(super) fn take_prepared(&mut self, now: Instant, prepared: PreparedPackage) {
        (self.prepared_at, self.prepare_failures) = (Some(now), 0);
        let capacity = prepared.lengths.len() as u32;
        self.lengths = prepared.lengths;
        self.unreported = prepared.available.clone();
        // Whatever was reported of it before, nothing else is here now.
        self.unreported_lost = prepared.available.complement();
        self.in_flight = ChunkSet::new(capacity);
        self.available = prepared.available;
        self.held = prepared.held;
        self.upstream = Upstream::default();
        (self.state.error, self.state.waits) = (None, None);
        self.state.bytes_held = self.held.iter().map(|index| self.bytes_of(index)).sum();
        self.state.bytes_from_local += prepared.bytes_from_local;
        self.state_changed = true;
        self.phase = if prepared.published { Phase::Published } else { Phase::Fetching };
        self.state.complete = prepared.published;
        self.completion_due = prepared.published;
        self.published |= prepared.published;
    }
}

fn take_runs(set: &mut ChunkSet) -> Vec<ChunkRun> {
    let runs: Vec<ChunkRun> = set.iter_runs().take(RUNS_MAX).collect();
    for index in runs.iter().flat_map(|run| run.range()) {
        set.remove(index);
    }
    runs
}
