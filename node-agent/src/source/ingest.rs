//! From a source to a published package in the server's library: look whether it is there already, bring the bytes
//! into a staging tree, describe and sign them, adopt the tree. It reads each source once and in bounded memory, and
//! leaves scheduling, sequence numbers and progress bars to the caller.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use peerdist_core::chunking::{PreviousVersion, chunk_bytes_average};
use peerdist_core::distribution::{Distribution, PackageSource, SourceUri, Unpack};
use peerdist_core::manifest::{ManifestRoot, SigningDomain, sign};
use peerdist_core::names::PackageKey;
use tokio_util::sync::CancellationToken;

use self::record::{Record, Records};
use self::staged::{Staged, Stager};
use super::address_rule::AddressRule;
use super::credentials::Credentials;
use super::disk::Quota;
use super::error::SourceError;
use super::file::{Inspection, Origin};
use super::file_roots::FileRule;
use super::http::{Download, Downloader, Partial};
use super::progress::{Phase, Progress};
use super::retry::RetryPolicy;
use super::uri;
use crate::store::{IngestStaging, NodeStore, StoredPackage};

mod content;
mod record;
mod staged;
#[cfg(test)]
mod tests;

/// A package to bring in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRequest {
    /// Its names.
    pub package: PackageKey,
    /// Where it comes from.
    pub source: PackageSource,
    /// Whether an archive becomes its contents.
    pub unpack: Unpack,
}

impl IngestRequest {
    /// Whether what was downloaded for the one counts for the other.
    pub fn shares_download(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.source, &other.source);
        self.package == other.package && ours.uri == theirs.uri && ours.digest == theirs.digest
    }
}

impl From<&Distribution> for IngestRequest {
    fn from(distribution: &Distribution) -> Self {
        Self { package: distribution.package(), source: distribution.source.clone(), unpack: distribution.unpack }
    }
}

/// A package in the library.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// Its signed root.
    pub root: ManifestRoot,
    /// False when it was there before.
    pub is_new: bool,
}

/// Brings packages into one library.
#[derive(Debug, Clone)]
pub struct Ingest {
    store: Arc<NodeStore>,
    key: SigningKey,
    downloader: Downloader,
    files: FileRule,
    records: Records,
}

impl Ingest {
    /// Signs with the server's manifest key; downloads are as patient as the policy, from where the rules allow.
    pub fn new(
        store: Arc<NodeStore>,
        key: SigningKey,
        policy: RetryPolicy,
        addresses: AddressRule,
        files: FileRule,
    ) -> Self {
        let records = Records::of(store.root());
        Self { store, key, downloader: Downloader::new(policy, addresses), files, records }
    }

    /// The package if it is in the library and its source is, as far as can be told without reading it, the same. A
    /// source that was taken away since is no obstacle: what was published stays.
    ///
    /// # Errors
    /// [`SourceError`] when a directory holds what packages do not have, or the library fails.
    pub async fn find(
        &self,
        request: &IngestRequest,
        cancel: &CancellationToken,
    ) -> Result<Option<Ingested>, SourceError> {
        let (ingest, request, cancel) = (self.clone(), request.clone(), cancel.child_token());
        let _cancel_on_drop = cancel.clone().drop_guard();
        blocking(move || {
            let Some(record) = ingest.records.load(&request.package) else { return Ok(None) };
            if !ingest.store.is_held(record.package) {
                return Ok(None);
            }
            if !ingest.is_unchanged(&record, &request, &cancel)? {
                return Ok(None);
            }
            // It may have been another version's turn to be current meanwhile.
            ingest.store.publish(record.package)?;
            Ok(Some(Ingested { root: ingest.store.manifest_root(record.package)?, is_new: false }))
        })
        .await
    }

    /// Whether the library has this version from another source than the request names: it may have other content.
    pub async fn is_from_elsewhere(&self, request: &IngestRequest) -> bool {
        let (ingest, request) = (self.clone(), request.clone());
        let looked_up = blocking(move || {
            let record = ingest.records.load(&request.package).filter(|record| ingest.store.is_held(record.package));
            Ok(record.is_some_and(|record| !record.matches_but_for_content(&request)))
        });
        looked_up.await.unwrap_or(false)
    }

    /// Makes one try to bring the package in, with the credentials that its source asks for. `sequence` is above that of
    /// every earlier version. When this version is in the library already, the source is read to see that it still says
    /// the same.
    ///
    /// # Errors
    /// [`SourceError`], of which [`SourceError::is_final`] says whether another try can help. Nothing is left in
    /// staging but an unfinished download.
    pub async fn run(
        &self,
        request: &IngestRequest,
        credentials: Option<&Credentials>,
        sequence: u64,
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Ingested, SourceError> {
        progress.enter(Phase::Inspecting, 0);
        let download = self.download(request, credentials, progress, cancel).await?;
        let cancel = cancel.child_token();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let (ingest, request, progress) = (self.clone(), request.clone(), Arc::clone(progress));
        blocking(move || {
            let result = ingest.bring_in(&request, download.as_ref(), sequence, &progress, &cancel);
            // A finished download is kept for another try, if that may end otherwise.
            let is_needed = result.as_ref().is_err_and(|error| !error.is_final());
            match download.filter(|_| !is_needed) {
                Some(download) => download.discard().and(result),
                None => result,
            }
        })
        .await
    }

    /// Forgets what has arrived for a request that nobody makes any more. Nobody may be downloading it.
    pub async fn discard_download(&self, request: &IngestRequest) {
        let (store, package, source) = (Arc::clone(&self.store), request.package.clone(), request.source.clone());
        let discarded = blocking(move || {
            let partial = Partial::of_source(&store.downloads_folder()?, &package, &source);
            partial.map_or(Ok(()), |partial| partial.discard())
        });
        if let Err(error) = discarded.await {
            let package = &request.package;
            tracing::warn!(%package, %error, "what has arrived of a source that nobody names any more cannot be removed");
        }
    }

    fn is_unchanged(
        &self,
        record: &Record,
        request: &IngestRequest,
        cancel: &CancellationToken,
    ) -> Result<bool, SourceError> {
        match self.inspect(&request.source.uri, cancel) {
            Ok(inspection) => Ok(record.matches(request, inspection)),
            Err(
                SourceError::SourceMissing { .. }
                | SourceError::SourceUnreadable { .. }
                | SourceError::FileSourceNotAllowed { .. },
            ) => Ok(record.matches_but_for_content(request)),
            Err(error) => Err(error.of_source(&request.source.uri)),
        }
    }

    fn inspect(&self, uri: &SourceUri, cancel: &CancellationToken) -> Result<Option<Inspection>, SourceError> {
        let SourceUri::File(path) = uri else { return Ok(None) };
        match self.files.open(path)? {
            Origin::Directory(directory) => directory.inspect(cancel).map(Some),
            Origin::File(file) => Ok(Some(file.inspect())),
        }
    }

    async fn download(
        &self,
        request: &IngestRequest,
        credentials: Option<&Credentials>,
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Option<Partial>, SourceError> {
        let SourceUri::Http(text) = &request.source.uri else { return Ok(None) };
        let url = uri::parse_url(text)?;
        let digest = request.source.digest;
        let folder = self.store.downloads_folder()?;
        Partial::remove_old(&folder, SystemTime::now())?;
        let partial = Partial::new(&folder, &request.package, &url, digest);
        let quota = Quota::Library(Arc::clone(&self.store));
        let download = Download { url: &url, digest, credentials, partial: &partial, quota, progress, cancel };
        self.downloader.fetch(&download).await?;
        Ok(Some(partial))
    }

    fn bring_in(
        &self,
        request: &IngestRequest,
        download: Option<&Partial>,
        sequence: u64,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Ingested, SourceError> {
        self.check_apart(&request.source.uri)?;
        let (same, previous) = self.versions(&request.package)?;
        let staging = self.store.begin_ingest()?;
        let stager = Stager {
            request,
            files: &self.files,
            staging: &staging,
            library: &self.store,
            chunk_bytes_average: &|total_bytes| {
                let before = same.as_ref().or(previous.as_ref()).map(|root| PreviousVersion {
                    total_bytes: root.total_bytes(),
                    chunk_bytes_average: root.chunk_bytes_average(),
                });
                chunk_bytes_average(total_bytes, before)
            },
            progress,
            cancel,
        };
        let staged = match download {
            Some(download) => stager.stage_download(download),
            None => stager.stage_origin(),
        };
        let Staged { builder, chunk_bytes_average, inspection } =
            staged.map_err(|error| error.of_source(&request.source.uri))?;
        progress.enter(Phase::Publishing, 0);
        let built = builder.finish(&request.package, sequence, chunk_bytes_average).map_err(SourceError::manifest)?;
        for page in &built.last_pages {
            staging.put_page(page)?;
        }
        let signed = sign(SigningDomain::ManifestRoot, built.body, &self.key);
        let root = ManifestRoot::verify(&signed, &[self.key.verifying_key()]).map_err(SourceError::manifest)?;
        let ingested = self.adopt(request, staging, root, same, progress)?;
        self.records.save(&request.package, &Record::new(request, inspection, ingested.root.digest()))?;
        progress.enter(Phase::Done, 0);
        Ok(ingested)
    }

    /// Publishes the tree; or, when this version is there already, checks that it says the same.
    fn adopt(
        &self,
        request: &IngestRequest,
        staging: IngestStaging,
        root: ManifestRoot,
        same: Option<ManifestRoot>,
        progress: &Progress,
    ) -> Result<Ingested, SourceError> {
        let Some(published) = same else {
            progress.disk(0, || self.store.adopt(staging, &root))?;
            return Ok(Ingested { root, is_new: true });
        };
        let is_same = published.entry_pages() == root.entry_pages() && published.chunk_pages() == root.chunk_pages();
        if !is_same {
            let version = request.package.version.to_string();
            return Err(SourceError::VersionReused { uri: uri::shown(&request.source.uri), version });
        }
        self.store.publish(published.digest())?;
        Ok(Ingested { root: published, is_new: false })
    }

    /// A directory around the library would be copied into itself.
    fn check_apart(&self, uri: &SourceUri) -> Result<(), SourceError> {
        let SourceUri::File(path) = uri else { return Ok(()) };
        let (Ok(source), Ok(library)) = (path.canonicalize(), self.store.root().canonicalize()) else { return Ok(()) };
        if library.starts_with(&source) {
            return Err(SourceError::SourceHoldsLibrary { path: source, library });
        }
        Ok(())
    }

    /// What the library has of this very version, and the latest other one.
    fn versions(&self, package: &PackageKey) -> Result<(Option<ManifestRoot>, Option<ManifestRoot>), SourceError> {
        let is_ours = |stored: &StoredPackage| stored.key.distribution == package.distribution && stored.published;
        let (mut same, mut previous) = (None, None::<ManifestRoot>);
        for stored in self.store.inventory().into_iter().filter(is_ours) {
            let root = self.store.manifest_root(stored.digest)?;
            if stored.key.version == package.version {
                same = Some(root);
            } else if previous.as_ref().is_none_or(|previous| previous.sequence() < root.sequence()) {
                previous = Some(root);
            }
        }
        Ok((same, previous))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(SourceError::manifest(io::Error::other(error))))
}
