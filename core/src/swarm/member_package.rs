//! One package on one member, as the rendezvous point sees it: what the member has of it, what it was told to fetch, and
//! who did not serve it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::avoidance::Avoided;
use super::coming::Coming;
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, indices_of, runs_of};
use crate::message::NodeState;
use crate::names::NodeName;

/// An assignment that was neither fulfilled nor reported as unserved is void after this time.
pub const ASSIGNMENT_LIFETIME: Duration = Duration::from_secs(30);
/// A member to which nothing comes for so long although it was told to fetch is idle.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(10);
/// An order without an answer may have arrived all the same: it is void after this time, unless its chunks come.
pub const UNANSWERED_LIFETIME: Duration = Duration::from_secs(5);

/// A chunk that a member was told to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// From whom; `None` is the server.
    pub holder: Option<NodeName>,
    /// When that is void.
    pub(super) until: Instant,
}

impl Assigned {
    /// Assigned now.
    fn new(now: Instant, holder: Option<NodeName>) -> Self {
        Self { holder, until: now + ASSIGNMENT_LIFETIME }
    }
}

/// One package on a member.
#[derive(Debug)]
pub struct MemberPackage {
    /// Verified and readable there.
    pub available: ChunkSet,
    /// What it was told to fetch.
    pub assigned: BTreeMap<ChunkIndex, Assigned>,
    /// Holders that did not serve this member, or served it rubbish.
    pub avoided: Avoided<Option<NodeName>>,
    /// Since when it was told to fetch something and nothing has come.
    told_at: Option<Instant>,
    /// What it says is on its way to it from outside the office.
    pub coming: Coming,
    /// Its own account of its progress.
    pub state: NodeState,
}

impl MemberPackage {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            available: ChunkSet::new(capacity),
            assigned: BTreeMap::new(),
            avoided: Avoided::default(),
            told_at: None,
            coming: Coming::default(),
            state: NodeState::default(),
        }
    }

    /// Notes chunks that arrived or were there. What was assigned was delivered by its holder.
    pub fn gain(&mut self, now: Instant, runs: &[ChunkRun]) {
        for index in indices_of(runs, self.available.capacity()) {
            if let Some(assigned) = self.assigned.remove(&index) {
                self.avoided.delivered(&assigned.holder);
            }
            if self.available.insert(index) {
                self.told_at = (!self.assigned.is_empty()).then_some(now);
            }
        }
    }

    /// Notes that it is told to fetch a chunk.
    pub fn assign(&mut self, now: Instant, index: ChunkIndex, holder: Option<NodeName>) {
        self.assigned.insert(index, Assigned::new(now, holder));
        self.told_at.get_or_insert(now);
    }

    /// Whether it was told long ago to fetch something and nothing has come since: it is no use as a second holder.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| at + IDLE_AFTER <= now)
    }

    /// Notes chunks that are gone.
    pub fn lose(&mut self, runs: &[ChunkRun]) {
        let capacity = self.available.capacity();
        for index in indices_of(runs, capacity) {
            self.available.remove(index);
        }
    }

    /// Voids assignments to that holder for these chunks. Returns those that there were.
    pub fn unserved(&mut self, holder: &Option<NodeName>, runs: &[ChunkRun]) -> Vec<ChunkRun> {
        let capacity = self.available.capacity();
        let assigned = |index: &ChunkIndex| self.assigned.get(index).is_some_and(|assigned| assigned.holder == *holder);
        let voided: Vec<ChunkIndex> = indices_of(runs, capacity).filter(assigned).collect();
        for index in &voided {
            self.assigned.remove(index);
        }
        runs_of(voided)
    }

    /// Nobody knows whether the member heard of its assignments to that holder for these chunks.
    pub fn unanswered(&mut self, now: Instant, holder: &Option<NodeName>, runs: &[ChunkRun]) {
        for index in indices_of(runs, self.available.capacity()) {
            if let Some(assigned) = self.assigned.get_mut(&index).filter(|assigned| assigned.holder == *holder) {
                assigned.until = assigned.until.min(now + UNANSWERED_LIFETIME);
            }
        }
    }

    /// Whether the member may fetch from that holder now.
    pub fn may_use(&self, now: Instant, holder: &Option<NodeName>) -> bool {
        !self.avoided.contains(now, holder)
    }
}
