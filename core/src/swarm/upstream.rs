//! What a rendezvous point asks of its parent office: which chunks next, within a window that bounds what the
//! rendezvous point's death costs, and what to do with the answers. Sending and receiving are the client's business.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::assigner::LINK_WINDOW_BYTES;
use super::office_view::ChunkLengths;
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, runs_of};
use crate::message::RUNS_MAX;
use crate::names::NodeName;

/// A request without an answer is asked again after this time.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A chunk that the parent does not have yet is asked for again after this time, should its promise be lost.
pub const PROMISE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a request that could not be delivered.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Asked, no answer so far.
    Request(Instant),
    /// The parent promised to grant it when somebody has it.
    Promised(Instant),
    /// Granted; a transfer is to bring it.
    Granted,
}

/// The requests of one package over the link to the parent office.
#[derive(Debug, Default)]
pub struct Upstream {
    asked: BTreeMap<ChunkIndex, Asked>,
    lost_holders: BTreeSet<NodeName>,
    quiet_until: Option<Instant>,
}

impl Upstream {
    /// Chooses what to ask next.
    ///
    /// `present` is what the office has; `unshared_bytes` is what only the rendezvous point has although other
    /// members want it. That and what is asked stay within [`LINK_WINDOW_BYTES`] together.
    pub fn next_request(
        &mut self,
        now: Instant,
        present: &ChunkSet,
        unshared_bytes: u64,
        lengths: &ChunkLengths,
    ) -> Vec<ChunkRun> {
        self.asked.retain(|&index, asked| {
            !present.contains(index)
                && match asked {
                    Asked::Request(since) => *since + ANSWER_TIMEOUT > now,
                    Asked::Promised(since) => *since + PROMISE_TIMEOUT > now,
                    Asked::Granted => true,
                }
        });
        if self.quiet_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let length = |index: ChunkIndex| u64::from(lengths[index as usize]);
        let asked: u64 = self.asked.keys().map(|&index| length(index)).sum();
        let mut room = LINK_WINDOW_BYTES.saturating_sub(asked + unshared_bytes);
        let mut request = Vec::new();
        // A quarter of the window at least, so that requests are few while others are on their way.
        if room < LINK_WINDOW_BYTES / 4 && asked > 0 {
            return Vec::new();
        }
        for index in present.complement().iter() {
            if room == 0 || request.len() >= RUNS_MAX {
                break;
            }
            if let Entry::Vacant(place) = self.asked.entry(index) {
                place.insert(Asked::Request(now));
                request.push(index);
                room = room.saturating_sub(length(index));
            }
        }
        runs_of(request)
    }

    /// First receivers that the next request names as lost.
    pub fn lost_holders(&self) -> Vec<NodeName> {
        self.lost_holders.iter().cloned().collect()
    }

    /// A request could not be delivered: its chunks are open again, after a pause.
    pub fn undelivered(&mut self, now: Instant, runs: &[ChunkRun]) {
        self.release(runs);
        self.quiet_until = Some(now + RETRY_DELAY);
    }

    /// The parent granted the chunk. False when it was not asked for, or is on its way already.
    pub fn granted(&mut self, index: ChunkIndex) -> bool {
        match self.asked.get_mut(&index) {
            Some(asked) if *asked != Asked::Granted => {
                *asked = Asked::Granted;
                true
            }
            _ => false,
        }
    }

    /// The parent does not have these yet and remembers that they are wanted.
    pub fn promised(&mut self, now: Instant, runs: &[ChunkRun]) {
        for index in runs.iter().flat_map(|run| run.range()) {
            if let Some(asked @ Asked::Request(_)) = self.asked.get_mut(&index) {
                *asked = Asked::Promised(now);
            }
        }
    }

    /// The chunks went to another node of this office. If that node is lost, the next request says so.
    pub fn given_before(&mut self, now: Instant, receiver: &NodeName, lost: bool, runs: &[ChunkRun]) {
        self.release(runs);
        if lost {
            self.lost_holders.insert(receiver.clone());
        } else {
            self.quiet_until = Some(now + RETRY_DELAY);
        }
    }

    /// Chunks that did not come are open again.
    pub fn release(&mut self, runs: &[ChunkRun]) {
        for run in runs {
            let stale: Vec<ChunkIndex> = self.asked.range(run.range()).map(|(&index, _)| index).collect();
            stale.iter().for_each(|index| {
                self.asked.remove(index);
            });
        }
    }

    /// What was asked or granted and has not come: a new rendezvous point of the parent is told of it.
    pub fn outstanding(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.asked.iter().filter(|(_, asked)| **asked == Asked::Granted).map(|(&index, _)| index)
    }

    /// The next moment at which something may be asked again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.asked.values().filter_map(|asked| match asked {
            Asked::Request(since) => Some(*since + ANSWER_TIMEOUT),
            Asked::Promised(since) => Some(*since + PROMISE_TIMEOUT),
            Asked::Granted => None,
        });
        oldest.chain(self.quiet_until).min()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;

    fn lengths(chunks: usize) -> ChunkLengths {
        vec![64 << 10; chunks].into()
    }

    #[test]
    fn request_stays_within_the_window() {
        let (now, present) = (Instant::now(), ChunkSet::new(1024));
        let mut upstream = Upstream::default();
        let runs = upstream.next_request(now, &present, 0, &lengths(1024));
        assert_eq!(runs, [ChunkRun { first: 0, count: (LINK_WINDOW_BYTES / (64 << 10)) as u32 }]);
        assert!(upstream.next_request(now, &present, 0, &lengths(1024)).is_empty());
    }

    #[test]
    fn unshared_chunks_use_up_the_window() {
        let (now, present) = (Instant::now(), ChunkSet::new(1024));
        let mut upstream = Upstream::default();
        let runs = upstream.next_request(now, &present, LINK_WINDOW_BYTES - (64 << 10), &lengths(1024));
        assert_eq!(runs, [ChunkRun { first: 0, count: 1 }]);
    }

    #[test]
    fn lost_answer_is_asked_again_and_lost_receiver_is_named() {
        let (now, present) = (Instant::now(), ChunkSet::new(2));
        let mut upstream = Upstream::default();
        let runs = upstream.next_request(now, &present, 0, &lengths(2));
        assert_eq!(upstream.next_request(now + ANSWER_TIMEOUT, &present, 0, &lengths(2)), runs);
        let dead = NodeName::new("dead").unwrap();
        upstream.given_before(now, &dead, true, &runs);
        assert_eq!(upstream.lost_holders(), [dead]);
        assert_eq!(upstream.next_request(now, &present, 0, &lengths(2)), runs);
    }

    #[test]
    fn chunk_is_granted_once() {
        let (now, present) = (Instant::now(), ChunkSet::new(2));
        let mut upstream = Upstream::default();
        upstream.next_request(now, &present, 0, &lengths(2));
        assert!(upstream.granted(0));
        assert!(!upstream.granted(0));
    }
}
