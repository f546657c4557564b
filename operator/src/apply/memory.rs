//! What was written a moment ago, so that a cache that does not show it yet causes no second write. Also the answer for
//! an object that the API server stores in other words than it was asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a cache may take to show a write. Afterwards the write is done again, which does no harm.
const CACHE_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often what is older is forgotten, counted in writes.
const WRITES_BETWEEN_CLEANING: usize = 1024;

/// Writes by object; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    writes: Arc<Mutex<BTreeMap<String, Write>>>,
}

#[derive(Debug)]
struct Write {
    digest: String,
    before: Option<String>,
    after: String,
    at: Instant,
}

/// What is known about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It happened, and nobody changed the object since as far as the cache shows.
    Written,
    /// It has to be done.
    Due,
}

impl Memory {
    /// Whether `digest` was written to the object that the cache shows at `version`.
    pub(super) fn look_up(&self, key: &str, digest: &str, version: Option<&str>, now: Instant) -> Verdict {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(write) = writes.get(key).filter(|write| write.digest == digest) else { return Verdict::Due };
        let not_shown_yet = write.before.as_deref() == version && now < write.at + CACHE_DELAY_MAX;
        if not_shown_yet || version == Some(write.after.as_str()) { Verdict::Written } else { Verdict::Due }
    }

    /// Notes a write.
    pub(super) fn remember(&self, key: String, digest: String, before: Option<&str>, after: String, now: Instant) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.insert(key, Write { digest, before: before.map(str::to_owned), after, at: now });
        if writes.len().is_multiple_of(WRITES_BETWEEN_CLEANING) {
            writes.retain(|_, write| now < write.at + CACHE_DELAY_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_not_repeated_while_the_cache_is_behind_or_shows_it() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.remember("a".to_owned(), "d".to_owned(), Some("1"), "2".to_owned(), now);
        assert_eq!(memory.look_up("a", "d", Some("1"), now), Verdict::Written);
        assert_eq!(memory.look_up("a", "d", Some("2"), now + CACHE_DELAY_MAX), Verdict::Written);
    }

    #[test]
    fn other_content_other_versions_and_late_caches_are_written() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.remember("a".to_owned(), "d".to_owned(), Some("1"), "2".to_owned(), now);
        assert_eq!(memory.look_up("a", "other", Some("2"), now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", Some("3"), now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", None, now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", Some("1"), now + CACHE_DELAY_MAX), Verdict::Due);
        assert_eq!(memory.look_up("b", "d", Some("1"), now), Verdict::Due);
    }
}
