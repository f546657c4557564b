//! Writes what happened into the database, one task after the other so that rows of the same node never overtake each
//! other. The machine never waits for it. After a record was lost everything counts as unwritten, so that what the
//! offices report again is written again; who enrolled or went waits here, because nobody says so twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::message::{NodeState, OfficePackage};
use peerdist_core::names::{NodeName, OfficeName, PackageKey};
use peerdist_core::peer::NodeRef;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::database::{DatabaseError, MetadataStore, NodeRow, PackageNodeRow};

/// Shortest time between two occasions at which everything counts as unwritten: a database that refuses one record again and
/// again is not given all others each time.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Most records that wait for the database; more are dropped and come again with the next report.
const RECORDS_MAX: usize = 4096;

enum Record {
    Enrolled(Box<NodeRow>),
    Forgotten(NodeName),
    Rows(Vec<PackageNodeRow>),
    Holders(PackageKey, OfficeName, ChunkSet),
}

pub(super) struct Recorder {
    records: mpsc::Sender<Record>,
    /// Whether a record did not get into the database.
    lost: Arc<AtomicBool>,
    forgotten_at: Option<Instant>,
    /// Nodes that enrolled or went while no record could be taken: the latest of each.
    nodes: BTreeMap<NodeName, Record>,
    /// What was written last, so that an unchanged report writes nothing.
    written: BTreeMap<(PackageKey, NodeName), NodeState>,
    /// The same of the chunks of offices.
    holders: BTreeMap<(PackageKey, OfficeName), Bytes>,
}

impl Recorder {
    pub(super) fn new(database: Arc<dyn MetadataStore>) -> Self {
        let (records, received) = mpsc::channel(RECORDS_MAX);
        let lost = Arc::new(AtomicBool::new(false));
        tokio::spawn(write(database, received, lost.clone()));
        Self {
            records,
            lost,
            forgotten_at: None,
            nodes: BTreeMap::new(),
            written: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    pub(super) fn enrolled(&mut self, node: &NodeRef) {
        let row = NodeRow {
            name: node.name.clone(),
            office: node.office.clone(),
            address: node.address,
            enrolled_at: Timestamp::now(),
        };
        self.put_node(row.name.clone(), Record::Enrolled(Box::new(row)));
    }

    /// Others have their places, or they are gone.
    pub(super) fn forgotten(&mut self, nodes: &BTreeSet<NodeName>) {
        self.written.retain(|(_, node), _| !nodes.contains(node));
        nodes.iter().for_each(|node| self.put_node(node.clone(), Record::Forgotten(node.clone())));
    }

    pub(super) fn completed(&mut self, key: PackageKey, node: NodeName, bytes: u64) {
        let state = NodeState { bytes_held: bytes, complete: true, ..NodeState::default() };
        let known = self.written.get(&(key.clone(), node.clone()));
        if known.is_some_and(|known| known.complete && known.bytes_held == bytes && known.error.is_none()) {
            return;
        }
        self.written.insert((key.clone(), node.clone()), state.clone());
        self.put(Record::Rows(vec![row(key, node, &state)]));
    }

    /// An office said how far it is with a package of so many chunks.
    pub(super) fn reported(&mut self, key: &PackageKey, chunk_count: u32, office: &OfficeName, report: OfficePackage) {
        self.catch_up();
        let mut rows = Vec::new();
        for (node, state) in report.nodes {
            let place = (key.clone(), node.clone());
            let known = self.written.get(&place);
            let changed = known.is_none_or(|known| {
                known.bytes_held != state.bytes_held || known.complete != state.complete || known.error != state.error
            });
            if changed {
                rows.push(row(key.clone(), node, &state));
                self.written.insert(place, state);
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

    /// The package and its rows are gone.
    pub(super) fn removed(&mut self, key: &PackageKey) {
        self.written.retain(|(package, _), _| package != key);
        self.holders.retain(|(package, _), _| package != key);
    }

    fn put_node(&mut self, name: NodeName, record: Record) {
        self.nodes.insert(name, record);
        self.send_nodes();
    }

    fn send_nodes(&mut self) {
        while let Some((name, record)) = self.nodes.pop_first() {
            match self.records.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Full(record)) => {
                    self.nodes.insert(name, record);
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }

    fn catch_up(&mut self) {
        self.send_nodes();
        let is_soon = self.forgotten_at.is_some_and(|at| at.elapsed() < FORGET_INTERVAL);
        if !is_soon && self.lost.swap(false, Relaxed) {
            self.forgotten_at = Some(Instant::now());
            self.written.clear();
            self.holders.clear();
        }
    }

    fn put(&self, record: Record) {
        if self.records.try_send(record).is_err() {
            self.lost.store(true, Relaxed);
            tracing::warn!("the database is too slow: a record was left out and comes with the next report");
        }
    }
}

fn row(key: PackageKey, node: NodeName, state: &NodeState) -> PackageNodeRow {
    PackageNodeRow { key, node, bytes: state.bytes_held, complete: state.complete, error: state.error.clone() }
}

async fn write(database: Arc<dyn MetadataStore>, mut records: mpsc::Receiver<Record>, lost: Arc<AtomicBool>) {
    while let Some(record) = records.recv().await {
        if let Err(error) = write_one(&*database, record).await {
            lost.store(true, Relaxed);
            tracing::error!(%error, "the database refuses a record");
        }
    }
}

async fn write_one(database: &dyn MetadataStore, record: Record) -> Result<(), DatabaseError> {
    match record {
        Record::Enrolled(row) => database.put_node(&row).await,
        Record::Forgotten(node) => database.remove_node(&node).await,
        Record::Rows(rows) => database.put_package_nodes(&rows).await,
        Record::Holders(key, office, chunks) => database.put_chunk_holders(&key, &office, &chunks).await,
    }
}
