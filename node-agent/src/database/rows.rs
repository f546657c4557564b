//! The rows, in the words of the core.

use std::net::IpAddr;

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName, PackageKey};

use crate::metrics::PackageState;

/// A node that enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: NodeName,
    /// Its office.
    pub office: OfficeName,
    /// Its address.
    pub address: IpAddr,
    /// When its certificate was issued.
    pub enrolled_at: Timestamp,
}

/// Where a package stands at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestState {
    /// Being read from its source.
    Ingesting,
    /// In the library.
    Ready,
    /// Stopped by an error.
    Failed,
}

impl IngestState {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingesting => "ingesting",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// The state with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ingesting, Self::Ready, Self::Failed].into_iter().find(|state| state.as_str() == word)
    }
}

/// One version of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRow {
    /// Namespace, name, version.
    pub key: PackageKey,
    /// Its sequence number within the distribution.
    pub sequence: u64,
    /// Digest of the manifest root; absent before the end of ingest.
    pub digest: Option<Digest>,
    /// Sum of the sizes of all files.
    pub bytes: u64,
    /// Number of chunks.
    pub chunk_count: u32,
    /// Where it comes from.
    pub uri: String,
    /// The digest that the user gave, as written.
    pub source_digest: Option<String>,
    /// Where it stands.
    pub state: IngestState,
    /// Why it failed.
    pub error: Option<String>,
}

/// One package on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageNodeRow {
    /// The package.
    pub key: PackageKey,
    /// The node.
    pub node: NodeName,
    /// What the node does with it.
    pub state: PackageState,
    /// Verified bytes it holds.
    pub bytes: u64,
    /// Its last error.
    pub error: Option<String>,
    /// When it was complete.
    pub completed_at: Option<Timestamp>,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// When.
    pub time: Timestamp,
    /// Who: a node, a token's name, or the server.
    pub who: String,
    /// What, as a sentence.
    pub what: String,
}
