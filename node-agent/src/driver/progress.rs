//! What a client shows of itself to its own process: progress of every package, and counters. What both roles measure
//! on their connections gets into their metrics here, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerdist_core::digest::Digest;
use peerdist_core::message::NodeState;
use peerdist_core::names::PackageKey;

use crate::metrics::Metrics;
use crate::transport::Transport;

/// Progress of one package on one node.
#[derive(Debug, Clone)]
pub struct PackageOnNode {
    /// The package.
    pub key: PackageKey,
    /// Bytes, completion and last error.
    pub state: NodeState,
    /// A stable word for where it is in its life.
    pub phase: &'static str,
}

/// Progress of every package on one node, replaced by its driver a few times a second.
#[derive(Debug, Clone, Default)]
pub struct NodeProgress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    packages: Mutex<BTreeMap<Digest, PackageOnNode>>,
    waiting_ns: AtomicU64,
    verifying_ns: AtomicU64,
    disk_ns: AtomicU64,
}

/// Brings the queue that background connections saw since the last look into the metrics. Both roles have such
/// connections: large messages between offices are background traffic at the server, too.
pub(super) fn count_queue_delay(transport: &Transport, metrics: &Metrics) {
    if let Some(delay) = transport.queue_delay().take_seconds() {
        metrics.background_queue_delay_seconds().observe(delay);
    }
}

impl NodeProgress {
    /// The latest progress.
    pub fn latest(&self) -> BTreeMap<Digest, PackageOnNode> {
        self.0.packages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time that transfers waited for their next chunk, all together.
    pub fn time_waiting(&self) -> Duration {
        Duration::from_nanos(self.0.waiting_ns.load(Ordering::Relaxed))
    }

    /// Time that chunks were compared with their manifests, all together.
    pub fn time_verifying(&self) -> Duration {
        Duration::from_nanos(self.0.verifying_ns.load(Ordering::Relaxed))
    }

    /// Time that chunks were written and flushed and packages published, all together.
    pub fn time_on_disk(&self) -> Duration {
        Duration::from_nanos(self.0.disk_ns.load(Ordering::Relaxed))
    }

    pub(super) fn replace(&self, packages: BTreeMap<Digest, PackageOnNode>) {
        *self.0.packages.lock().unwrap_or_else(PoisonError::into_inner) = packages;
    }

    pub(super) fn waited(&self, time: Duration) {
        add(&self.0.waiting_ns, time);
    }

    pub(super) fn verified(&self, time: Duration) {
        add(&self.0.verifying_ns, time);
    }

    pub(super) fn wrote(&self, time: Duration) {
        add(&self.0.disk_ns, time);
    }

    /// Runs a step that the disk makes wait, and counts its time, whatever comes of it.
    pub(super) fn on_disk<T>(&self, step: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = step();
        self.wrote(began.elapsed());
        result
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
