//! What an ingest has done so far, readable by others while it runs: for progress bars and for the summary that says
//! where the time went.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of one ingest. All are bytes and nanoseconds of this run.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    bytes_total: AtomicU64,
    /// What the phase's own counter stood at when the phase began.
    bytes_before: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    bytes_hashed: AtomicU64,
    entries: AtomicU64,
    source_ns: AtomicU64,
    disk_ns: AtomicU64,
    hash_ns: AtomicU64,
}

/// What an ingest is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Not begun, or looking at the source.
    #[default]
    Inspecting,
    /// Bringing bytes over the network.
    Downloading,
    /// Unpacking an archive.
    Unpacking,
    /// Copying, chunking and hashing.
    Hashing,
    /// Writing manifest and tree to stable storage.
    Publishing,
    /// In the library.
    Done,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes that this phase will handle, 0 when unknown.
    pub bytes_total: u64,
    /// Bytes that this phase has handled.
    pub bytes_done: u64,
    /// Bytes read from the origin.
    pub bytes_read: u64,
    /// Bytes written into the library.
    pub bytes_written: u64,
    /// Bytes chunked and hashed.
    pub bytes_hashed: u64,
    /// Entries handled.
    pub entries: u64,
    /// Time spent waiting for the origin.
    pub source: Duration,
    /// Time spent writing and flushing.
    pub disk: Duration,
    /// Time spent chunking and hashing.
    pub hash: Duration,
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(load(counter));
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default();
        ProgressSnapshot {
            phase,
            bytes_total: load(&self.bytes_total),
            bytes_done: self.counted(phase).saturating_sub(load(&self.bytes_before)),
            bytes_read: load(&self.bytes_read),
            bytes_written: load(&self.bytes_written),
            bytes_hashed: load(&self.bytes_hashed),
            entries: load(&self.entries),
            source: time(&self.source_ns),
            disk: time(&self.disk_ns),
            hash: time(&self.hash_ns),
        }
    }

    /// A new phase begins, which will handle `bytes_total` bytes (0: unknown).
    pub fn enter(&self, phase: Phase, bytes_total: u64) {
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
        self.bytes_before.store(self.counted(phase), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn counted(&self, phase: Phase) -> u64 {
        let counter = match phase {
            Phase::Downloading => &self.bytes_read,
            Phase::Unpacking => &self.bytes_written,
            Phase::Inspecting | Phase::Hashing | Phase::Publishing | Phase::Done => &self.bytes_hashed,
        };
        counter.load(Ordering::Relaxed)
    }

    /// One more entry was handled.
    pub fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a step that brings bytes from the origin and returns how many.
    pub fn source<T>(&self, step: impl FnOnce() -> T, bytes: impl FnOnce(&T) -> u64) -> T {
        measured(&self.source_ns, &self.bytes_read, step, bytes)
    }

    /// Runs a step that writes bytes into the library.
    pub fn disk<T>(&self, bytes: u64, step: impl FnOnce() -> T) -> T {
        measured(&self.disk_ns, &self.bytes_written, step, |_| bytes)
    }

    /// Runs a step that chunks and hashes bytes.
    pub fn hash<T>(&self, bytes: u64, step: impl FnOnce() -> T) -> T {
        measured(&self.hash_ns, &self.bytes_hashed, step, |_| bytes)
    }

    /// Bytes that arrived and the time they were waited for.
    pub fn add_source(&self, bytes: u64, waited: Duration) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.source_ns.fetch_add(nanoseconds(waited), Ordering::Relaxed);
    }
}

const PHASES: [Phase; 6] =
    [Phase::Inspecting, Phase::Downloading, Phase::Unpacking, Phase::Hashing, Phase::Publishing, Phase::Done];

fn measured<T>(time: &AtomicU64, count: &AtomicU64, step: impl FnOnce() -> T, bytes: impl FnOnce(&T) -> u64) -> T {
    let begin = Instant::now();
    let result = step();
    time.fetch_add(nanoseconds(begin.elapsed()), Ordering::Relaxed);
    count.fetch_add(bytes(&result), Ordering::Relaxed);
    result
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_where_they_belong() {
        let progress = Progress::default();
        progress.enter(Phase::Hashing, 30);
        assert_eq!(progress.source(|| 10, |&bytes| bytes), 10);
        progress.disk(7, || {});
        progress.hash(5, || {});
        progress.add_entry();
        let now = progress.snapshot();
        assert_eq!(now.bytes_done, 5);
        assert_eq!((now.phase, now.bytes_total, now.entries), (Phase::Hashing, 30, 1));
        assert_eq!((now.bytes_read, now.bytes_written, now.bytes_hashed), (10, 7, 5));
        progress.enter(Phase::Downloading, 100);
        progress.add_source(4, Duration::ZERO);
        assert_eq!(progress.snapshot().bytes_done, 4);
    }
}
