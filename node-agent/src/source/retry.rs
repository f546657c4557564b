//! When a source that failed is tried again. It decides only; whoever schedules brings the clock and waits.

use std::time::{Duration, Instant};

use rand::Rng;

use super::error::SourceError;

/// Tries without any new byte before a single run gives up.
const TRIES_ONCE: u32 = 3;
/// Time without any new byte in which a single run makes its tries.
pub const TRIES_ONCE_WITHIN: Duration = Duration::from_secs(10);
/// Waiting between the tries of a single run.
const DELAYS_ONCE: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(2000)];
/// First and longest waiting of something that keeps running.
const DELAY_FIRST: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(300);
/// Waiting varies by this part in both directions, so that many sources of one server do not come back together.
const JITTER: f64 = 0.2;

/// How patient the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// A run that ends: three tries within ten seconds of silence, and none after a final error.
    Once,
    /// Something that keeps running: for as long as another try may help, at growing distance.
    KeepTrying,
}

/// What counts of a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedTry {
    /// The same try would end the same way.
    pub is_final: bool,
    /// A later try may end otherwise without any edit of the object.
    pub may_heal: bool,
    /// It brought new bytes.
    pub made_progress: bool,
}

impl From<&SourceError> for FailedTry {
    fn from(error: &SourceError) -> Self {
        let made_progress = matches!(error, SourceError::SourceUnavailable { received_bytes: 1.., .. });
        Self { is_final: error.is_final(), may_heal: error.may_heal(), made_progress }
    }
}

/// The failures of one source so far.
#[derive(Debug, Clone)]
pub struct Retry {
    policy: RetryPolicy,
    failures: u32,
    /// Begin of the first try, or the last one that brought new bytes.
    silent_since: Instant,
}

impl Retry {
    /// Before the first try.
    pub fn new(policy: RetryPolicy, now: Instant) -> Self {
        Self { policy, failures: 0, silent_since: now }
    }

    /// How long to wait after this failure before the next try; `None`: do not try again until the object changes.
    pub fn delay_after(&mut self, failed: FailedTry, now: Instant, random: &mut impl Rng) -> Option<Duration> {
        if failed.made_progress {
            self.failures = 0;
            self.silent_since = now;
        }
        self.failures += 1;
        match self.policy {
            RetryPolicy::Once => self.delay_once(failed, now),
            RetryPolicy::KeepTrying => self.delay_running(failed, random),
        }
    }

    fn delay_once(&self, failed: FailedTry, now: Instant) -> Option<Duration> {
        if failed.is_final || self.failures >= TRIES_ONCE {
            return None;
        }
        let delay = DELAYS_ONCE[self.failures as usize - 1];
        (now + delay < self.silent_since + TRIES_ONCE_WITHIN).then_some(delay)
    }

    fn delay_running(&self, failed: FailedTry, random: &mut impl Rng) -> Option<Duration> {
        if !failed.may_heal {
            return None;
        }
        let doublings = if failed.is_final { u32::BITS - 1 } else { (self.failures - 1).min(u32::BITS - 1) };
        let delay = DELAY_FIRST.saturating_mul(1 << doublings).min(DELAY_MAX);
        Some(delay.mul_f64(random.random_range(1.0 - JITTER..1.0 + JITTER)))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn unavailable(received_bytes: u64) -> FailedTry {
        FailedTry::from(&SourceError::SourceUnavailable { uri: String::new(), detail: String::new(), received_bytes })
    }

    fn missing() -> FailedTry {
        FailedTry::from(&SourceError::SourceMissing { uri: String::new(), detail: String::new() })
    }

    #[test]
    fn a_single_run_tries_three_times_within_ten_seconds() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut retry = Retry::new(RetryPolicy::Once, now);
        assert_eq!(retry.delay_after(unavailable(0), now, &mut random), Some(DELAYS_ONCE[0]));
        assert_eq!(retry.delay_after(unavailable(0), now, &mut random), Some(DELAYS_ONCE[1]));
        assert_eq!(retry.delay_after(unavailable(0), now, &mut random), None);
        let mut retry = Retry::new(RetryPolicy::Once, now);
        assert_eq!(retry.delay_after(unavailable(0), now + TRIES_ONCE_WITHIN, &mut random), None);
        let mut retry = Retry::new(RetryPolicy::Once, now);
        assert_eq!(retry.delay_after(missing(), now, &mut random), None);
    }

    #[test]
    fn tries_that_bring_bytes_do_not_count() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut retry = Retry::new(RetryPolicy::Once, now);
        for round in 1..10 {
            let later = now + TRIES_ONCE_WITHIN * round;
            assert!(retry.delay_after(unavailable(7), later, &mut random).is_some());
        }
    }

    #[test]
    fn what_keeps_running_waits_longer_each_time_and_heals() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut retry = Retry::new(RetryPolicy::KeepTrying, now);
        let mut delays = (0..40).map(|_| retry.delay_after(unavailable(0), now, &mut random).unwrap());
        assert!(delays.next().unwrap() < DELAY_FIRST * 2);
        let last = delays.last().unwrap();
        assert!(last > DELAY_MAX / 2 && last < DELAY_MAX * 2);
        assert!(retry.delay_after(missing(), now, &mut random).unwrap() > DELAY_MAX / 2);
        let wrong = SourceError::DigestMismatch { uri: String::new(), expected: String::new(), actual: String::new() };
        assert_eq!(retry.delay_after(FailedTry::from(&wrong), now, &mut random), None);
    }
}
