//! When a client acts on what changed: at once after a quiet moment, later while much changes, because every round of
//! reports and orders costs messages and a look at all chunks.

use std::time::{Duration, Instant};

/// A change is reported and acted upon at once, unless that was done just before: then changes are gathered this long.
const GATHER: Duration = Duration::from_millis(4);
/// A rendezvous point gathers longer, by this much a member, because a round costs up to one order a member,
const GATHER_PER_MEMBER: Duration = Duration::from_millis(1);
/// and at most this long.
const GATHER_MAX: Duration = Duration::from_millis(50);
/// Chunks that merely arrive are gathered this long at least,
const GATHER_CHUNKS: Duration = Duration::from_millis(10);
/// unless so many bytes of them came, for each member that a round concerns: windows must not run empty meanwhile.
const GATHERED_BYTES: u64 = 512 << 10;
/// What came over a long link is followed by the next question sooner, or the link falls silent.
const GATHERED_FROM_OUTSIDE_BYTES: u64 = 512 << 10;

/// The next round and what led to it.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    acted_at: Option<Instant>,
    due: Option<Instant>,
    gained_bytes: u64,
    gained_from_outside_bytes: u64,
}

impl Gathering {
    /// Something changed that others wait for. `members` of the office are concerned by a round.
    pub(super) fn hurry(&mut self, now: Instant, members: usize) {
        self.not_before(now, gather(members));
    }

    /// Chunks arrived that others may fetch now.
    pub(super) fn gained(&mut self, now: Instant, bytes: u64, members: usize) {
        self.gained_bytes += bytes;
        self.gather_chunks(now, members);
    }

    /// Chunks arrived from another office or from the server.
    pub(super) fn gained_from_outside(&mut self, now: Instant, bytes: u64, members: usize) {
        self.gained_from_outside_bytes += bytes;
        self.gather_chunks(now, members);
    }

    fn gather_chunks(&mut self, now: Instant, members: usize) {
        let many = self.gained_bytes >= GATHERED_BYTES * members.max(1) as u64
            || self.gained_from_outside_bytes >= GATHERED_FROM_OUTSIDE_BYTES;
        if many {
            self.hurry(now, members);
        } else {
            self.not_before(now, gather(members).max(GATHER_CHUNKS));
        }
    }

    /// A round has begun.
    pub(super) fn acted(&mut self, now: Instant) {
        *self = Self { acted_at: Some(now), ..Self::default() };
    }

    /// When the next round is due; `None` while nothing has changed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn not_before(&mut self, now: Instant, since_last: Duration) {
        let at = self.acted_at.map_or(now, |acted_at| now.max(acted_at + since_last));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

fn gather(members: usize) -> Duration {
    (GATHER_PER_MEMBER * u32::try_from(members).unwrap_or(u32::MAX)).clamp(GATHER, GATHER_MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;

    #[test]
    fn first_change_after_a_quiet_moment_is_acted_upon_at_once() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.gained(start, 1, 3);
        assert_eq!(gathering.due(), Some(start));
        gathering.acted(start);
        assert_eq!(gathering.due(), None);
        let later = start + GATHER_MAX;
        gathering.gained(later, 1, 3);
        assert_eq!(gathering.due(), Some(later));
    }

    #[test]
    fn chunks_wait_for_more_chunks_until_many_bytes_came() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.acted(start);
        gathering.gained(start, GATHERED_BYTES - 1, 1);
        assert_eq!(gathering.due(), Some(start + GATHER_CHUNKS));
        gathering.gained(start, 1, 1);
        assert_eq!(gathering.due(), Some(start + GATHER));
    }

    #[test]
    fn link_does_not_fall_silent() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.acted(start);
        gathering.gained_from_outside(start, GATHERED_FROM_OUTSIDE_BYTES, 3);
        assert_eq!(gathering.due(), Some(start + GATHER));
    }

    #[test]
    fn what_others_wait_for_does_not_wait_for_chunks() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.acted(start);
        gathering.gained(start, 1, 1);
        gathering.hurry(start, 1);
        assert_eq!(gathering.due(), Some(start + GATHER));
    }

    #[test]
    fn large_offices_have_fewer_rounds() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.acted(start);
        gathering.hurry(start, 1_000);
        assert_eq!(gathering.due(), Some(start + GATHER_MAX));
    }
}
