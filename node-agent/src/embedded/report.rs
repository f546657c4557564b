//! What an embedded run did, for the summary and `--output json`.

use std::time::Duration;

use jiff::Timestamp;
use peerdist_core::client::DISK_FULL;
use peerdist_core::distribution::Distribution;
use peerdist_core::names::OfficeName;

use super::nodes::Nodes;
use super::progress::Watch;
use super::standstill::wait_for_office;
use crate::desired::{ObjectError, object_of};
use crate::report::{ErrorReport, OfficeReport, PackageReport, RunReport, TimeSpent};
use crate::status::{OfficeStatus, PackageStatus, StatusSnapshot};

/// A run that did not start for these errors.
pub(super) fn of_errors(errors: &[ObjectError]) -> RunReport {
    RunReport {
        packages: Vec::new(),
        classes: RunReport::class_totals([]),
        errors: errors.iter().map(error_of_object).collect(),
        links: Vec::new(),
        time: TimeSpent::default(),
    }
}

/// The whole run. `object_errors` is what is wrong with the objects as they are now.
pub(super) fn make(
    watch: &Watch,
    nodes: &Nodes,
    snapshot: &StatusSnapshot,
    object_errors: &[ObjectError],
) -> RunReport {
    let mut errors: Vec<ErrorReport> = object_errors.iter().map(error_of_object).collect();
    for (key, failure) in watch.overview.failures() {
        errors.push(ErrorReport {
            object: object_of(&key.distribution),
            field: failure.field,
            reason: failure.reason,
            message: failure.message,
        });
    }
    errors.extend(snapshot.packages.iter().flat_map(errors_of_nodes));
    errors.extend(snapshot.packages.iter().flat_map(errors_of_waiting_offices));
    let counters =
        nodes.iter().map(|(_, node)| node.metrics.class_counters()).chain([watch.server_metrics.class_counters()]);
    let ingest = watch.overview.time_spent();
    let (mut hash, mut network, mut disk) = (ingest.hash, Duration::ZERO, ingest.disk);
    for (_, node) in nodes.iter() {
        hash += node.progress.time_verifying();
        network += node.progress.time_waiting();
        disk += node.progress.time_on_disk();
    }
    RunReport {
        packages: snapshot.packages.iter().map(|package| package_report(watch, snapshot.time, package)).collect(),
        classes: RunReport::class_totals(counters.map(AsRef::as_ref)),
        errors,
        links: snapshot.links.clone(),
        time: TimeSpent { source: ingest.source, hash, network, disk, run: watch.started.elapsed() },
    }
}

/// What an interrupt left unfinished.
pub(super) fn of_interrupt(watch: &Watch, snapshot: &StatusSnapshot) -> Vec<ErrorReport> {
    watch.unfinished(snapshot).map(|(distribution, package)| error_of_interrupt(distribution, package)).collect()
}

impl RunReport {
    /// A run that failed before it began.
    pub(super) fn failed(object: &str, field: &str, reason: &str, message: &str) -> Self {
        let error = ErrorReport {
            object: object.to_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        Self { errors: vec![error], ..of_errors(&[]) }
    }
}

fn error_of_object(error: &ObjectError) -> ErrorReport {
    ErrorReport {
        object: error.object.clone(),
        field: error.field.clone(),
        reason: error.reason.clone(),
        message: error.message.clone(),
    }
}

/// Nodes that are not complete and say why.
fn errors_of_nodes(package: &PackageStatus) -> Vec<ErrorReport> {
    let offices = package.offices.iter();
    let nodes = offices.flat_map(|office| office.nodes.iter().map(move |node| (&office.name, node)));
    nodes
        .filter(|(_, node)| !node.complete)
        .filter_map(|(office, node)| {
            let error = node.error.as_ref()?;
            Some(ErrorReport {
                object: format!("Office {office}"),
                field: field_of(&error.reason).to_owned(),
                reason: error.reason.clone(),
                message: format!("node {}, package {}: {}", node.name, package.title(), error.message),
            })
        })
        .collect()
}

/// The field of an Office that an error of a node can be corrected at. A file in the way, a broken disk or a manifest
/// that is refused are no fault of the object.
fn field_of(reason: &str) -> &'static str {
    if reason == DISK_FULL { "spec.storage" } else { "" }
}

/// Offices that the package cannot come to because one above them failed.
fn errors_of_waiting_offices(package: &PackageStatus) -> Vec<ErrorReport> {
    let waiting = package.offices.iter().filter_map(|office| {
        let waits = office.nodes.iter().find_map(wait_for_office)?;
        Some(ErrorReport {
            object: format!("Office {}", office.name),
            field: String::new(),
            reason: waits.reason.clone(),
            message: format!("package {}: {}", package.title(), waits.message),
        })
    });
    waiting.collect()
}

fn error_of_interrupt(distribution: &Distribution, package: Option<&PackageStatus>) -> ErrorReport {
    let targeted = package.into_iter().flat_map(|package| &package.offices).filter(|office| office.targeted);
    let (complete, nodes) = targeted
        .fold((0, 0), |(complete, nodes), office| (complete + office.complete_nodes(), nodes + office.nodes.len()));
    ErrorReport {
        object: object_of(&distribution.key),
        field: String::new(),
        reason: "Interrupted".to_owned(),
        message: format!(
            "interrupted when {complete} of {nodes} nodes had version {}: run the same command again, which resumes \
             and fetches only what is missing",
            distribution.version
        ),
    }
}

fn package_report(watch: &Watch, now: Timestamp, package: &PackageStatus) -> PackageReport {
    let key = watch.key_of(package);
    let after = |office: &OfficeName| watch.completed_after.get(&(key.clone(), office.clone())).copied();
    PackageReport {
        namespace: package.namespace.clone(),
        name: package.name.clone(),
        version: package.version.clone(),
        digest: package.digest,
        bytes: package.bytes,
        waits: package.waits.clone().filter(|_| watch.rests(package, now) && !package.is_complete()),
        offices: package.offices.iter().map(|office| office_report(watch, office, after(&office.name))).collect(),
    }
}

fn office_report(watch: &Watch, office: &OfficeStatus, completed_after: Option<Duration>) -> OfficeReport {
    let shares = watch.desired.offices.office(&office.name).is_none_or(|office| office.office_type.shares());
    OfficeReport {
        name: office.name.clone(),
        shares,
        nodes: office.nodes.len(),
        complete: office.complete_nodes(),
        wan_bytes_received: office.nodes.iter().map(|node| node.wan_bytes_received).sum(),
        lan_bytes_received: office.nodes.iter().map(|node| node.lan_bytes_received).sum(),
        seconds: completed_after.unwrap_or_else(|| watch.started.elapsed()).as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_named_where_the_object_is_to_blame() {
        assert_eq!(field_of("DiskFull"), "spec.storage");
        for reason in ["PathOccupied", "StorageFailed", "ManifestRefused", "PlanFull", "NotReady"] {
            assert_eq!(field_of(reason), "", "{reason}");
        }
    }
}
