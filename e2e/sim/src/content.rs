//! What packages consist of here: chunks with a length and a number that stands for their bytes. Two chunks with the
//! same number have the same content, which is how versions share chunks.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerdist_core::digest::Digest;
use peerdist_core::message::SignedBytes;
use peerdist_core::names::{DistributionKey, PackageKey, Version};
use peerdist_core::server::IngestedPackage;
use peerdist_core::swarm::office_view::ChunkLengths;
use rand::Rng;

/// One version of a distribution.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its names.
    pub key: PackageKey,
    /// Stands for the digest of its manifest.
    pub digest: Digest,
    /// Length of each chunk.
    pub lengths: ChunkLengths,
    /// What each chunk's bytes are.
    pub chunk_numbers: Vec<u64>,
}

impl Content {
    /// A version whose chunks are all its own.
    pub fn new(key: PackageKey, bytes: u64, chunk_bytes_average: u32, rng: &mut impl Rng) -> Self {
        let (mut lengths, mut left) = (Vec::new(), bytes.max(1));
        while left > 0 {
            let wanted = rng.random_range(chunk_bytes_average / 2..=chunk_bytes_average + chunk_bytes_average / 2);
            let length = u64::from(wanted.max(1)).min(left);
            lengths.push(length as u32);
            left -= length;
        }
        let chunk_numbers = lengths.iter().map(|_| rng.random()).collect();
        Self { digest: digest_of(&key), key, lengths: lengths.into(), chunk_numbers }
    }

    /// The next version: a part of the chunks changed.
    pub fn next_version(&self, version: &str, changed_share: f64, rng: &mut impl Rng) -> Self {
        let version = Version::new(version).expect("versions made here are valid");
        let key = PackageKey { distribution: self.key.distribution.clone(), version };
        let chunk_numbers = self
            .chunk_numbers
            .iter()
            .map(|&number| if rng.random_bool(changed_share) { rng.random() } else { number })
            .collect();
        Self { digest: digest_of(&key), key, lengths: self.lengths.clone(), chunk_numbers }
    }

    /// Sum of its chunks.
    pub fn bytes(&self) -> u64 {
        self.lengths.iter().map(|&length| u64::from(length)).sum()
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.lengths.len() as u32
    }

    /// As the server's library knows it.
    pub fn ingested(&self) -> IngestedPackage {
        IngestedPackage {
            key: self.key.clone(),
            digest: self.digest,
            root: SignedBytes {
                body: Bytes::copy_from_slice(self.digest.as_bytes()),
                signature: Bytes::new(),
                key: Bytes::new(),
            },
            lengths: self.lengths.clone(),
            bytes: self.bytes(),
        }
    }
}

fn digest_of(key: &PackageKey) -> Digest {
    Digest::of(key.to_string().as_bytes())
}

/// Every version that occurs in a run.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    by_digest: BTreeMap<Digest, Content>,
}

impl Catalog {
    /// Adds a version.
    pub fn add(&mut self, content: Content) {
        self.by_digest.insert(content.digest, content);
    }

    /// The version with that digest.
    pub fn get(&self, digest: Digest) -> Option<&Content> {
        self.by_digest.get(&digest)
    }

    /// The version of those names.
    pub fn find(&self, key: &PackageKey) -> Option<&Content> {
        self.by_digest.values().find(|content| content.key == *key)
    }

    /// Every version.
    pub fn all(&self) -> impl Iterator<Item = &Content> {
        self.by_digest.values()
    }

    /// The versions of one distribution.
    pub fn versions_of<'a>(&'a self, distribution: &'a DistributionKey) -> impl Iterator<Item = &'a Content> {
        self.all().filter(move |content| content.key.distribution == *distribution)
    }
}
