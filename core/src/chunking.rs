//! Content-defined chunking: cuts a stream where its content says so, whatever pieces it arrives in, so that two
//! versions of a package share the chunks they have in common. Says sizes and digests; keeps no content.

use fastcdc::v2020::{Normalization, cut, select_masks};

use crate::digest::Digest;

/// Smallest average chunk size in bytes: below it, bookkeeping outweighs what sharing saves.
pub const CHUNK_BYTES_AVERAGE_MIN: u32 = 16 << 10;
/// Largest average chunk size in bytes.
pub const CHUNK_BYTES_AVERAGE_MAX: u32 = 4 << 20;
/// Largest chunk in bytes, at any average: bounds the memory of whoever receives one.
pub const CHUNK_BYTES_MAX: u32 = 8 << 20;
/// Chunks a package of usual size is cut into.
const CHUNKS_AIMED_AT: u64 = 16 << 10;
/// A version keeps the chunk size of its predecessor until its own would differ by more than this factor.
const SIZE_CHANGE_MAX: u64 = 8;

/// Average chunk size for a package of `total_bytes`; `previous` is what the version before used, and its size.
///
/// The average is the size divided by 16384, rounded up to a power of two and kept between 16 KiB and 4 MiB.
pub fn chunk_bytes_average(total_bytes: u64, previous: Option<PreviousVersion>) -> u32 {
    match previous {
        Some(version) if !changed_much(total_bytes, version.total_bytes) => {
            version.chunk_bytes_average.clamp(CHUNK_BYTES_AVERAGE_MIN, CHUNK_BYTES_AVERAGE_MAX)
        }
        _ => own_average(total_bytes),
    }
}

/// The version before, as far as the chunk size depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousVersion {
    /// Its size.
    pub total_bytes: u64,
    /// Its average chunk size.
    pub chunk_bytes_average: u32,
}

fn changed_much(now: u64, before: u64) -> bool {
    let (small, large) = (now.min(before), now.max(before));
    large > small.saturating_mul(SIZE_CHANGE_MAX)
}

fn own_average(total_bytes: u64) -> u32 {
    let average = (total_bytes / CHUNKS_AIMED_AT).clamp(CHUNK_BYTES_AVERAGE_MIN.into(), CHUNK_BYTES_AVERAGE_MAX.into());
    (average as u32).next_power_of_two()
}

/// A chunk that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Its length in bytes, at least 1.
    pub length: u32,
}

/// Cuts a stream into chunks. Memory: about two chunks of the largest size.
#[derive(Debug)]
pub struct Chunker {
    cutter: Cutter,
    /// Bytes that arrived and are not cut yet start at `start`.
    buffer: Vec<u8>,
    start: usize,
}

impl Chunker {
    /// A chunker for an average chunk size, which is brought into its limits.
    pub fn new(chunk_bytes_average: u32) -> Self {
        Self { cutter: Cutter::new(chunk_bytes_average), buffer: Vec::new(), start: 0 }
    }

    /// Takes the next bytes and says which chunks they complete.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Chunk)) {
        let window = self.cutter.max_bytes;
        while !bytes.is_empty() {
            if self.pending() == 0 && bytes.len() >= window {
                let length = self.cutter.cut(&bytes[..window], &mut emit);
                bytes = &bytes[length..];
                continue;
            }
            let taken = bytes.len().min(window - self.pending());
            self.append(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.pending() == window {
                self.start += self.cutter.cut(&self.buffer[self.start..], &mut emit);
            }
        }
    }

    /// Ends the stream and says which chunks remain.
    pub fn finish(mut self, mut emit: impl FnMut(Chunk)) {
        while self.pending() > 0 {
            self.start += self.cutter.cut(&self.buffer[self.start..], &mut emit);
        }
    }

    fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.start >= self.cutter.max_bytes {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }
}

/// Sizes and masks of the cut, fixed for a package.
#[derive(Debug)]
struct Cutter {
    min_bytes: usize,
    average_bytes: usize,
    max_bytes: usize,
    mask_small: u64,
    mask_large: u64,
}

impl Cutter {
    fn new(chunk_bytes_average: u32) -> Self {
        // The cut looks at pairs of bytes: sizes must be even.
        let average = chunk_bytes_average.clamp(CHUNK_BYTES_AVERAGE_MIN, CHUNK_BYTES_AVERAGE_MAX) as usize & !7;
        let (mask_small, mask_large) = select_masks(average, Normalization::Level1);
        let max_bytes = (2 * average).min(CHUNK_BYTES_MAX as usize);
        Self { min_bytes: average / 4, average_bytes: average, max_bytes, mask_small, mask_large }
    }

    /// Cuts the first chunk off a window that is either full or the end of the stream. Returns its length.
    fn cut(&self, window: &[u8], emit: &mut impl FnMut(Chunk)) -> usize {
        let (_, length) = cut(
            window,
            self.min_bytes,
            self.average_bytes,
            self.max_bytes,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
        );
        emit(Chunk { digest: Digest::of(&window[..length]), length: length as u32 });
        length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    use super::*;

    fn random(seed: u64, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        StdRng::seed_from_u64(seed).fill_bytes(&mut content);
        content
    }

    fn chunks_of<'a>(average: u32, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Chunk> {
        let (mut chunker, mut chunks) = (Chunker::new(average), Vec::new());
        for piece in pieces {
            chunker.push(piece, |chunk| chunks.push(chunk));
        }
        chunker.finish(|chunk| chunks.push(chunk));
        chunks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cuts_do_not_depend_on_the_pieces(seed in any::<u64>(), bytes in 0usize..400_000, sizes in prop::collection::vec(1usize..90_000, 1..20)) {
            let content = random(seed, bytes);
            let whole = chunks_of(16 << 10, [&content[..]]);
            let (mut rest, mut pieces) = (&content[..], Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(&chunks_of(16 << 10, pieces), &whole);
            let mut offset = 0;
            for chunk in &whole {
                prop_assert!(chunk.length > 0 && chunk.length <= 32 << 10);
                let end = offset + chunk.length as usize;
                prop_assert_eq!(chunk.digest, Digest::of(&content[offset..end]));
                offset = end;
            }
            prop_assert_eq!(offset, bytes);
        }
    }

    #[test]
    fn cuts_are_the_same_forever() {
        let content: Vec<u8> =
            (0u32..100_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let lengths: Vec<u32> = chunks_of(16 << 10, [&content[..]]).iter().map(|chunk| chunk.length).collect();
        assert_eq!(lengths.iter().sum::<u32>(), 400_000);
        assert_eq!(
            lengths[..4],
            [9488, 16835, 9764, 28195],
            "a change of the cut makes every stored chunk useless to new versions"
        );
    }

    #[test]
    fn versions_share_what_they_have_in_common() {
        let old = random(1, 2 << 20);
        let mut new = old.clone();
        new.splice(700_000..700_100, random(2, 4321));
        let (old, new) = (chunks_of(16 << 10, [&old[..]]), chunks_of(16 << 10, [&new[..]]));
        let shared = new.iter().filter(|chunk| old.contains(chunk)).count();
        assert!(shared + 4 >= new.len(), "{shared} of {}", new.len());
    }

    #[test]
    fn average_follows_the_size_within_its_limits() {
        let table: [(u64, u32); 6] = [
            (0, 16 << 10),
            (1 << 20, 16 << 10),
            (1 << 30, 64 << 10),
            (3 << 29, 128 << 10),
            (100 << 30, 4 << 20),
            (1 << 50, 4 << 20),
        ];
        for (total_bytes, average) in table {
            assert_eq!(chunk_bytes_average(total_bytes, None), average, "{total_bytes}");
        }
    }

    #[test]
    fn average_is_inherited_until_the_size_changes_more_than_eightfold() {
        let previous = PreviousVersion { total_bytes: 1 << 30, chunk_bytes_average: 64 << 10 };
        for total_bytes in [1 << 27, 1 << 30, 1 << 33] {
            assert_eq!(chunk_bytes_average(total_bytes, Some(previous)), 64 << 10);
        }
        assert_eq!(chunk_bytes_average((1 << 33) + 1, Some(previous)), 512 << 10);
        assert_eq!(chunk_bytes_average((1 << 27) - 1, Some(previous)), 16 << 10);
    }
}
