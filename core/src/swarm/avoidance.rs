//! Who is left alone for a while because it did not deliver, and for how long: longer with every failure in a row, so
//! that a liar costs less and less, and forgotten with the first chunk that it delivers. What counts as a failure, and
//! what follows for others, is decided elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::message::UnservedReason;

/// First pause after a holder could not be reached, refused, or kept silent.
pub const AVOID_UNREACHABLE: Duration = Duration::from_secs(5);
/// First pause after a holder had not got what it said it had: mostly the word was only old.
pub const AVOID_MISSING: Duration = Duration::from_millis(500);
/// Longest pause of a holder that failed again and again.
pub const AVOID_MAX: Duration = Duration::from_secs(300);
/// Pause of a holder that sent what fails verification; no delivery makes up for it.
pub const AVOID_CORRUPT: Duration = Duration::from_secs(3_600);
/// A failure is forgotten when so much time has passed since its pause.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// A pause doubles at most so often.
const DOUBLINGS_MAX: u32 = 16;

#[derive(Debug, Clone, Copy)]
struct Record {
    until: Instant,
    failures: u32,
    corrupt: bool,
}

/// Those that did not deliver.
#[derive(Debug, Clone)]
pub struct Avoided<P>(BTreeMap<P, Record>);

impl<P> Default for Avoided<P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Ord + Clone> Avoided<P> {
    /// It did not deliver: the first time it is left alone for this pause, which doubles with every failure in a row.
    /// Failures while it is left alone anyway are of the same time as the first and do not count, and whoever was
    /// tried for [`FORGOTTEN_AFTER`] and did not fail begins anew.
    pub fn failed(&mut self, now: Instant, peer: &P, first_pause: Duration) {
        let failures = match self.0.get(peer) {
            Some(record) if record.until > now => return,
            Some(record) if record.until + FORGOTTEN_AFTER > now => record.failures.saturating_add(1),
            _ => 1,
        };
        let pause = first_pause.saturating_mul(1 << (failures - 1).min(DOUBLINGS_MAX)).min(AVOID_MAX);
        // Names come from others: what is forgotten must not stay, or they could be invented without end.
        self.0.retain(|_, record| record.until + FORGOTTEN_AFTER > now);
        self.0.insert(peer.clone(), Record { until: now + pause, failures, corrupt: false });
    }

    /// It did not deliver, for this reason.
    pub fn unserved(&mut self, now: Instant, peer: &P, reason: &UnservedReason) {
        match reason {
            UnservedReason::Unreachable | UnservedReason::Refused => self.failed(now, peer, AVOID_UNREACHABLE),
            UnservedReason::Missing => self.failed(now, peer, AVOID_MISSING),
            UnservedReason::Corrupt => self.corrupt(now, peer),
            UnservedReason::Ended | UnservedReason::AlreadyGiven(_) => {}
        }
    }

    /// It is left alone for this pause, and no more the next time.
    pub fn pause(&mut self, now: Instant, peer: &P, pause: Duration) {
        if !self.contains(now, peer) {
            self.0.insert(peer.clone(), Record { until: now + pause, failures: 1, corrupt: false });
        }
    }

    /// It sent what fails verification.
    pub fn corrupt(&mut self, now: Instant, peer: &P) {
        self.0.insert(peer.clone(), Record { until: now + AVOID_CORRUPT, failures: u32::MAX, corrupt: true });
    }

    /// It delivered a verified chunk.
    pub fn delivered(&mut self, peer: &P) {
        if self.0.get(peer).is_some_and(|record| !record.corrupt) {
            self.0.remove(peer);
        }
    }

    /// Whether it is to be left alone now.
    pub fn contains(&self, now: Instant, peer: &P) -> bool {
        self.0.get(peer).is_some_and(|record| record.until > now)
    }

    /// Those to be left alone now, and how often in a row each has failed: rubbish counts like any number of failures.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (&P, u32)> {
        self.0.iter().filter(move |(_, record)| record.until > now).map(|(peer, record)| (peer, record.failures))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;

    /// How long a peer is left alone after a failure at that moment.
    fn pause(avoided: &mut Avoided<u8>, now: Instant) -> Duration {
        avoided.failed(now, &1, AVOID_UNREACHABLE);
        let pauses = (0..).map(|doublings| AVOID_UNREACHABLE * (1 << doublings)).take(DOUBLINGS_MAX as usize);
        pauses.chain([AVOID_MAX]).filter(|&pause| !avoided.contains(now + pause, &1)).min().unwrap()
    }

    #[test]
    fn pauses_grow_with_every_failure_in_a_row_up_to_the_longest() {
        let (mut avoided, mut now) = (Avoided::default(), Instant::now());
        let mut expected = AVOID_UNREACHABLE;
        for _ in 0..20 {
            assert_eq!(pause(&mut avoided, now), expected);
            now += expected;
            expected = (expected * 2).min(AVOID_MAX);
        }
    }

    #[test]
    fn failures_of_the_same_time_count_once() {
        let (mut avoided, now) = (Avoided::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(pause(&mut avoided, now), AVOID_UNREACHABLE);
        }
    }

    #[test]
    fn delivered_chunk_makes_up_for_silence_and_not_for_rubbish() {
        let (mut avoided, now) = (Avoided::default(), Instant::now());
        avoided.failed(now, &1, AVOID_UNREACHABLE);
        avoided.delivered(&1);
        assert!(!avoided.contains(now, &1));
        assert_eq!(pause(&mut avoided, now), AVOID_UNREACHABLE);
        avoided.corrupt(now, &1);
        avoided.delivered(&1);
        assert!(avoided.contains(now, &1));
    }
}
