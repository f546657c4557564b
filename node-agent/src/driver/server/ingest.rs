//! Bringing packages into the library: one task a package, tried again as the policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerdist_core::distribution::Distribution;
use peerdist_core::names::{DistributionKey, PackageKey};
use peerdist_core::server::{IngestedPackage, ServerEvent};
use peerdist_telemetry::join_package_trace;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::database::{DatabaseError, MetadataStore, PackageRow};
use crate::desired::object_of;
use crate::driver::in_turn::InTurn;
use crate::metrics::{ContentSource, Metrics};
use crate::source::http::Partial;
use crate::source::{
    FailedTry, Ingest, IngestRequest, Ingested, Progress, Retry, RetryPolicy, SecretError, SourceError,
};
use crate::store::NodeStore;

use super::library::described;
use super::overview::{IngestFailure, IngestOverview};
use super::places::Places;
use super::secrets::Secrets;

/// Why one try failed.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the server's database refuses the package: {0}")]
    Database(#[from] DatabaseError),
    #[error("the package vanished from the library: somebody else writes below the server's root")]
    Vanished,
}

impl IngestError {
    fn field(&self) -> &str {
        match self {
            Self::Source(error) => error.field(),
            Self::Secret(_) => "spec.source.secretRef",
            Self::Database(_) | Self::Vanished => "",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Source(error) => error.reason(),
            Self::Secret(error) => error.reason(),
            Self::Database(_) => "DatabaseFailed",
            Self::Vanished => "LibraryFailed",
        }
    }

    fn failed_try(&self) -> FailedTry {
        match self {
            Self::Source(error) => FailedTry::from(error),
            // Secrets and rights to them are given without an edit of the object.
            Self::Secret(_) | Self::Database(_) | Self::Vanished => {
                FailedTry { is_final: false, may_heal: true, made_progress: false }
            }
        }
    }
}

/// The ingests of one server.
pub(super) struct Ingests {
    tools: Tools,
    running: BTreeMap<PackageKey, CancellationToken>,
    /// Two tasks for one package would write to the same download.
    in_turn: InTurn<PackageKey>,
    /// Packages of earlier runs whose sources were compared in this one.
    checked: BTreeSet<PackageKey>,
    /// What the objects asked for when they were last read.
    asked: BTreeMap<DistributionKey, IngestRequest>,
    /// Whether objects were looked at in this run.
    has_looked: bool,
    stopped: CancellationToken,
}

/// What every ingest works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) store: Arc<NodeStore>,
    pub(super) database: Arc<dyn MetadataStore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) policy: RetryPolicy,
    pub(super) ingest: Ingest,
    pub(super) secrets: Secrets,
    pub(super) overview: IngestOverview,
    pub(super) events: mpsc::Sender<ServerEvent>,
    pub(super) places: Arc<Places>,
}

impl Ingests {
    pub(super) fn new(tools: Tools) -> Self {
        Self {
            tools,
            running: BTreeMap::new(),
            in_turn: InTurn::default(),
            checked: BTreeSet::new(),
            asked: BTreeMap::new(),
            has_looked: false,
            stopped: CancellationToken::new(),
        }
    }

    /// Failures of versions that nobody wants any more are history.
    pub(super) fn objects_changed(&self, distributions: &BTreeMap<DistributionKey, Distribution>) {
        self.tools.overview.forget(|key| {
            distributions.get(&key.distribution).is_some_and(|distribution| distribution.version == key.version)
        });
    }

    /// What lies in the library under a version need not be what its object asks for: an earlier run brought it in, or
    /// the object came back to the version with another source. A source that says something else needs a new version.
    /// Where objects were refused, not all that is asked for may be known.
    pub(super) fn check_sources(&mut self, distributions: &BTreeMap<DistributionKey, Distribution>, refused: usize) {
        let held: BTreeSet<PackageKey> = self.tools.store.inventory().into_iter().map(|package| package.key).collect();
        let asked = |distribution: &Distribution| (distribution.key.clone(), IngestRequest::from(distribution));
        let before = mem::replace(&mut self.asked, distributions.values().map(asked).collect());
        if !mem::replace(&mut self.has_looked, true) && refused == 0 {
            self.discard_other_downloads();
        }
        for (key, request) in &before {
            let now = self.asked.get(key);
            if now == Some(request) {
                continue;
            }
            let is_still_asked_for = now.is_some_and(|now| now.shares_download(request));
            // The comparison of the same version is called off with it, and made anew.
            if now.is_some_and(|now| now.package == request.package) {
                self.checked.remove(&request.package);
            }
            self.cancel(&request.package);
            if !is_still_asked_for {
                self.discard_download(request.clone());
            }
        }
        for (key, distribution) in distributions {
            let package = distribution.package();
            if !held.contains(&package) {
                continue;
            }
            let is_first = self.checked.insert(package.clone());
            let earlier = before.get(key);
            let is_edited = earlier != self.asked.get(key);
            if is_first || is_edited {
                // Nobody may take the package for settled before the task begins.
                self.tools.overview.begin(&package);
                self.tools.overview.doubt(&package, !is_first || (earlier.is_some() && is_edited));
                let (tools, distribution) = (self.tools.clone(), distribution.clone());
                self.begin(package, |cancelled| tools.check(distribution, is_first, cancelled));
            }
        }
    }

    /// What has arrived for an object that is gone, or names another source now, takes the room of others. Whoever still
    /// writes to it ends first.
    fn discard_download(&mut self, request: IngestRequest) {
        let ingest = self.tools.ingest.clone();
        self.in_turn.spawn(request.package.clone(), async move { ingest.discard_download(&request).await });
    }

    /// The same of what earlier runs downloaded, before this one asks for anything.
    fn discard_other_downloads(&self) {
        let discard = || {
            let folder = self.tools.store.downloads_folder()?;
            let of = |request: &IngestRequest| Partial::of_source(&folder, &request.package, &request.source);
            Partial::remove_others(&folder, &self.asked.values().filter_map(of).collect::<Vec<_>>())
        };
        let discarded: Result<(), SourceError> = discard();
        if let Err(error) = discarded {
            tracing::warn!(%error, "what earlier runs downloaded and nobody asks for any more cannot be removed");
        }
    }

    pub(super) fn start(&mut self, distribution: Distribution) {
        let key = distribution.package();
        // What is brought in anew needs no comparing.
        self.checked.insert(key.clone());
        self.tools.overview.begin_anew(&key);
        let tools = self.tools.clone();
        self.begin(key, |cancelled| tools.run(distribution, cancelled));
    }

    /// Whatever was done for the package before is cancelled and ends first.
    fn begin<W>(&mut self, key: PackageKey, work: impl FnOnce(CancellationToken) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.stopped.child_token();
        if let Some(earlier) = self.running.insert(key.clone(), cancelled.clone()) {
            earlier.cancel();
        }
        self.in_turn.spawn(key, work(cancelled));
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
    /// Compares a source with what was published of the version. Another source than that came from is tried until it
    /// is read: before, nobody knows whether it has the same content. The same source is looked at once a run, and only
    /// a difference is worth a word: what is in the library is distributed, whatever became of its source.
    async fn check(mut self, distribution: Distribution, is_first: bool, cancelled: CancellationToken) {
        if cancelled.is_cancelled() {
            return;
        }
        let key = distribution.package();
        let is_from_elsewhere = self.ingest.is_from_elsewhere(&IngestRequest::from(&distribution)).await;
        self.overview.doubt(&key, is_from_elsewhere);
        if is_from_elsewhere {
            return self.run(distribution, cancelled).await;
        }
        let progress = self.overview.begin(&key);
        let failure = if is_first {
            let outcome = self.try_once(&distribution, progress.clone(), cancelled).await;
            let is_reused =
                |error: &IngestError| matches!(error, IngestError::Source(SourceError::VersionReused { .. }));
            outcome.err().filter(is_reused).map(|error| failure_of(&key, &error, true))
        } else {
            self.overview.failure(&key)
        };
        self.overview.end(&key, &progress, failure);
    }

    /// Tries until it is in, or given up, or cancelled.
    async fn run(mut self, distribution: Distribution, cancelled: CancellationToken) {
        let key = distribution.package();
        let mut retry = Retry::new(self.policy, Instant::now());
        loop {
            // A span a try: it is sent when it ends, and a source may be away for days.
            let span = tracing::info_span!("ingest", package = %key);
            join_package_trace(&span, &key);
            let tried = self.try_and_tell(&distribution, &mut retry, &cancelled).instrument(span).await;
            let Some(pause) = tried else { return };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.secrets.changed(), if distribution.source.secret.is_some() => {}
                () = cancelled.cancelled() => return,
            }
        }
    }

    /// Says how a try went, and when the next one is due, if any.
    async fn try_and_tell(
        &mut self,
        distribution: &Distribution,
        retry: &mut Retry,
        cancelled: &CancellationToken,
    ) -> Option<Duration> {
        let key = distribution.package();
        let progress = self.overview.begin(&key);
        let outcome = self.try_once(distribution, progress.clone(), cancelled.clone()).await;
        if cancelled.is_cancelled() {
            self.overview.end(&key, &progress, None);
            return None;
        }
        match outcome {
            Ok(package) => {
                self.overview.doubt(&key, false);
                self.overview.end(&key, &progress, None);
                drop(self.events.send(ServerEvent::Ingested(package)).await);
                None
            }
            Err(error) => {
                let pause = retry.delay_after(error.failed_try(), Instant::now(), &mut rand::rng());
                self.overview.end(&key, &progress, Some(failure_of(&key, &error, pause.is_none())));
                pause
            }
        }
    }

    async fn try_once(
        &mut self,
        distribution: &Distribution,
        progress: Arc<Progress>,
        cancelled: CancellationToken,
    ) -> Result<IngestedPackage, IngestError> {
        let place = cancelled.run_until_cancelled(self.places.take(&distribution.key.namespace));
        let _place = place.await.ok_or(SourceError::Cancelled)?;
        let began = Instant::now();
        let key = distribution.package();
        let request = IngestRequest::from(distribution);
        let Ingested { root, is_new } = match self.ingest.find(&request, &cancelled).await? {
            Some(found) => found,
            None => {
                let credentials = self.secrets.credentials(distribution).await?;
                let sequence = self.database.next_sequence(&key.distribution).await?;
                self.ingest.run(&request, credentials.as_ref(), sequence, &progress, &cancelled).await?
            }
        };
        if is_new {
            self.metrics.content_bytes(ContentSource::Origin).inc_by(root.total_bytes());
        }
        let row = PackageRow { key: key.clone(), sequence: root.sequence(), digest: root.digest() };
        self.database.put_package(&row).await?;
        let (store, digest) = (self.store.clone(), root.digest());
        let package = tokio::task::spawn_blocking(move || described(&store, digest)).await.ok().flatten();
        let package = package.ok_or(IngestError::Vanished)?;
        if is_new {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(package = %key, bytes = package.bytes, seconds, "package ingested");
        }
        Ok(package)
    }
}

fn failure_of(key: &PackageKey, error: &IngestError, is_final: bool) -> IngestFailure {
    let (field, reason, message) = (error.field().to_owned(), error.reason().to_owned(), error.to_string());
    tracing::error!(object = %object_of(&key.distribution), %field, %reason, "{message}");
    IngestFailure { field, reason, message, is_final }
}
