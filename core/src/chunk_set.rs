//! A set of chunk indices of one package as a bitmap, and the runs in which requests name chunks.

use std::ops::Range;

/// Index of a chunk in its package's manifest, from 0.
pub type ChunkIndex = u32;

/// Most chunks a package may have: 16 TiB at the largest average chunk size. Bounds every bitmap (512 KiB).
pub const CHUNKS_MAX: u32 = 4 << 20;

/// A run of neighbouring chunks, first index and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkRun {
    /// First chunk.
    pub first: ChunkIndex,
    /// How many chunks, at least 1.
    pub count: u32,
}

impl ChunkRun {
    /// The indices of the run.
    pub fn range(self) -> Range<ChunkIndex> {
        self.first..self.first + self.count
    }
}

/// A set of chunks of a package with a known number of chunks.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ChunkSet {
    words: Vec<u64>,
    capacity: u32,
    len: u32,
}

impl ChunkSet {
    /// An empty set for a package of `capacity` chunks (at most [`CHUNKS_MAX`], larger values are cut).
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(CHUNKS_MAX);
        Self { words: vec![0; capacity.div_ceil(64) as usize], capacity, len: 0 }
    }

    /// The set of all chunks.
    pub fn full(capacity: u32) -> Self {
        Self::new(capacity).complement()
    }

    /// Number of chunks the package has.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Number of chunks in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every chunk of the package is in the set.
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Whether the chunk is in the set; false for indices outside the package.
    pub fn contains(&self, index: ChunkIndex) -> bool {
        index < self.capacity && self.words[index as usize / 64] & (1 << (index % 64)) != 0
    }

    /// Adds a chunk. Returns whether it was new; indices outside the package are ignored.
    pub fn insert(&mut self, index: ChunkIndex) -> bool {
        if index >= self.capacity || self.contains(index) {
            return false;
        }
        self.words[index as usize / 64] |= 1 << (index % 64);
        self.len += 1;
        true
    }

    /// Removes a chunk. Returns whether it was there.
    pub fn remove(&mut self, index: ChunkIndex) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[index as usize / 64] &= !(1 << (index % 64));
        self.len -= 1;
        true
    }

    /// Adds every chunk of the runs.
    pub fn insert_runs(&mut self, runs: &[ChunkRun]) {
        for index in indices_of(runs, self.capacity) {
            self.insert(index);
        }
    }

    /// Adds every chunk of the other set.
    pub fn union_with(&mut self, other: &ChunkSet) {
        for (word, &added) in self.words.iter_mut().zip(&other.words) {
            *word |= added;
        }
        self.recount();
    }

    /// Keeps only chunks that are in the other set too.
    pub fn intersect_with(&mut self, other: &ChunkSet) {
        for (position, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(position).copied().unwrap_or(0);
        }
        self.recount();
    }

    /// Removes every chunk of the other set.
    pub fn subtract(&mut self, other: &ChunkSet) {
        for (word, &removed) in self.words.iter_mut().zip(&other.words) {
            *word &= !removed;
        }
        self.recount();
    }

    /// The chunks that are missing.
    pub fn complement(&self) -> ChunkSet {
        let mut words: Vec<u64> = self.words.iter().map(|word| !word).collect();
        if let (Some(last), used @ 1..) = (words.last_mut(), self.capacity % 64) {
            *last &= (1 << used) - 1;
        }
        Self { words, capacity: self.capacity, len: self.capacity - self.len }
    }

    /// Chunks in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(position, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    position as u32 * 64 + bit
                })
            })
        })
    }

    /// Chunks in ascending order from `start` on, then those before it.
    pub fn iter_from(&self, start: ChunkIndex) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.iter().skip_while(move |&index| index < start).chain(self.iter().take_while(move |&index| index < start))
    }

    /// The set as ascending runs.
    pub fn runs(&self) -> Vec<ChunkRun> {
        self.iter_runs().collect()
    }

    /// The same one by one: a set may have half as many runs as chunks.
    pub fn iter_runs(&self) -> impl Iterator<Item = ChunkRun> + '_ {
        joined(self.iter())
    }

    /// The bitmap, little-endian, without trailing padding words: for messages and the database.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.capacity.div_ceil(8) as usize);
        bytes
    }

    /// Reads a bitmap of a package with `capacity` chunks. Missing bytes count as zero, extra bits are ignored.
    pub fn from_bytes(capacity: u32, bytes: &[u8]) -> Self {
        let mut set = Self::new(capacity);
        for (position, word) in set.words.iter_mut().enumerate() {
            let mut raw = [0; 8];
            let chunk = bytes.get(position * 8..).unwrap_or_default();
            let length = chunk.len().min(8);
            raw[..length].copy_from_slice(&chunk[..length]);
            *word = u64::from_le_bytes(raw);
        }
        let bits_in_last_word = set.capacity % 64;
        if let (Some(last), 1..) = (set.words.last_mut(), bits_in_last_word) {
            *last &= (1 << bits_in_last_word) - 1;
        }
        set.recount();
        set
    }

    fn recount(&mut self) {
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }
}

impl std::fmt::Debug for ChunkSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{} chunks", self.len, self.capacity)
    }
}

/// The chunks of runs, as far as they lie inside a package of `capacity` chunks.
pub fn indices_of(runs: &[ChunkRun], capacity: u32) -> impl Iterator<Item = ChunkIndex> + '_ {
    runs.iter().flat_map(move |run| run.first..run.first.saturating_add(run.count).min(capacity))
}

/// Joins ascending chunk indices into runs.
pub fn runs_of(indices: impl IntoIterator<Item = ChunkIndex>) -> Vec<ChunkRun> {
    joined(indices).collect()
}

fn joined(indices: impl IntoIterator<Item = ChunkIndex>) -> impl Iterator<Item = ChunkRun> {
    let mut indices = indices.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut run = ChunkRun { first: indices.next()?, count: 1 };
        while indices.next_if_eq(&(run.first + run.count)).is_some() {
            run.count += 1;
        }
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_runs_keep_the_set(capacity in 0u32..500, picks in prop::collection::vec(0u32..500, 0..200)) {
            let mut set = ChunkSet::new(capacity);
            for pick in picks {
                set.insert(pick);
            }
            prop_assert_eq!(&ChunkSet::from_bytes(capacity, &set.to_bytes()), &set);
            let mut from_runs = ChunkSet::new(capacity);
            from_runs.insert_runs(&set.runs());
            prop_assert_eq!(&from_runs, &set);
            prop_assert_eq!(set.complement().len() + set.len(), capacity);
            prop_assert_eq!(set.iter().count() as u32, set.len());
        }

        #[test]
        fn hostile_bitmaps_never_leave_the_package(capacity in 0u32..300, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let set = ChunkSet::from_bytes(capacity, &bytes);
            prop_assert!(set.iter().all(|index| index < capacity));
            prop_assert!(set.len() <= capacity);
        }
    }
}
