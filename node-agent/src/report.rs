//! What a run of `peerdist up` did: plain numbers that its driver fills, the JSON object of `--output json`, and the
//! summary for people (`report::text`).

mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use peerdist_core::digest::Digest;
use peerdist_core::names::{Namespace, OfficeName, PackageName, Version};
use peerdist_core::ports::TransferClass;
use serde::{Serialize, Serializer};

use crate::metrics::{ClassCounters, Direction};
use crate::status::{LinkStatus, StatusError};

pub(crate) use text::link_title;

/// A whole run. Serialised, it is the one object of `--output json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Every package, by namespace and name.
    pub packages: Vec<PackageReport>,
    /// Bytes of every transfer class, all roles of the run together.
    pub classes: BTreeMap<TransferClass, ClassTotals>,
    /// What failed.
    pub errors: Vec<ErrorReport>,
    /// What crossed each link.
    pub links: Vec<LinkStatus>,
    /// Where the time went.
    pub time: TimeSpent,
}

/// One package of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackageReport {
    /// Namespace of the object.
    pub namespace: Namespace,
    /// Name of the object.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// Digest of the manifest root; `None` when it never got through ingest.
    pub digest: Option<Digest>,
    /// Sum of the sizes of all files.
    pub bytes: u64,
    /// Why it is not distributed although nothing failed: its object keeps it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<StatusError>,
    /// Targeted and transit offices, by name.
    pub offices: Vec<OfficeReport>,
}

/// One package in one office.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfficeReport {
    /// The office.
    pub name: OfficeName,
    /// Whether its nodes share with each other (not in a VPN office).
    pub shares: bool,
    /// Nodes that should have the package.
    pub nodes: usize,
    /// Nodes that have it.
    pub complete: usize,
    /// Chunk payload that arrived from the parent office in this run.
    pub wan_bytes_received: u64,
    /// Chunk payload that arrived inside the office in this run.
    pub lan_bytes_received: u64,
    /// From the start of the run until its last node was complete, or until now.
    #[serde(serialize_with = "seconds_to_milliseconds_precision")]
    pub seconds: f64,
}

/// UDP payload of one transfer class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassTotals {
    /// Sent by all roles of the run.
    pub bytes_sent: u64,
    /// Received by all roles of the run.
    pub bytes_received: u64,
}

/// One thing that failed, and where to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The object: kind, namespace and name, or the file when it has none yet.
    pub object: String,
    /// The field of the object, as a path; empty when it is not about one field.
    pub field: String,
    /// A stable word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Time that the parts of the data path were busy, summed over all roles of a run; parts work at the same time, so
/// that the sum may be more than the run took. Serialised, all are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TimeSpent {
    /// Waiting for sources.
    #[serde(rename = "sourceSeconds", serialize_with = "duration_in_seconds")]
    pub source: Duration,
    /// Chunking and hashing at the server, and the check of every chunk at the nodes.
    #[serde(rename = "hashSeconds", serialize_with = "duration_in_seconds")]
    pub hash: Duration,
    /// Waiting for chunks from other nodes.
    #[serde(rename = "networkSeconds", serialize_with = "duration_in_seconds")]
    pub network: Duration,
    /// Writing, flushing and publishing.
    #[serde(rename = "diskSeconds", serialize_with = "duration_in_seconds")]
    pub disk: Duration,
    /// The whole run, by the clock.
    #[serde(rename = "runSeconds", serialize_with = "duration_in_seconds")]
    pub run: Duration,
}

impl RunReport {
    /// Bytes of every class, summed over the counters of all roles.
    pub fn class_totals<'a>(
        counters: impl IntoIterator<Item = &'a ClassCounters>,
    ) -> BTreeMap<TransferClass, ClassTotals> {
        let mut totals: BTreeMap<_, _> = TransferClass::ALL.map(|class| (class, ClassTotals::default())).into();
        for counters in counters {
            for (&class, total) in &mut totals {
                total.bytes_sent += counters.bytes(class, Direction::Sent);
                total.bytes_received += counters.bytes(class, Direction::Received);
            }
        }
        totals
    }

    /// The object of `--output json` on one line.
    ///
    /// # Errors
    /// [`serde_json::Error`], which plain numbers and texts do not cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The summary for people.
    pub fn to_text(&self) -> String {
        text::render(self)
    }
}

fn seconds_to_milliseconds_precision<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1000.0).round() / 1000.0)
}

/// To the microsecond: a small source is read in less than a millisecond.
fn duration_in_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_golden;
    use crate::metrics::ContentLink;

    fn report() -> RunReport {
        let counters = ClassCounters::default();
        counters.add_bytes(TransferClass::BackgroundContent, Direction::Received, 105 << 20);
        counters.add_bytes(TransferClass::SmallMessage, Direction::Sent, 81_920);
        let office = |name: &str, shares, nodes, complete, wan: u64, lan: u64| OfficeReport {
            name: OfficeName::new(name).unwrap(),
            shares,
            nodes,
            complete,
            wan_bytes_received: wan << 20,
            lan_bytes_received: lan << 20,
            seconds: 4.123_456,
        };
        let package = |name: &str, digest, bytes, offices| PackageReport {
            namespace: Namespace::new("demo").unwrap(),
            name: PackageName::new(name).unwrap(),
            version: Version::new("1.95.0").unwrap(),
            digest,
            bytes,
            waits: None,
            offices,
        };
        RunReport {
            packages: vec![
                package("broken", None, 0, vec![]),
                package(
                    "toolchain",
                    Some(Digest::of(b"root")),
                    100 << 20,
                    vec![office("central", true, 2, 2, 0, 200), office("road", false, 2, 1, 200, 0)],
                ),
            ],
            classes: RunReport::class_totals([&counters, &counters]),
            errors: vec![ErrorReport {
                object: "PackageDistribution demo/broken".into(),
                field: "spec.source.uri".into(),
                reason: "SourceNotFound".into(),
                message: "file:///nowhere does not exist: give the path of a file or directory".into(),
            }],
            links: vec![
                LinkStatus { from: "origin".into(), to: "server".into(), link: None, bytes: 100 << 20 },
                LinkStatus {
                    from: "server".into(),
                    to: "central".into(),
                    link: Some(ContentLink::Lan),
                    bytes: 100 << 20,
                },
                LinkStatus {
                    from: "central".into(),
                    to: "central".into(),
                    link: Some(ContentLink::Lan),
                    bytes: 100 << 20,
                },
                LinkStatus {
                    from: "central".into(),
                    to: "road".into(),
                    link: Some(ContentLink::Wan),
                    bytes: 200 << 20,
                },
            ],
            time: TimeSpent {
                source: Duration::from_millis(1200),
                hash: Duration::from_millis(800),
                network: Duration::from_millis(12_100),
                disk: Duration::from_millis(4050),
                run: Duration::from_millis(8310),
            },
        }
    }

    #[test]
    fn json_is_the_documented_object() {
        check_golden("report.json", &(report().to_json().unwrap() + "\n"));
    }

    #[test]
    fn summary_is_for_people() {
        check_golden("report.txt", &report().to_text());
    }

    #[test]
    fn package_that_its_object_keeps_back_says_why() {
        let mut report = report();
        let message = "paused, as spec.rollout.paused says".to_owned();
        report.packages[1].waits = Some(StatusError { reason: "Paused".into(), message });
        let text = report.to_text();
        let line = "\nnot distributed: demo/toolchain 1.95.0: paused, as spec.rollout.paused says\n";
        assert!(text.contains(line), "{text}");
        assert!(report.to_json().unwrap().contains("\"waits\":{\"reason\":\"Paused\""));
    }
}
