//! What every reconcile has at hand: settings, caches, the judged fleet, and the ways to write.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::Serialize;
use tokio::sync::watch;

use crate::apply::{Applier, ApplyError, Desired};
use crate::fleet::Fleet;
use crate::metrics::Metrics;
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

/// How often each object failed in a row.
#[derive(Debug, Default)]
pub struct Failures {
    in_a_row: Mutex<BTreeMap<String, u32>>,
}

impl Failures {
    /// Notes a failure and says when to try again.
    pub fn failed(&self, object: String, conflict: bool) -> Duration {
        let mut in_a_row = self.in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_a_row.entry(object).or_default();
        let first = if conflict { CONFLICT_PAUSE_MIN } else { RETRY_PAUSE_MIN };
        let pause = first.saturating_mul(2_u32.saturating_pow(*count));
        *count = count.saturating_add(1);
        pause.min(RETRY_PAUSE_MAX)
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, object: &str) {
        self.in_a_row.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_success() {
        let failures = Failures::default();
        let pauses: Vec<u64> = (0..9).map(|_| failures.failed("a".to_owned(), false).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(failures.failed("b".to_owned(), false).as_secs(), 1);
        assert_eq!(failures.failed("c".to_owned(), true), CONFLICT_PAUSE_MIN);
        failures.succeeded("a");
        assert_eq!(failures.failed("a".to_owned(), false).as_secs(), 1);
    }

    #[test]
    fn a_conflict_is_told_apart_from_what_an_office_has_to_say() {
        let answered = |code: u16| {
            let status = kube::core::Status { code, message: "no".to_owned(), ..Default::default() };
            ReconcileError::from(ApplyError::Api {
                object: "DaemonSet a".to_owned(),
                source: Box::new(kube::Error::Api(Box::new(status))),
            })
        };
        assert!(answered(409).is_conflict());
        assert!(!answered(403).is_conflict() && !answered(500).is_conflict());
    }
}
