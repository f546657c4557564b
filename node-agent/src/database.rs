//! The server's metadata: nodes, offices, packages, who holds what, and an audit trail.
//!
//! [`MetadataStore`] is the contract, [`SqliteStore`] the embedded default; another database passes the same suite
//! (`database::suite`). Content, chunk digests and clients' journals are elsewhere. Times come in as arguments.

mod error;
mod rows;
mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::{BTreeMap, BTreeSet};

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName, PackageKey};

pub use error::DatabaseError;
pub use rows::{AuditRow, IngestState, NodeRow, PackageNodeRow, PackageRow};
pub use sqlite::SqliteStore;

/// Most offices of an embedded run: each takes one value of the third octet, 0 is the server's and 255 is broadcast's.
pub const EMBEDDED_OFFICES_MAX: u8 = 254;

/// What the server remembers. Every method is one transaction; implementations are cheap to clone.
pub trait MetadataStore: Clone + Send + Sync + 'static {
    /// Adds or replaces a node (by name).
    fn put_node(&self, node: &NodeRow) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// All nodes, by name.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRow>, DatabaseError>> + Send;

    /// Forgets a node and what it holds.
    fn remove_node(&self, name: &NodeName) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The index of every given office in an embedded run: kept once given; new offices take the lowest free ones in
    /// the order of their names. Offices that are gone keep theirs.
    fn embedded_indices(
        &self,
        offices: &BTreeSet<OfficeName>,
    ) -> impl Future<Output = Result<BTreeMap<OfficeName, u8>, DatabaseError>> + Send;

    /// The next sequence number of a distribution, from 1. A number is never given twice, not even after its package
    /// was removed.
    fn next_sequence(&self, distribution: &DistributionKey) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    /// Adds or replaces a package (by key).
    fn put_package(&self, package: &PackageRow) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// One package.
    fn package(&self, key: &PackageKey) -> impl Future<Output = Result<Option<PackageRow>, DatabaseError>> + Send;

    /// All packages, by namespace, name and sequence.
    fn packages(&self) -> impl Future<Output = Result<Vec<PackageRow>, DatabaseError>> + Send;

    /// Forgets a package and who holds it.
    fn remove_package(&self, key: &PackageKey) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Adds or replaces rows a node and package. Those of a node or package that is not known any more are left out.
    fn put_package_nodes(&self, rows: &[PackageNodeRow]) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The nodes of a package, by name.
    fn package_nodes(
        &self,
        key: &PackageKey,
    ) -> impl Future<Output = Result<Vec<PackageNodeRow>, DatabaseError>> + Send;

    /// Replaces the set of chunks that some node of the office holds.
    fn put_chunk_holders(
        &self,
        key: &PackageKey,
        office: &OfficeName,
        chunks: &ChunkSet,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The chunks that each office holds.
    fn chunk_holders(
        &self,
        key: &PackageKey,
    ) -> impl Future<Output = Result<BTreeMap<OfficeName, ChunkSet>, DatabaseError>> + Send;

    /// Adds a line to the audit trail.
    fn record_audit(&self, row: &AuditRow) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The latest lines of the audit trail, newest first.
    fn audit(&self, count_max: u32) -> impl Future<Output = Result<Vec<AuditRow>, DatabaseError>> + Send;
}
