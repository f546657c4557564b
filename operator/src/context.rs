//! What every reconcile has at hand: settings, caches, the judged fleet, and the ways to write.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::Serialize;
use tokio::sync::watch;

use crate::apply::{Applier, ApplyError, Desired};
use crate::conditions::cut;
use crate::fleet::Fleet;
use crate::metrics::{Kind, Metrics};
use crate::settings::Settings;
use crate::status::StatusWriter;
use crate::watches::Caches;

/// First pause after an error; each further one of the same object doubles it.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// First pause after a conflict: as long as a cache takes to show what somebody else wrote.
const CONFLICT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(64);

/// Shared by all controllers.
pub struct Context {
    /// What all clients and the server get.
    pub settings: Settings,
    /// Where everything of ours lives.
    pub namespace: String,
    /// What the cluster has, as far as it was told to us.
    pub caches: Caches,
    /// Writes objects.
    pub applier: Applier,
    /// Writes statuses and events.
    pub statuses: StatusWriter,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// All offices, judged.
    pub fleet: watch::Receiver<Arc<Fleet>>,
    /// Objects that failed, with how often in a row.
    pub failures: Failures,
}

/// A reconcile that has to be done again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A label of a node could not be written.
    #[error("cannot label node {node}: {}", crate::apply::describe(source))]
    Label {
        /// The node.
        node: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

impl ReconcileError {
    /// The kind of the error in one word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Label { source, .. } => crate::apply::api_reason(source),
        }
    }

    /// Somebody else wrote in between: what is known is old, and that is no fault.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Apply(error) => error.is_conflict(),
            Self::Label { source, .. } => crate::apply::is_conflict(source),
        }
    }
}

impl Context {
    /// All offices, as judged last.
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.borrow())
    }

    /// An object of ours from a cache.
    pub fn owned<K>(&self, cache: &Store<K>, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        cache.get(&ObjectRef::new(name).within(&self.namespace))
    }

    /// Makes the cluster have an object.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply<K: Serialize>(&self, desired: &Desired, live: Option<&K>) -> Result<(), ApplyError> {
        self.applier.apply(desired, live).await.map(drop)
    }
}

/// What failures of an object go by.
pub fn key(kind: Kind, namespace: Option<&str>, name: &str) -> String {
    format!("{}/{}/{name}", kind.as_str(), namespace.unwrap_or_default())
}

/// How often each object failed in a row, of those that failed last.
#[derive(Debug, Default)]
pub struct Failures {
    objects: Mutex<BTreeMap<String, Failure>>,
}

#[derive(Debug, Default)]
struct Failure {
    in_a_row: u32,
    /// Why a node cannot be labelled: its office tells it.
    message: Option<String>,
}

impl Failures {
    /// Notes a failure and says when to try again.
    pub fn failed(&self, object: String, error: &ReconcileError) -> Duration {
        let mut objects = self.objects();
        let failure = objects.entry(object).or_default();
        let first = if error.is_conflict() { CONFLICT_PAUSE_MIN } else { RETRY_PAUSE_MIN };
        let pause = first.saturating_mul(2_u32.saturating_pow(failure.in_a_row));
        failure.in_a_row = failure.in_a_row.saturating_add(1);
        if matches!(error, ReconcileError::Label { .. }) && !error.is_conflict() {
            failure.message = Some(cut(error.to_string()));
        }
        pause.min(RETRY_PAUSE_MAX)
    }

    /// How often an object failed in a row until now.
    pub fn in_a_row(&self, object: &str) -> u32 {
        self.objects().get(object).map_or(0, |failure| failure.in_a_row)
    }

    /// Why a node cannot be labelled, if it is one.
    pub fn message(&self, object: &str) -> Option<String> {
        self.objects().get(object)?.message.clone()
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn forget(&self, object: &str) {
        self.objects().remove(object);
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> Box<kube::Error> {
        let status = kube::core::Status { code, message: "no".to_owned(), ..Default::default() };
        Box::new(kube::Error::Api(Box::new(status)))
    }

    fn apply(code: u16) -> ReconcileError {
        ApplyError::Api { object: "DaemonSet a".to_owned(), source: answer(code) }.into()
    }

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_success() {
        let failures = Failures::default();
        let failed = |object: &str, code| failures.failed(object.to_owned(), &apply(code));
        let pauses: Vec<u64> = (0..9).map(|_| failed("a", 403).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(failed("b", 403).as_secs(), 1);
        assert_eq!(failed("c", 409), CONFLICT_PAUSE_MIN);
        assert_eq!(["a", "b", "d"].map(|object| failures.in_a_row(object)), [9, 1, 0]);
        failures.forget("a");
        assert_eq!(failures.in_a_row("a"), 0);
        assert_eq!(failed("a", 403).as_secs(), 1);
    }

    #[test]
    fn a_conflict_is_told_apart_from_what_an_office_has_to_say() {
        assert!(apply(409).is_conflict());
        assert!(!apply(403).is_conflict() && !apply(500).is_conflict());
    }

    #[test]
    fn why_a_node_cannot_be_labelled_is_known_until_it_is() {
        let failures = Failures::default();
        let label = |code| ReconcileError::Label { node: "till-1".to_owned(), source: answer(code) };
        for (error, expected) in [
            (label(409), None),
            (label(403), Some("cannot label node till-1: no (403)")),
            (label(409), Some("cannot label node till-1: no (403)")),
        ] {
            failures.failed("a".to_owned(), &error);
            assert_eq!(failures.message("a").as_deref(), expected);
        }
        failures.forget("a");
        assert_eq!(failures.message("a"), None);
        failures.failed("a".to_owned(), &apply(403));
        assert_eq!(failures.message("a"), None, "whatever else failed tells it itself");
    }
}
