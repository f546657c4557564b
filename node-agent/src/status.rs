//! What is going on: the snapshot that the server's API serves, `peerdist status` prints and the progress bars follow.
//!
//! Only types and their arithmetic; the drivers fill them. A snapshot has a row a node and package, never a row a
//! chunk.

mod links;

use std::time::Duration;

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::names::{Namespace, NodeName, OfficeName, PackageName, Version};
use serde::{Deserialize, Serialize};

use crate::metrics::{ContentLink, ContentSource, PackageState};

pub use links::LinkTotals;

/// Everything that the server knows at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusSnapshot {
    /// When it was taken.
    pub time: Timestamp,
    /// Current versions, by namespace and name.
    pub packages: Vec<PackageStatus>,
    /// Content of these packages that crossed each link, as far as this run of the server heard.
    pub links: Vec<LinkStatus>,
}

/// One version of one package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageStatus {
    /// Namespace of the object.
    pub namespace: Namespace,
    /// Name of the object.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// Generation of the object that this speaks about.
    pub generation: u64,
    /// What the server does with it.
    pub state: PackageState,
    /// Digest of the manifest root; known after ingest.
    pub digest: Option<Digest>,
    /// Sum of the sizes of all files; before the end of ingest what the source announced, or 0.
    pub bytes: u64,
    /// Bytes that the server has read from the source.
    pub bytes_ingested: u64,
    /// Why it does not go on.
    pub error: Option<StatusError>,
    /// The server does not try again before somebody edits the object.
    #[serde(default)]
    pub needs_edit: bool,
    /// What it waits for although nothing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<StatusError>,
    /// Targeted and transit offices, by name.
    pub offices: Vec<OfficeStatus>,
}

/// One package in one office.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfficeStatus {
    /// The office.
    pub name: OfficeName,
    /// The package is published here.
    pub targeted: bool,
    /// The package is only held for offices below.
    pub transit: bool,
    /// Chunks of the package that some node of the office has, in percent: what need not cross the link any more.
    #[serde(default)]
    pub percent_available: u8,
    /// The nodes that should hold it, by name.
    pub nodes: Vec<NodeStatus>,
}

/// One package on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub name: NodeName,
    /// Verified bytes of the package that it holds.
    pub bytes: u64,
    /// The same as percent of the package; 100 only when it is complete.
    pub percent: u8,
    /// Recent rate in bytes a second.
    pub rate_bytes_per_second: u64,
    /// Time to the end at this rate.
    pub eta_seconds: Option<u64>,
    /// Where most of the recent bytes came from.
    pub source: Option<ContentSource>,
    /// Published (in a transit office: held whole).
    pub complete: bool,
    /// The server has not heard of it for ten minutes.
    pub unreachable: bool,
    /// The last error, until it is overcome.
    pub error: Option<StatusError>,
    /// Why nothing comes although nothing failed on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<StatusError>,
    /// Chunk payload that arrived from the parent office.
    pub wan_bytes_received: u64,
    /// Chunk payload that arrived inside the office.
    pub lan_bytes_received: u64,
}

/// An error with a stable word for tools and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusError {
    /// The word.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

/// Content payload on one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// `origin`, `server` or an office.
    pub from: String,
    /// `server` or an office; the same as `from` for what nodes of an office give each other.
    pub to: String,
    /// Kind of link; absent for what the server reads from sources.
    pub link: Option<ContentLink>,
    /// Payload on arrival, duplicates and rejects included.
    pub bytes: u64,
}

impl PackageStatus {
    /// `namespace/name version`, as people name it.
    pub fn title(&self) -> String {
        format!("{}/{} {}", self.namespace, self.name, self.version)
    }

    /// What there is to say about it, if anything: an error before what it waits for.
    pub fn remark(&self) -> Option<&StatusError> {
        self.error.as_ref().or(self.waits.as_ref())
    }

    /// Whether every node of every targeted office has it.
    pub fn is_complete(&self) -> bool {
        self.digest.is_some() && self.offices.iter().filter(|office| office.targeted).all(OfficeStatus::is_complete)
    }
}

impl OfficeStatus {
    /// Nodes that are complete.
    pub fn complete_nodes(&self) -> usize {
        self.nodes.iter().filter(|node| node.complete).count()
    }

    /// Whether every node is complete.
    pub fn is_complete(&self) -> bool {
        self.complete_nodes() == self.nodes.len()
    }

    /// Bytes held by all its nodes together.
    pub fn bytes(&self) -> u64 {
        self.nodes.iter().map(|node| node.bytes).sum()
    }

    /// Progress of the whole office, for a package of this size; 100 only when every node is complete.
    pub fn percent(&self, package_bytes: u64) -> u8 {
        percent(self.bytes(), package_bytes.saturating_mul(self.nodes.len() as u64), self.is_complete())
    }
}

/// Progress in percent, rounded down. 100 is kept for what is complete: all bytes may be there before it is published.
pub fn percent(bytes: u64, total_bytes: u64, complete: bool) -> u8 {
    if complete {
        return 100;
    }
    let share = u128::from(bytes) * 100 / u128::from(total_bytes.max(1));
    u8::try_from(share.min(99)).unwrap_or(99)
}

/// Time to the end at a rate, in whole seconds rounded up; `None` when nothing moves.
pub fn eta_seconds(bytes_left: u64, rate_bytes_per_second: u64) -> Option<u64> {
    (rate_bytes_per_second > 0).then(|| bytes_left.div_ceil(rate_bytes_per_second))
}

/// Rate over a span of time, 0 for an empty span.
pub fn rate_bytes_per_second(bytes: u64, elapsed: Duration) -> u64 {
    let milliseconds = elapsed.as_millis();
    if milliseconds == 0 {
        return 0;
    }
    u64::try_from(u128::from(bytes) * 1000 / milliseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package of 100 MiB on its way to a central office and a store, for tests of what shows it.
    pub(crate) fn snapshot_under_way() -> StatusSnapshot {
        let mebibytes = |count: u64| count << 20;
        let node = |name: &str, held: u64, complete: bool| NodeStatus {
            name: NodeName::new(name).unwrap(),
            bytes: mebibytes(held),
            percent: percent(mebibytes(held), mebibytes(100), complete),
            rate_bytes_per_second: if complete { 0 } else { mebibytes(10) },
            eta_seconds: if complete { None } else { eta_seconds(mebibytes(100 - held), mebibytes(10)) },
            source: Some(ContentSource::Office),
            complete,
            unreachable: false,
            error: None,
            waits: None,
            wan_bytes_received: 0,
            lan_bytes_received: mebibytes(held),
        };
        let office = |name: &str, transit: bool, nodes: Vec<NodeStatus>| OfficeStatus {
            name: OfficeName::new(name).unwrap(),
            targeted: !transit,
            transit,
            percent_available: 40,
            nodes,
        };
        let mut stuck = node("store-1-2", 20, false);
        stuck.source = Some(ContentSource::Parent);
        stuck.error =
            Some(StatusError { reason: "disk_full".into(), message: "need 100 MiB, have 3 MiB on /data".into() });
        StatusSnapshot {
            time: Timestamp::UNIX_EPOCH,
            packages: vec![PackageStatus {
                namespace: Namespace::new("retail").unwrap(),
                name: PackageName::new("pos-app").unwrap(),
                version: Version::new("7.4.1").unwrap(),
                generation: 3,
                state: PackageState::Transferring,
                digest: Some(Digest::of(b"root")),
                bytes: mebibytes(100),
                bytes_ingested: mebibytes(100),
                error: None,
                needs_edit: false,
                waits: None,
                offices: vec![
                    office("central", true, vec![node("central-1", 100, true)]),
                    office("store-1", false, vec![node("store-1-1", 40, false), stuck]),
                ],
            }],
            links: vec![
                LinkStatus { from: "origin".into(), to: "server".into(), link: None, bytes: mebibytes(100) },
                LinkStatus {
                    from: "central".into(),
                    to: "store-1".into(),
                    link: Some(ContentLink::Wan),
                    bytes: mebibytes(42),
                },
            ],
        }
    }

    #[test]
    fn percent_keeps_100_for_what_is_complete() {
        assert_eq!(percent(0, 0, false), 0);
        assert_eq!(percent(0, 0, true), 100);
        assert_eq!(percent(100, 100, false), 99);
        assert_eq!(percent(u64::MAX, u64::MAX, false), 99);
        assert_eq!(percent(1, 3, false), 33);
    }

    #[test]
    fn snapshot_survives_json() {
        let snapshot = snapshot_under_way();
        let json = serde_json::to_string(&snapshot).unwrap();
        assert!(json.contains("\"wanBytesReceived\"") && json.contains("\"state\":\"transferring\""), "{json}");
        assert_eq!(serde_json::from_str::<StatusSnapshot>(&json).unwrap(), snapshot);
    }

    #[test]
    fn rate_and_eta_follow_the_bytes() {
        assert_eq!(rate_bytes_per_second(3000, Duration::from_millis(1500)), 2000);
        assert_eq!(rate_bytes_per_second(3000, Duration::ZERO), 0);
        assert_eq!(eta_seconds(4001, 2000), Some(3));
        assert_eq!(eta_seconds(4001, 0), None);
    }
}
