//! Bringing packages into the library: one task a package, tried again as the policy says, and what the library has
//! from earlier runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peerdist_core::distribution::Distribution;
use peerdist_core::names::{DistributionKey, PackageKey};
use peerdist_core::server::{IngestedPackage, ServerEvent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::database::{DatabaseError, IngestState, MetadataStore, PackageRow, SqliteStore};
use crate::desired::{DesiredState, ObjectError};
use crate::driver::client::storing;
use crate::metrics::{ContentSource, Metrics};
pub use crate::source::RetryPolicy;
use crate::source::{FailedTry, Ingest, IngestRequest, Ingested, Progress, Retry, SourceError};
use crate::store::NodeStore;
use crate::transport::Authority;

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

/// Why one try failed.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the server's database refuses the package: {0}")]
    Database(#[from] DatabaseError),
    #[error("the package vanished from the library: somebody else writes below the server's root")]
    Vanished,
}

impl IngestError {
    fn field(&self) -> &str {
        match self {
            Self::Source(error) => error.field(),
            Self::Database(_) | Self::Vanished => "",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Source(error) => error.reason(),
            Self::Database(_) => "DatabaseFailed",
            Self::Vanished => "LibraryFailed",
        }
    }

    fn failed_try(&self) -> FailedTry {
        match self {
            Self::Source(error) => FailedTry::from(error),
            Self::Database(_) | Self::Vanished => FailedTry { is_final: false, may_heal: true, made_progress: false },
        }
    }
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

    fn begin(&self, key: &PackageKey) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.lock().running.insert(key.clone(), progress.clone());
        progress
    }

    /// What was cancelled in favour of another try of the same package says nothing about it.
    fn end(&self, key: &PackageKey, progress: &Arc<Progress>, failure: Option<IngestFailure>) {
        let mut state = self.lock();
        if !state.running.get(key).is_some_and(|running| Arc::ptr_eq(running, progress)) {
            return;
        }
        if let Some(progress) = state.running.remove(key) {
            let done = progress.snapshot();
            self.0.origin_bytes.fetch_add(done.bytes_read, Ordering::Relaxed);
            state.spent.source += done.source;
            state.spent.hash += done.hash;
            state.spent.disk += done.disk;
        }
        match failure {
            Some(failure) => state.failures.insert(key.clone(), failure),
            None => state.failures.remove(key),
        };
    }

    fn forget(&self, keep: impl Fn(&PackageKey) -> bool) {
        self.lock().failures.retain(|key, _| keep(key));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ingests of one server.
pub(super) struct Ingests {
    tools: Tools,
    running: BTreeMap<PackageKey, CancellationToken>,
    /// Packages of earlier runs whose sources were compared in this one.
    checked: BTreeSet<PackageKey>,
    stopped: CancellationToken,
}

#[derive(Clone)]
struct Tools {
    store: Arc<NodeStore>,
    database: SqliteStore,
    metrics: Arc<Metrics>,
    policy: RetryPolicy,
    ingest: Ingest,
    overview: IngestOverview,
    events: mpsc::Sender<ServerEvent>,
}

impl Ingests {
    pub(super) fn new(
        store: Arc<NodeStore>,
        authority: Arc<Authority>,
        database: SqliteStore,
        metrics: Arc<Metrics>,
        policy: RetryPolicy,
        overview: IngestOverview,
        events: mpsc::Sender<ServerEvent>,
    ) -> Self {
        let ingest = Ingest::new(store.clone(), authority.manifest_key().clone(), policy);
        let tools = Tools { store, database, metrics, policy, ingest, overview, events };
        Self { tools, running: BTreeMap::new(), checked: BTreeSet::new(), stopped: CancellationToken::new() }
    }

    /// Failures of versions that nobody wants any more are history.
    pub(super) fn objects_changed(&self, distributions: &BTreeMap<DistributionKey, Distribution>) {
        self.tools.overview.forget(|key| {
            distributions.get(&key.distribution).is_some_and(|distribution| distribution.version == key.version)
        });
    }

    /// Packages that earlier runs brought in: a source that says something else now needs a new version.
    pub(super) fn check_sources(&mut self, distributions: &BTreeMap<DistributionKey, Distribution>) {
        let held: BTreeSet<PackageKey> = self.tools.store.inventory().into_iter().map(|package| package.key).collect();
        for distribution in distributions.values() {
            let key = distribution.package();
            if held.contains(&key) && self.checked.insert(key) {
                let progress = self.tools.overview.begin(&distribution.package());
                tokio::spawn(self.tools.clone().check(distribution.clone(), progress, self.stopped.child_token()));
            }
        }
    }

    pub(super) fn start(&mut self, distribution: Distribution) {
        let key = distribution.package();
        // What is brought in anew needs no comparing.
        self.checked.insert(key.clone());
        let cancelled = self.stopped.child_token();
        if let Some(earlier) = self.running.insert(key, cancelled.clone()) {
            earlier.cancel();
        }
        tokio::spawn(self.tools.clone().run(distribution, cancelled));
    }

    pub(super) fn cancel(&mut self, key: &PackageKey) {
        if let Some(cancelled) = self.running.remove(key) {
            cancelled.cancel();
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }
}

impl Tools {
    /// Compares a source with what was published of it. Only a difference is worth a word: what is in the library
    /// is distributed, whatever became of its source.
    async fn check(self, distribution: Distribution, progress: Arc<Progress>, cancelled: CancellationToken) {
        let key = distribution.package();
        let failure = match self.try_once(&distribution, progress.clone(), cancelled).await {
            Err(error @ IngestError::Source(SourceError::VersionReused { .. })) => Some(failure_of(&key, &error, true)),
            _ => None,
        };
        self.overview.end(&key, &progress, failure);
    }

    /// Tries until it is in, or given up, or cancelled.
    async fn run(self, distribution: Distribution, cancelled: CancellationToken) {
        let key = distribution.package();
        let mut retry = Retry::new(self.policy, Instant::now());
        loop {
            let progress = self.overview.begin(&key);
            let outcome = self.try_once(&distribution, progress.clone(), cancelled.clone()).await;
            if cancelled.is_cancelled() {
                self.overview.end(&key, &progress, None);
                return;
            }
            let error = match outcome {
                Ok(package) => {
                    self.overview.end(&key, &progress, None);
                    drop(self.events.send(ServerEvent::Ingested(package)).await);
                    return;
                }
                Err(error) => error,
            };
            let pause = retry.delay_after(error.failed_try(), Instant::now(), &mut rand::rng());
            self.overview.end(&key, &progress, Some(failure_of(&key, &error, pause.is_none())));
            let Some(pause) = pause else { return };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancelled.cancelled() => return,
            }
        }
    }

    async fn try_once(
        &self,
        distribution: &Distribution,
        progress: Arc<Progress>,
        cancelled: CancellationToken,
    ) -> Result<IngestedPackage, IngestError> {
        let key = distribution.package();
        let request = IngestRequest::from(distribution);
        let Ingested { root, is_new } = match self.ingest.find(&request, &cancelled).await? {
            Some(found) => found,
            None => {
                let sequence = self.database.next_sequence(&key.distribution).await?;
                self.ingest.run(&request, sequence, &progress, &cancelled).await?
            }
        };
        if is_new {
            self.metrics.content_bytes(ContentSource::Origin).inc_by(root.total_bytes());
        }
        let row = PackageRow {
            key: key.clone(),
            sequence: root.sequence(),
            digest: Some(root.digest()),
            bytes: root.total_bytes(),
            chunk_count: root.chunk_count(),
            uri: distribution.source.uri.to_string(),
            source_digest: distribution.source.digest.as_ref().map(ToString::to_string),
            state: IngestState::Ready,
            error: None,
        };
        self.database.put_package(&row).await?;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || described(&store, root.digest()))
            .await
            .ok()
            .flatten()
            .ok_or(IngestError::Vanished)
    }
}

fn failure_of(key: &PackageKey, error: &IngestError, is_final: bool) -> IngestFailure {
    let (field, reason, message) = (error.field().to_owned(), error.reason().to_owned(), error.to_string());
    tracing::error!(object = %format!("PackageDistribution {}", key.distribution), %field, %reason, "{message}");
    IngestFailure { field, reason, message, is_final }
}

/// A package of the library as the machine wants it.
fn described(store: &NodeStore, digest: peerdist_core::digest::Digest) -> Option<IngestedPackage> {
    let root = store.manifest_root(digest).ok()?;
    let table = store.chunk_table(digest).ok()?;
    Some(IngestedPackage {
        key: root.package().clone(),
        digest,
        root: root.signed().clone().into(),
        lengths: (0..table.len()).map(|index| table.length(index).unwrap_or(0)).collect(),
        bytes: root.total_bytes(),
    })
}

/// What earlier runs brought in, oldest first.
pub(super) async fn stored_packages(store: &Arc<NodeStore>, database: &SqliteStore) -> Vec<IngestedPackage> {
    let known = match database.packages().await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "the packages of the library cannot be read; they are brought in again");
            return Vec::new();
        }
    };
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || {
        let held = store.inventory();
        let rows = known.into_iter().filter(|row| row.state == IngestState::Ready);
        rows.filter_map(|row| row.digest)
            .filter(|digest| held.iter().any(|package| package.digest == *digest && package.published))
            .filter_map(|digest| described(&store, digest))
            .collect()
    });
    read.await.unwrap_or_default()
}

/// Deletes from the library what no object names and what retention gives up.
pub(super) async fn prune_library(
    store: Arc<NodeStore>,
    database: SqliteStore,
    desired: Arc<DesiredState>,
    retention_seconds: u64,
) {
    let pruned = tokio::task::spawn_blocking(move || {
        let before = store.inventory();
        for package in &before {
            if !desired.distributions.contains_key(&package.key.distribution)
                && let Err(error) = store.delete(package.digest)
            {
                tracing::warn!(package = %package.key, %error, "package cannot be deleted from the library");
            }
        }
        for (key, distribution) in &desired.distributions {
            storing::prune(&store, key, distribution.retention_versions, retention_seconds);
        }
        let after = store.inventory();
        before
            .into_iter()
            .filter(|package| !after.iter().any(|kept| kept.digest == package.digest))
            .map(|package| package.key)
            .collect::<Vec<PackageKey>>()
    });
    for key in pruned.await.unwrap_or_default() {
        if let Err(error) = database.remove_package(&key).await {
            tracing::warn!(package = %key, %error, "package cannot be removed from the database");
        }
    }
}
