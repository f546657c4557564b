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
    pub fn failed(&self, object: String) -> Duration {
        let mut in_a_row = self.in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_a_row.entry(object).or_default();
        let pause = RETRY_PAUSE_MIN.saturating_mul(2_u32.saturating_pow(*count));
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
        let pauses: Vec<u64> = (0..9).map(|_| failures.failed("a".to_owned()).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(failures.failed("b".to_owned()).as_secs(), 1);
        failures.succeeded("a");
        assert_eq!(failures.failed("a".to_owned()).as_secs(), 1);
    }
}
