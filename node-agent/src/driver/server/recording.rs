//! Writes what happened into the database, one task after the other so that rows of the same node never overtake each
//! other. The machine never waits for it. After a record was lost everything counts as unwritten, so that what the
//! offices report again is written again; who enrolled or went, and what is not wanted any more, waits here, because
//! nobody says so twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::message::{NodeState, OfficePackage};
use peerdist_core::names::{NodeName, OfficeName, PackageKey};
use peerdist_core::peer::NodeRef;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::database::{DatabaseError, MetadataStore, NodeRow, PackageNodeRow};

/// Shortest time between two occasions at which everything counts as unwritten: a database that refuses one record again and
/// again is not given all others each time.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Most records that wait for the database; more are dropped and come again with the next report.
const RECORDS_MAX: usize = 4096;
/// Plans wait so long at most until the database has forgotten what they leave out: one that does not answer holds up no
/// rollout.
const UNWANTED_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the database is told again what nobody says twice.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Packages, and the offices of which alone they are wanted.
type Wanted = BTreeMap<PackageKey, BTreeSet<OfficeName>>;

enum Record {
    /// It may have another disk than before.
    Enrolled(Box<NodeRow>),
    Renewed(Box<NodeRow>),
    Forgotten(NodeName),
    Rows(Vec<PackageNodeRow>),
    Holders(PackageKey, OfficeName, ChunkSet),
    /// With how often such a thing was told until then.
    Wanted(Wanted, u64),
}

impl Record {
    fn is_said_again(&self) -> bool {
        matches!(self, Self::Rows(_) | Self::Holders(..))
    }
}

pub(super) struct Recorder {
    records: mpsc::Sender<Record>,
    /// Whether a record did not get into the database.
    lost: Arc<AtomicBool>,
    forgotten_at: Option<Instant>,
    /// Nodes that enrolled or went while no record could be taken: the latest of each.
    nodes: BTreeMap<NodeName, Record>,
    /// What became unwanted while no record could be taken.
    wanted: Wanted,
    /// How often something became unwanted, and of how much of that the database knows.
    unwanted_told: u64,
    unwanted_known: watch::Receiver<u64>,
    /// What was written last, so that an unchanged report writes nothing.
    written: BTreeMap<NodeName, BTreeMap<PackageKey, NodeState>>,
    /// The same of the chunks of offices.
    holders: BTreeMap<(PackageKey, OfficeName), Bytes>,
}

impl Recorder {
    pub(super) fn new(database: Arc<dyn MetadataStore>) -> Self {
        let (records, received) = mpsc::channel(RECORDS_MAX);
        let lost = Arc::new(AtomicBool::new(false));
        let (known, unwanted_known) = watch::channel(0);
        tokio::spawn(write(database, received, lost.clone(), known));
        Self {
            records,
            lost,
            forgotten_at: None,
            nodes: BTreeMap::new(),
            wanted: Wanted::new(),
            unwanted_told: 0,
            unwanted_known,
            written: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// It has nothing until it says so: its disk may be another one.
    pub(super) fn enrolled(&mut self, node: &NodeRef) {
        self.written.remove(&node.name);
        self.put_node(node.name.clone(), Record::Enrolled(Box::new(row_of(node))));
    }

    /// It got another certificate, and has what it had.
    pub(super) fn renewed(&mut self, node: &NodeRef) {
        let row = Box::new(row_of(node));
        let record = match self.nodes.get(&node.name) {
            None | Some(Record::Renewed(_)) => Record::Renewed(row),
            // What it had before waits to be forgotten.
            Some(_) => Record::Enrolled(row),
        };
        self.put_node(node.name.clone(), record);
    }

    /// Others have their places, or they are gone.
    pub(super) fn forgotten(&mut self, nodes: &BTreeSet<NodeName>) {
        for node in nodes {
            self.written.remove(node);
            self.put_node(node.clone(), Record::Forgotten(node.clone()));
        }
    }

    pub(super) fn completed(&mut self, key: PackageKey, node: NodeName, bytes: u64) {
        let state = NodeState { bytes_held: bytes, complete: true, ..NodeState::default() };
        let written = self.written.entry(node.clone()).or_default();
        let known = written.get(&key);
        if known.is_some_and(|known| known.complete && known.bytes_held == bytes && known.error.is_none()) {
            return;
        }
        written.insert(key.clone(), state.clone());
        self.put(Record::Rows(vec![row(key, node, &state)]));
    }

    /// An office said how far it is with a package of so many chunks.
    pub(super) fn reported(&mut self, key: &PackageKey, chunk_count: u32, office: &OfficeName, report: OfficePackage) {
        self.catch_up();
        let mut rows = Vec::new();
        for (node, state) in report.nodes {
            let written = self.written.entry(node.clone()).or_default();
            let known = written.get(key);
            let changed = known.is_none_or(|known| {
                known.bytes_held != state.bytes_held || known.complete != state.complete || known.error != state.error
            });
            if changed {
                rows.push(row(key.clone(), node, &state));
                written.insert(key.clone(), state);
            }
        }
        if !rows.is_empty() {
            self.put(Record::Rows(rows));
        }
        let place = (key.clone(), office.clone());
        if self.holders.get(&place) != Some(&report.available) {
            let chunks = ChunkSet::from_bytes(chunk_count, &report.available);
            self.holders.insert(place, report.available);
            self.put(Record::Holders(key.clone(), office.clone(), chunks));
        }
    }

    /// What nodes of other offices had of these packages counts no more. Plans that say so wait for it
    /// ([`Recorder::unwanted_is_forgotten`]).
    pub(super) fn wanted(&mut self, wanted: Wanted) {
        self.unwanted_told += 1;
        // What those had that are left is written again with their next reports.
        self.count_as_unwritten(|package| wanted.contains_key(package));
        for (key, offices) in wanted {
            let waiting = self.wanted.entry(key).or_insert_with(|| offices.clone());
            waiting.retain(|office| offices.contains(office));
        }
        self.send_wanted();
    }

    /// Ends when the database has forgotten what became unwanted until now, or takes too long for it.
    pub(super) fn unwanted_is_forgotten(&self) -> BoxFuture<'static, ()> {
        let (told, mut known) = (self.unwanted_told, self.unwanted_known.clone());
        Box::pin(async move {
            drop(timeout(UNWANTED_PATIENCE, known.wait_for(|known| *known >= told)).await);
        })
    }

    /// The package and its rows are gone.
    pub(super) fn removed(&mut self, key: &PackageKey) {
        self.count_as_unwritten(|package| package == key);
    }

    fn count_as_unwritten(&mut self, is_concerned: impl Fn(&PackageKey) -> bool) {
        for packages in self.written.values_mut() {
            packages.retain(|package, _| !is_concerned(package));
        }
        self.holders.retain(|(package, _), _| !is_concerned(package));
    }

    fn put_node(&mut self, name: NodeName, record: Record) {
        self.nodes.insert(name, record);
        self.send_nodes();
    }

    /// Returns whether none of them waits any more.
    fn send_nodes(&mut self) -> bool {
        while let Some(waiting) = self.nodes.first_entry() {
            let Ok(place) = self.records.try_reserve() else { return false };
            place.send(waiting.remove());
        }
        true
    }

    /// Returns whether nothing of it waits any more.
    fn send_wanted(&mut self) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        let Ok(place) = self.records.try_reserve() else { return false };
        place.send(Record::Wanted(std::mem::take(&mut self.wanted), self.unwanted_told));
        true
    }

    fn catch_up(&mut self) {
        self.send_nodes();
        self.send_wanted();
        let is_soon = self.forgotten_at.is_some_and(|at| at.elapsed() < FORGET_INTERVAL);
        if !is_soon && self.lost.swap(false, Relaxed) {
            self.forgotten_at = Some(Instant::now());
            self.written.clear();
            self.holders.clear();
        }
    }

    fn put(&mut self, record: Record) {
        // What is said of a package since it came back must not come before it went, nor what a node has since it
        // enrolled before that.
        let is_in_turn = self.send_nodes() && self.send_wanted();
        if !is_in_turn || self.records.try_send(record).is_err() {
            self.lost.store(true, Relaxed);
            tracing::warn!("the database is too slow: a record was left out and comes with the next report");
        }
    }
}

fn row(key: PackageKey, node: NodeName, state: &NodeState) -> PackageNodeRow {
    PackageNodeRow { key, node, bytes: state.bytes_held, complete: state.complete, error: state.error.clone() }
}

fn row_of(node: &NodeRef) -> NodeRow {
    let NodeRef { name, office, address } = node.clone();
    NodeRow { name, office, address, enrolled_at: Timestamp::now() }
}

async fn write(
    database: Arc<dyn MetadataStore>,
    mut records: mpsc::Receiver<Record>,
    lost: Arc<AtomicBool>,
    unwanted_known: watch::Sender<u64>,
) {
    while let Some(record) = records.recv().await {
        while let Err(error) = write_one(&*database, &record).await {
            tracing::error!(%error, "the database refuses a record");
            if record.is_said_again() {
                lost.store(true, Relaxed);
                break;
            }
            sleep(RETRY_PAUSE).await;
        }
        if let Record::Wanted(_, told) = record {
            unwanted_known.send_replace(told);
        }
    }
}

async fn write_one(database: &dyn MetadataStore, record: &Record) -> Result<(), DatabaseError> {
    match record {
        Record::Enrolled(row) => database.put_node_anew(row).await,
        Record::Renewed(row) => database.put_node(row).await,
        Record::Forgotten(node) => database.remove_node(node).await,
        Record::Rows(rows) => database.put_package_nodes(rows).await,
        Record::Holders(key, office, chunks) => database.put_chunk_holders(key, office, chunks).await,
        Record::Wanted(wanted, _) => database.keep_progress(wanted).await,
    }
}

#[cfg(test)]
mod tests;
