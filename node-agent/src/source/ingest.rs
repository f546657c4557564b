//! Brings a source into the library.
use std::io::Write;
use std::sync::Arc;

use peerdist_core::chunking::{Chunk, Chunker, chunk_bytes_average};
use peerdist_core::distribution::{Distribution, SourceUri};
use peerdist_core::manifest::{Entry, ManifestBuilder, ManifestRoot, SigningDomain, sign};
use tokio_util::sync::CancellationToken;

use super::file::{CheckedFile, Origin};
use super::tree::TreeWriter;
use super::walk::Kind;
use super::{Progress, SourceError};
use crate::store::{IngestStaging, NodeStore};

/// One package to bring in.
pub struct IngestJob {
    /// The library.
    pub store: Arc<NodeStore>,
    /// What to bring in.
    pub distribution: Distribution,
    /// Its sequence number.
    pub sequence: u64,
    /// Signs the manifest.
    pub signing_key: ed25519_dalek::SigningKey,
    /// Counts.
    pub progress: Arc<Progress>,
    /// Stops soon.
    pub cancelled: CancellationToken,
}
/// The result.
pub struct IngestOutcome {
    /// Root.
    pub root: ManifestRoot,
}
impl IngestJob {
    /// Runs.
    ///
    /// # Errors
    /// See there.
    pub async fn run(self) -> Result<IngestOutcome, SourceError> {
        tokio::task::spawn_blocking(move || self.run_blocking()).await.expect("ingest")
    }

    fn run_blocking(self) -> Result<IngestOutcome, SourceError> {
        let lib = |e: String| SourceError::library("library")(std::io::Error::other(e));
        let SourceUri::File(path) = &self.distribution.source.uri else { return Err(lib("http".into())) };
        let staging = self.store.begin_ingest().map_err(|e| lib(e.to_string()))?;
        let mut tree = TreeWriter::open(staging.tree())?;
        let origin = Origin::open(path)?;
        let total = match &origin {
            Origin::Directory(d) => d.inspect(&self.cancelled)?.bytes,
            Origin::File(f) => f.bytes(),
        };
        self.progress.enter(super::Phase::Hashing, total);
        let average = chunk_bytes_average(total, None);
        let mut builder = ManifestBuilder::default();
        let mut chunker = Chunker::new(average);
        match origin {
            Origin::Directory(d) => {
                d.walk(&self.cancelled, &mut |visit| {
                    match &visit.kind {
                        Kind::Directory => {
                            tree.directory(visit.path.as_bytes())?;
                            put(&staging, builder.push_entry(&Entry::directory(visit.path.clone())))?;
                        }
                        Kind::Link { target } => {
                            tree.link(visit.path.as_bytes(), target.as_bytes())?;
                            let e =
                                Entry::symlink(visit.path.clone(), bytes::Bytes::copy_from_slice(target.as_bytes()))
                                    .map_err(|e| lib(e.to_string()))?;
                            put(&staging, builder.push_entry(&e))?;
                        }
                        Kind::File { executable } => {
                            let file = d.open(&visit)?;
                            let out = tree.file(visit.path.as_bytes(), *executable)?;
                            let bytes = file.bytes();
                            put(&staging, builder.push_entry(&Entry::file(visit.path.clone(), bytes, *executable)))?;
                            self.copy(file, out, &mut chunker, &mut builder, &staging)?;
                        }
                    }
                    Ok(())
                })?;
            }
            Origin::File(f) => {
                let name = path.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default();
                let p = peerdist_core::manifest::RelativePath::new(name.clone()).map_err(|e| lib(e.to_string()))?;
                let out = tree.file(&name, false)?;
                put(&staging, builder.push_entry(&Entry::file(p, f.bytes(), false)))?;
                self.copy(f, out, &mut chunker, &mut builder, &staging)?;
            }
        }
        let mut last = Vec::new();
        chunker.finish(|c| last.push(c));
        for c in last {
            put(&staging, builder.push_chunk(c.digest, c.length))?;
        }
        let built =
            builder.finish(&self.distribution.package(), self.sequence, average).map_err(|e| lib(e.to_string()))?;
        for page in &built.last_pages {
            staging.put_page(page).map_err(|e| lib(e.to_string()))?;
        }
        let signed = sign(SigningDomain::ManifestRoot, built.body, &self.signing_key);
        let root =
            ManifestRoot::verify(&signed, &[self.signing_key.verifying_key()]).map_err(|e| lib(e.to_string()))?;
        self.store.adopt(staging, &root).map_err(|e| lib(e.to_string()))?;
        Ok(IngestOutcome { root })
    }

    fn copy(
        &self,
        mut file: CheckedFile,
        mut out: std::fs::File,
        chunker: &mut Chunker,
        builder: &mut ManifestBuilder,
        staging: &IngestStaging,
    ) -> Result<(), SourceError> {
        let mut buffer = vec![0; 1 << 20];
        let mut chunks: Vec<Chunk> = Vec::new();
        loop {
            let n = self.progress.source(|| file.read(&mut buffer), |r| *r.as_ref().unwrap_or(&0) as u64)?;
            if n == 0 {
                break;
            }
            self.progress.disk(n as u64, || out.write_all(&buffer[..n])).map_err(SourceError::library("library"))?;
            self.progress.hash(n as u64, || chunker.push(&buffer[..n], |c| chunks.push(c)));
            for c in chunks.drain(..) {
                put(staging, builder.push_chunk(c.digest, c.length))?;
            }
        }
        Ok(())
    }
}
fn put(
    staging: &IngestStaging,
    page: Result<Option<peerdist_core::manifest::EncodedPage>, peerdist_core::manifest::BuildError>,
) -> Result<(), SourceError> {
    let lib = |e: String| SourceError::library("library")(std::io::Error::other(e));
    if let Some(page) = page.map_err(|e| lib(e.to_string()))? {
        staging.put_page(&page).map_err(|e| lib(e.to_string()))?;
    }
    Ok(())
}
