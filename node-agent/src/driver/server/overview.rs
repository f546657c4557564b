//! What ingests do and what failed, for whoever shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerdist_core::names::PackageKey;

use crate::desired::ObjectError;
use crate::source::Progress;

/// Why a package is not in the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestFailure {
    /// Field of the object.
    pub field: String,
    /// A stable word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Whether it is not tried again in this run.
    pub is_final: bool,
}

/// What ingest does and what failed, for whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct IngestOverview(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    origin_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<PackageKey, Arc<Progress>>,
    failures: BTreeMap<PackageKey, IngestFailure>,
    doubtful: BTreeSet<PackageKey>,
    object_errors: Vec<ObjectError>,
    spent: TimeSpent,
}

/// Time that finished ingests spent.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeSpent {
    /// Waiting for sources.
    pub source: Duration,
    /// Chunking and hashing.
    pub hash: Duration,
    /// Writing.
    pub disk: Duration,
}

impl IngestOverview {
    /// Why the package is not in the library.
    pub fn failure(&self, key: &PackageKey) -> Option<IngestFailure> {
        self.lock().failures.get(key).cloned()
    }

    /// Every failure.
    pub fn failures(&self) -> BTreeMap<PackageKey, IngestFailure> {
        self.lock().failures.clone()
    }

    /// Whether what the library has of the version came from elsewhere than the object says now, and nobody knows yet
    /// whether it is the same.
    pub fn is_doubtful(&self, key: &PackageKey) -> bool {
        self.lock().doubtful.contains(key)
    }

    /// Errors of single objects, as last read.
    pub fn object_errors(&self) -> Vec<ObjectError> {
        self.lock().object_errors.clone()
    }

    /// Bytes handled and in all, of an ingest under way.
    pub fn running(&self, key: &PackageKey) -> Option<(u64, u64)> {
        let progress = self.lock().running.get(key)?.snapshot();
        Some((progress.bytes_done, progress.bytes_total))
    }

    /// Bytes read from sources in this run.
    pub fn origin_bytes(&self) -> u64 {
        let running: u64 = self.lock().running.values().map(|progress| progress.snapshot().bytes_read).sum();
        running + self.0.origin_bytes.load(Ordering::Relaxed)
    }

    /// Time that finished ingests spent.
    pub fn time_spent(&self) -> TimeSpent {
        self.lock().spent
    }

    pub(super) fn set_object_errors(&self, errors: Vec<ObjectError>) {
        self.lock().object_errors = errors;
    }

    pub(super) fn doubt(&self, key: &PackageKey, is_doubtful: bool) {
        let mut state = self.lock();
        if is_doubtful {
            state.doubtful.insert(key.clone());
        } else {
            state.doubtful.remove(key);
        }
    }

    pub(super) fn begin(&self, key: &PackageKey) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let mut state = self.lock();
        if let Some(cancelled) = state.running.insert(key.clone(), progress.clone()) {
            self.count(&mut state, &cancelled);
        }
        progress
    }

    /// Another source of the package is tried: what became of the one before says nothing about it.
    pub(super) fn begin_anew(&self, key: &PackageKey) {
        self.lock().failures.remove(key);
        self.begin(key);
    }

    /// What was cancelled in favour of another try of the same package says nothing about it.
    pub(super) fn end(&self, key: &PackageKey, progress: &Arc<Progress>, failure: Option<IngestFailure>) {
        let mut state = self.lock();
        if !state.running.get(key).is_some_and(|running| Arc::ptr_eq(running, progress)) {
            return;
        }
        state.running.remove(key);
        self.count(&mut state, progress);
        match failure {
            Some(failure) => state.failures.insert(key.clone(), failure),
            None => state.failures.remove(key),
        };
    }

    pub(super) fn forget(&self, keep: impl Fn(&PackageKey) -> bool) {
        let mut state = self.lock();
        state.failures.retain(|key, _| keep(key));
        state.doubtful.retain(|key| keep(key));
    }

    /// What an ingest did that ended or was cancelled.
    fn count(&self, state: &mut State, progress: &Progress) {
        let done = progress.snapshot();
        self.0.origin_bytes.fetch_add(done.bytes_read, Ordering::Relaxed);
        state.spent.source += done.source;
        state.spent.hash += done.hash;
        state.spent.disk += done.disk;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
