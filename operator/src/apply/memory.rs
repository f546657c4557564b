//! What was written a moment ago, so that a cache that does not show it yet causes no second write. Also the answer for
//! an object that the API server keeps in other words than it was asked for: that one is not written again with each
//! change of its status. The watches tell what was deleted, which a cache that is behind looks like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::names::digest;

/// How long a cache may take to show a write. Afterwards the write is done again, which does no harm.
const CACHE_DELAY_MAX: Duration = Duration::from_secs(5);
/// After so many writes those are forgotten that the caches had time enough to show.
const WRITES_BETWEEN_CLEANING: usize = 1024;
/// What of an object's metadata changes when somebody edits the object, and not with its status.
const EDITED: [&str; 4] = ["generation", "labels", "annotations", "ownerReferences"];

/// Writes by object; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    writes: Arc<Mutex<Writes>>,
}

#[derive(Debug, Default)]
struct Writes {
    by_object: BTreeMap<String, Write>,
    since_cleaning: usize,
}

#[derive(Debug)]
struct Write {
    digest: String,
    before: Option<String>,
    after: Seen,
    at: Instant,
    /// Whether the cache shows it and it is asked for all the same. Then it is remembered as long as its object exists.
    is_kept: bool,
}

/// A state of an object, as a cache or an answer shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// Changes with every write.
    pub(super) version: Option<String>,
    /// Changes with every edit. Only objects that count their edits have it.
    form: Option<String>,
}

impl Seen {
    /// As its metadata tell.
    pub(super) fn of(metadata: &Value) -> Self {
        let edited = || digest(&json!(EDITED.map(|field| &metadata[field])).to_string());
        Self {
            version: metadata["resourceVersion"].as_str().map(str::to_owned),
            form: metadata["generation"].is_i64().then(edited),
        }
    }

    /// Whether nobody edited the object between the two, as far as they tell.
    fn is_as(&self, other: &Self) -> bool {
        let is_same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        is_same(&self.version, &other.version) || is_same(&self.form, &other.form)
    }
}

/// What is known about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It happened, and nobody edited the object since as far as the cache shows.
    Written,
    /// It has to be done.
    Due,
}

impl Memory {
    /// Forgets what was written to an object that is gone.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let key = key(&K::plural(&()), object.namespace().as_deref(), &object.name_any());
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.by_object.remove(&status_key(&key));
        writes.by_object.remove(&key);
    }

    /// Forgets what was written to all objects of a kind, when its cache was filled anew: it does not tell what is gone.
    pub fn forget_kind<K: Resource<DynamicType = ()>>(&self) {
        let prefix = format!("{}/", K::plural(&()));
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.by_object.retain(|key, _| !key.starts_with(&prefix));
    }

    /// Whether `digest` was written to the object that the cache shows in this state.
    pub(super) fn look_up(&self, key: &str, digest: &str, shown: &Seen, now: Instant) -> Verdict {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let write = writes.by_object.get_mut(key).filter(|write| write.digest == digest);
        let Some(write) = write else { return Verdict::Due };
        if write.after.is_as(shown) {
            write.is_kept = true;
            return Verdict::Written;
        }
        let not_shown_yet = write.before == shown.version && now < write.at + CACHE_DELAY_MAX;
        if not_shown_yet { Verdict::Written } else { Verdict::Due }
    }

    /// Notes a write to the object that the cache showed as `before`.
    pub(super) fn remember(&self, key: String, digest: String, before: Seen, after: Seen, now: Instant) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let write = Write { digest, before: before.version, after, at: now, is_kept: false };
        writes.by_object.insert(key, write);
        writes.since_cleaning += 1;
        if writes.since_cleaning >= WRITES_BETWEEN_CLEANING {
            writes.since_cleaning = 0;
            writes.by_object.retain(|_, write| write.is_kept || now < write.at + CACHE_DELAY_MAX);
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

    fn at(version: &str) -> Seen {
        Seen::of(&json!({"resourceVersion": version}))
    }

    /// A state of an object that counts its edits.
    fn edited(version: &str, generation: i64, label: &str) -> Seen {
        Seen::of(&json!({"resourceVersion": version, "generation": generation, "labels": {"a": label}}))
    }

    fn remember(memory: &Memory, key: &str, before: Seen, after: Seen, now: Instant) {
        memory.remember(key.to_owned(), "d".to_owned(), before, after, now);
    }

    #[test]
    fn a_write_is_not_repeated_while_the_cache_is_behind_or_shows_it() {
        let (memory, now) = (Memory::default(), Instant::now());
        remember(&memory, "a", at("1"), at("2"), now);
        assert_eq!(memory.look_up("a", "d", &at("1"), now), Verdict::Written);
        assert_eq!(memory.look_up("a", "d", &at("2"), now + CACHE_DELAY_MAX), Verdict::Written);
    }

    #[test]
    fn other_content_other_versions_and_late_caches_are_written() {
        let (memory, now) = (Memory::default(), Instant::now());
        remember(&memory, "a", at("1"), at("2"), now);
        assert_eq!(memory.look_up("a", "other", &at("2"), now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", &at("3"), now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", &Seen::default(), now), Verdict::Due);
        assert_eq!(memory.look_up("a", "d", &at("1"), now + CACHE_DELAY_MAX), Verdict::Due);
        assert_eq!(memory.look_up("b", "d", &at("1"), now), Verdict::Due);
    }

    #[test]
    fn a_write_that_changed_nothing_is_repeated_after_an_edit_and_not_after_a_status() {
        let (memory, now) = (Memory::default(), Instant::now());
        remember(&memory, "a", edited("1", 2, "x"), edited("1", 2, "x"), now);
        let later = now + CACHE_DELAY_MAX;
        for (shown, expected) in [
            (edited("1", 2, "x"), Verdict::Written),
            (edited("7", 2, "x"), Verdict::Written),
            (edited("8", 3, "x"), Verdict::Due),
            (edited("9", 2, "other"), Verdict::Due),
            // Of an object that does not count its edits, or of its status, only the version tells them.
            (at("7"), Verdict::Due),
        ] {
            assert_eq!(memory.look_up("a", "d", &shown, later), expected, "{shown:?}");
        }
    }

    #[test]
    fn only_what_is_kept_in_other_words_is_remembered_for_long() {
        let (memory, now) = (Memory::default(), Instant::now());
        let write = |key: &str, now: Instant| remember(&memory, key, at("1"), at("2"), now);
        write("kept", now);
        assert_eq!(memory.look_up("kept", "d", &at("2"), now), Verdict::Written);
        (2..WRITES_BETWEEN_CLEANING).for_each(|index| write(&index.to_string(), now));
        write("last", now + CACHE_DELAY_MAX);
        let writes = memory.writes.lock().unwrap();
        assert_eq!(writes.by_object.keys().collect::<Vec<_>>(), ["kept", "last"]);
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
        let write = || keys.iter().for_each(|key| remember(&memory, key, Seen::default(), at("2"), now));
        let verdicts = || [0, 1].map(|index| memory.look_up(&keys[index], "d", &Seen::default(), now));
        write();
        assert_eq!(verdicts(), [Verdict::Written, Verdict::Written]);
        memory.forget(&named("a"));
        assert_eq!(verdicts(), [Verdict::Due, Verdict::Written]);
        write();
        memory.forget_kind::<ConfigMap>();
        assert_eq!(verdicts(), [Verdict::Due, Verdict::Due]);
    }
}
