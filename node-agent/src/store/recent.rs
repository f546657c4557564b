//! Chunks that were verified and written a moment ago, still in memory: that is when an office forwards them. Serving
//! one from here costs neither a read nor a second hash. Whatever is not here is read from disk and verified.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::digest::Digest;

/// Most bytes that are kept: as much as may be on its way on one link.
const BYTES_MAX: usize = 4 << 20;
/// A chunk that nobody wanted for so long is left to the kernel's cache.
const KEPT_FOR: Duration = Duration::from_secs(4);

type Key = (Digest, ChunkIndex);

/// First in, first out: each chunk is wanted about equally often and soon.
#[derive(Debug, Default)]
pub(super) struct Recent {
    chunks: HashMap<Key, Bytes>,
    arrivals: VecDeque<(Instant, Key)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a verified chunk, and lets go of the oldest when there are too many.
    pub(super) fn keep(&mut self, now: Instant, key: Key, chunk: Bytes) {
        let bytes = chunk.len();
        if self.chunks.insert(key, chunk).is_some() {
            return;
        }
        self.bytes += bytes;
        self.arrivals.push_back((now, key));
        self.expire(now);
    }

    pub(super) fn find(&self, key: Key) -> Option<Bytes> {
        self.chunks.get(&key).cloned()
    }

    /// Lets go of what is too old or too much.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(arrived, key)) = self.arrivals.front() {
            if self.bytes <= BYTES_MAX && now.saturating_duration_since(arrived) < KEPT_FOR {
                return;
            }
            self.arrivals.pop_front();
            self.drop_chunk(key);
        }
    }

    /// Lets go of a package: its tree is within everybody's reach from now on, or gone.
    pub(super) fn forget(&mut self, package: Digest) {
        let (gone, kept): (VecDeque<_>, _) = self.arrivals.drain(..).partition(|&(_, (digest, _))| digest == package);
        self.arrivals = kept;
        gone.into_iter().for_each(|(_, key)| self.drop_chunk(key));
    }

    fn drop_chunk(&mut self, key: Key) {
        if let Some(chunk) = self.chunks.remove(&key) {
            self.bytes -= chunk.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_or_too_much_goes() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let chunk = Bytes::from(vec![7; BYTES_MAX / 4]);
        for index in 0..4 {
            recent.keep(now, (one, index), chunk.clone());
        }
        recent.keep(now, (one, 0), chunk.clone());
        assert_eq!((recent.bytes, recent.find((one, 0))), (BYTES_MAX, Some(chunk.clone())));
        recent.keep(now + KEPT_FOR / 2, (other, 0), chunk.clone());
        assert_eq!((recent.bytes, recent.find((one, 0))), (BYTES_MAX, None));
        recent.expire(now + KEPT_FOR);
        assert_eq!((recent.bytes, recent.find((one, 3)), recent.find((other, 0))), (chunk.len(), None, Some(chunk)));
        recent.forget(other);
        assert_eq!((recent.bytes, recent.chunks.len(), recent.arrivals.len()), (0, 0, 0));
    }
}
