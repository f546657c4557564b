//! The disk of one node: which chunks are written, which of them are journalled, which versions are published. A kill
//! loses what was written and not flushed, which is more than a killed process really loses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun, ChunkSet};
use peerdist_core::client::StoredPackage;
use peerdist_core::digest::Digest;
use peerdist_core::names::{DistributionKey, PackageKey};
use peerdist_core::rollout::{HeldVersion, decide_retention};

use crate::content::{Catalog, Content};

/// Written bytes that make a flush due, as on a real node.
const FLUSH_DUE_BYTES: u64 = 8 << 20;

/// One package on the disk.
#[derive(Debug, Clone)]
pub struct OnDisk {
    /// Its names.
    pub key: PackageKey,
    /// Written and verified.
    pub written: ChunkSet,
    /// Flushed and journalled.
    pub held: ChunkSet,
    /// A whole tree that consumers may see.
    pub published: bool,
    /// What `current` leads to.
    pub current: bool,
    superseded_at: Option<Instant>,
}

/// The disk.
#[derive(Debug, Default)]
pub struct Store {
    packages: BTreeMap<Digest, OnDisk>,
    manifests: BTreeSet<Digest>,
    unflushed_bytes: u64,
    full: bool,
}

impl Store {
    /// Somebody else fills the disk, or frees it.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether nothing more can be written.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What is on the disk.
    pub fn packages(&self) -> impl Iterator<Item = (&Digest, &OnDisk)> {
        self.packages.iter()
    }

    /// One package.
    pub fn package(&self, digest: Digest) -> Option<&OnDisk> {
        self.packages.get(&digest)
    }

    /// What a starting client is told.
    pub fn inventory(&self) -> Vec<StoredPackage> {
        let stored = |(&digest, package): (&Digest, &OnDisk)| StoredPackage {
            distribution: package.key.distribution.clone(),
            digest,
            published: package.published,
        };
        self.packages.iter().map(stored).collect()
    }

    /// Whether the manifest's pages are here.
    pub fn has_manifest(&self, digest: Digest) -> bool {
        self.manifests.contains(&digest)
    }

    /// The manifest's pages came.
    pub fn put_manifest(&mut self, digest: Digest) {
        self.manifests.insert(digest);
    }

    /// Makes the place and copies what other packages have. Returns the bytes copied.
    pub fn prepare(&mut self, content: &Content, catalog: &Catalog) -> u64 {
        let have: BTreeSet<u64> = self
            .packages
            .iter()
            .filter(|(digest, _)| **digest != content.digest)
            .filter_map(|(digest, package)| Some((catalog.get(*digest)?, package)))
            .flat_map(|(other, package)| package.written.iter().map(|index| other.chunk_numbers[index as usize]))
            .collect();
        let package = self.packages.entry(content.digest).or_insert_with(|| OnDisk {
            key: content.key.clone(),
            written: ChunkSet::new(content.chunk_count()),
            held: ChunkSet::new(content.chunk_count()),
            published: false,
            current: false,
            superseded_at: None,
        });
        let mut copied = 0;
        for (index, number) in content.chunk_numbers.iter().enumerate() {
            if have.contains(number) && package.written.insert(index as ChunkIndex) {
                copied += u64::from(content.lengths[index]);
            }
        }
        self.unflushed_bytes += copied;
        copied
    }

    /// Writes a chunk. Returns whether a flush is due.
    pub fn write(&mut self, content: &Content, index: ChunkIndex) -> bool {
        if let Some(package) = self.packages.get_mut(&content.digest)
            && package.written.insert(index)
        {
            self.unflushed_bytes += u64::from(content.lengths[index as usize]);
        }
        self.unflushed_bytes >= FLUSH_DUE_BYTES
    }

    /// Whether something waits to be flushed.
    pub fn is_dirty(&self) -> bool {
        self.unflushed_bytes > 0
    }

    /// Journals what is written. Returns what became held.
    pub fn flush(&mut self) -> Vec<(Digest, Vec<ChunkRun>)> {
        self.unflushed_bytes = 0;
        let mut flushed = Vec::new();
        for (&digest, package) in &mut self.packages {
            let mut new = package.written.clone();
            new.subtract(&package.held);
            if !new.is_empty() {
                package.held.union_with(&new);
                flushed.push((digest, new.runs()));
            }
        }
        flushed
    }

    /// Publishes a package that is held whole. False when it is not.
    pub fn publish(&mut self, now: Instant, digest: Digest) -> bool {
        let Some(package) = self.packages.get_mut(&digest).filter(|package| package.held.is_full()) else {
            return false;
        };
        (package.published, package.current, package.superseded_at) = (true, true, None);
        let distribution = package.key.distribution.clone();
        for (other, package) in &mut self.packages {
            if *other != digest && package.key.distribution == distribution && package.current {
                (package.current, package.superseded_at) = (false, Some(now));
            }
        }
        true
    }

    /// Deletes a package with its manifest.
    pub fn delete(&mut self, digest: Digest) {
        self.packages.remove(&digest);
        self.manifests.remove(&digest);
    }

    /// Deletes versions that retention gives up, and returns them.
    pub fn prune(
        &mut self,
        now: Instant,
        distribution: &DistributionKey,
        versions: u32,
        grace: Duration,
    ) -> Vec<Digest> {
        let mut published: Vec<(Digest, OnDisk)> = self
            .packages
            .iter()
            .filter(|(_, package)| package.published && package.key.distribution == *distribution)
            .map(|(&digest, package)| (digest, package.clone()))
            .collect();
        published.sort_by_key(|(_, package)| (package.current, package.superseded_at));
        let held: Vec<HeldVersion> = published
            .iter()
            .map(|(_, package)| HeldVersion {
                version: package.key.version.clone(),
                superseded_at: package.superseded_at,
            })
            .collect();
        let current =
            published.iter().find(|(_, package)| package.current).map(|(_, package)| package.key.version.clone());
        let retention = decide_retention(&held, current.as_ref(), versions, grace, now);
        let evictable = published.iter().filter(|(_, package)| retention.evictable.contains(&package.key.version));
        let evictable: Vec<Digest> = evictable.map(|(digest, _)| *digest).collect();
        evictable.iter().for_each(|&digest| self.delete(digest));
        evictable
    }

    /// What a kill leaves.
    pub fn lose_unflushed(&mut self) {
        self.unflushed_bytes = 0;
        for package in self.packages.values_mut() {
            package.written = package.held.clone();
        }
    }
}
