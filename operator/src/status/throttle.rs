//! At most one write a second and object, as the API server sees them: the pause counts from the answer to a write, since
//! the next one may be faster on its way there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two writes of one object's status.
const PAUSE: Duration = Duration::from_secs(1);
/// How many objects are remembered before those whose pause is over are forgotten.
const REMEMBERED_MAX: usize = 1024;

/// When each object's status was written last.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Mutex<BTreeMap<String, Instant>>,
}

impl Throttle {
    /// Lets a write pass and remembers it.
    ///
    /// # Errors
    /// How long to wait, when it is too early.
    pub(super) fn admit(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = last.get(key).map(|last| (*last + PAUSE).saturating_duration_since(now));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if last.len() >= REMEMBERED_MAX {
            last.retain(|_, last| now < *last + PAUSE);
        }
        last.insert(key.to_owned(), now);
        Ok(())
    }

    /// The write was answered, or given up.
    pub(super) fn ended(&self, key: &str, now: Instant) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_at_most_once_a_second() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.admit("a", now), Ok(()));
        assert_eq!(throttle.admit("b", now), Ok(()));
        let soon = now + Duration::from_millis(400);
        assert_eq!(throttle.admit("a", soon), Err(Duration::from_millis(600)));
        let writes = (0..10_000_u64).filter(|ms| throttle.admit("c", now + Duration::from_millis(*ms)).is_ok()).count();
        assert_eq!(writes, 10);
        assert_eq!(throttle.admit("a", now + PAUSE), Ok(()));
    }

    #[test]
    fn the_pause_begins_with_the_answer() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.admit("a", now), Ok(()));
        throttle.ended("a", now + Duration::from_millis(300));
        assert_eq!(throttle.admit("a", now + PAUSE), Err(Duration::from_millis(300)));
        assert_eq!(throttle.admit("a", now + PAUSE + Duration::from_millis(300)), Ok(()));
    }

    #[test]
    fn old_objects_are_forgotten() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        (0..REMEMBERED_MAX).for_each(|index| throttle.admit(&index.to_string(), now).unwrap());
        throttle.admit("later", now + PAUSE).unwrap();
        assert_eq!(throttle.last.lock().unwrap().len(), 1);
    }
}
