//! The time that a node's own patience is counted in: time in which it could have done something. A node that got no
//! processor, or was stopped, finds a heap of unread messages when it goes on; were the clock on the wall to count, it
//! would take everybody for dead who spoke in the meantime. So a node that goes on late finds itself at the moment at
//! which it meant to do something next.

use std::time::{Duration, Instant};

/// Whoever is called later than this after its deadline was kept from running.
const LATE_AFTER: Duration = Duration::from_millis(250);

/// How far the time of a node is behind the clock.
#[derive(Debug, Default)]
pub(super) struct RunningTime {
    behind: Duration,
}

impl RunningTime {
    /// The node's time at a moment by the clock; `due` is when, by its own time, it wanted to be called at the latest.
    pub(super) fn take_in(&mut self, clock: Instant, due: Instant) -> Instant {
        if clock > self.on_clock(due) + LATE_AFTER {
            self.behind = clock.saturating_duration_since(due);
        }
        clock.checked_sub(self.behind).unwrap_or(clock)
    }

    /// When a moment of the node's time comes by the clock.
    pub(super) fn on_clock(&self, at: Instant) -> Instant {
        at + self.behind
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;

    #[test]
    fn node_that_is_called_in_time_goes_by_the_clock() {
        let start = Instant::now();
        let mut time = RunningTime::default();
        assert_eq!(time.take_in(start, start + LATE_AFTER), start);
        assert_eq!(time.take_in(start + LATE_AFTER * 2, start + LATE_AFTER), start + LATE_AFTER * 2);
    }

    #[test]
    fn pause_of_the_process_does_not_count() {
        let start = Instant::now();
        let (due, pause) = (start + Duration::from_millis(500), Duration::from_secs(60));
        let mut time = RunningTime::default();
        assert_eq!(time.take_in(due + pause, due), due);
        assert_eq!(time.on_clock(due), due + pause);
        let next = due + Duration::from_millis(500);
        assert_eq!(time.take_in(next + pause, next), next);
    }
}
