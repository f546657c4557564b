//! The rows, in the words of the core.

use std::net::IpAddr;

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName, PackageKey};

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

/// One version of one package, in the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRow {
    /// Namespace, name, version.
    pub key: PackageKey,
    /// Its sequence number within the distribution.
    pub sequence: u64,
    /// Digest of the manifest root.
    pub digest: Digest,
}

/// One package on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageNodeRow {
    /// The package.
    pub key: PackageKey,
    /// The node.
    pub node: NodeName,
    /// Verified bytes it holds.
    pub bytes: u64,
    /// Whether it is published there.
    pub complete: bool,
    /// Its last error: reason and message.
    pub error: Option<(String, String)>,
}
