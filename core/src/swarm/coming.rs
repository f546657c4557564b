//! What a member says is on its way to it from outside the office: over the link to the parent, or from the server. A
//! rendezvous point that takes over learns from it what its predecessor fetches still, and waits for that instead of
//! having it brought a second time. The word counts while it comes true: a member that claims and gets nothing delays
//! others for a while, not for good.

use std::time::{Duration, Instant};

use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet};

/// Nothing that was said to come has come for so long: it is not waited for. An honest member says so itself before.
pub const COMING_SILENCE: Duration = Duration::from_secs(30);
/// Nothing is waited for longer than this, all together.
pub const COMING_MAX: Duration = Duration::from_secs(120);

/// The word of one member about one package.
#[derive(Debug, Default)]
pub struct Coming {
    chunks: ChunkSet,
    /// When something was said to come the first time, and when some of it was there last.
    times: Option<(Instant, Instant)>,
}

impl Coming {
    /// The member says what is on its way, all of it. Call it after what has come was noted in `available`.
    pub fn said(&mut self, now: Instant, runs: &[ChunkRun], available: &ChunkSet) {
        let mut came = std::mem::take(&mut self.chunks);
        came.intersect_with(available);
        let (since, progress_at) = self.times.unwrap_or((now, now));
        self.chunks = ChunkSet::new(available.capacity());
        self.chunks.insert_runs(runs);
        self.chunks.subtract(available);
        if self.times.is_some() || !self.chunks.is_empty() {
            self.times = Some((since, if came.is_empty() { progress_at } else { now }));
        }
    }

    /// Whether the chunk is waited for.
    pub fn contains(&self, now: Instant, index: ChunkIndex) -> bool {
        self.counts(now) && self.chunks.contains(index)
    }

    /// Chunks that are waited for.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.chunks.iter().filter(move |_| self.counts(now))
    }

    fn counts(&self, now: Instant) -> bool {
        self.times.is_some_and(|(since, progress_at)| since + COMING_MAX > now && progress_at + COMING_SILENCE > now)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;

    const CHUNKS: u32 = 1_000;

    fn from(first: ChunkIndex) -> [ChunkRun; 1] {
        [ChunkRun { first, count: CHUNKS - first }]
    }

    #[test]
    fn what_is_said_to_come_is_waited_for_until_it_is_there_or_is_not_said_again() {
        let (now, mut available, mut coming) = (Instant::now(), ChunkSet::new(CHUNKS), Coming::default());
        coming.said(now, &from(0), &available);
        assert_eq!(coming.iter(now).count() as u32, CHUNKS);
        available.insert(0);
        coming.said(now, &from(0), &available);
        assert!(!coming.contains(now, 0));
        coming.said(now, &from(2), &available);
        assert!(!coming.contains(now, 1));
    }

    #[test]
    fn word_that_does_not_come_true_is_disregarded() {
        let (now, available, mut coming) = (Instant::now(), ChunkSet::new(CHUNKS), Coming::default());
        coming.said(now, &from(0), &available);
        let later = now + COMING_SILENCE;
        coming.said(later, &from(0), &available);
        assert_eq!(coming.iter(later).count(), 0);
    }

    #[test]
    fn trickle_is_not_waited_for_for_good() {
        let (start, mut available, mut coming) = (Instant::now(), ChunkSet::new(CHUNKS), Coming::default());
        for second in 0..COMING_MAX.as_secs() {
            let now = start + Duration::from_secs(second);
            coming.said(now, &from(0), &available);
            assert!(coming.contains(now, CHUNKS - 1));
            available.insert(second as ChunkIndex);
        }
        assert!(!coming.contains(start + COMING_MAX, CHUNKS - 1));
    }
}
