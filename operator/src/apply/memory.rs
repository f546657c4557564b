//! What was written a moment ago, so that a cache that does not show it yet causes no second write. Also the answer for
//! an object that the API server stores in other words than it was asked for. The watches tell what was deleted, which a
//! cache that is behind looks like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt};

/// How long a cache may take to show a write. Afterwards the write is done again, which does no harm.
const CACHE_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often what is older is forgotten, counted in writes.
const WRITES_BETWEEN_CLEANING: usize = 1024;

/// Writes by object; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
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
    /// Forgets what was written to an object that is gone.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let key = key(&K::plural(&()), object.namespace().as_deref(), &object.name_any());
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.remove(&status_key(&key));
        writes.remove(&key);
    }

    /// Forgets what was written to all objects of a kind, when its cache was filled anew: it does not tell what is gone.
    pub fn forget_kind<K: Resource<DynamicType = ()>>(&self) {
        let prefix = format!("{}/", K::plural(&()));
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.retain(|key, _| !key.starts_with(&prefix));
    }

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

/// What a write to an object goes by.
pub(super) fn key(plural: &str, namespace: Option<&str>, name: &str) -> String {
    format!("{plural}/{}/{name}", namespace.unwrap_or_default())
}

/// What a write to the status of that object goes by.
pub(super) fn status_key(key: &str) -> String {
    format!("{key}/status")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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

    #[test]
    fn what_was_deleted_is_written_again_at_once() {
        let (memory, now) = (Memory::default(), Instant::now());
        let named = |name: &str| {
            let metadata =
                ObjectMeta { name: Some(name.to_owned()), namespace: Some("n".to_owned()), ..Default::default() };
            ConfigMap { metadata, ..ConfigMap::default() }
        };
        let keys = ["a", "b"].map(|name| key("configmaps", Some("n"), name));
        let write =
            || keys.iter().for_each(|key| memory.remember(key.clone(), "d".to_owned(), None, "2".to_owned(), now));
        let verdicts = || [0, 1].map(|index| memory.look_up(&keys[index], "d", None, now));
        write();
        assert_eq!(verdicts(), [Verdict::Written, Verdict::Written]);
        memory.forget(&named("a"));
        assert_eq!(verdicts(), [Verdict::Due, Verdict::Written]);
        write();
        memory.forget_kind::<ConfigMap>();
        assert_eq!(verdicts(), [Verdict::Due, Verdict::Due]);
    }
}
