//! What an embedded run did, for the summary and `--output json`.

use std::time::Duration;

use peerdist_core::names::OfficeName;

use super::nodes::Nodes;
use super::progress::Watch;
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
    let counters =
        nodes.iter().map(|(_, node)| node.metrics.class_counters()).chain([watch.server_metrics.class_counters()]);
    let ingest = watch.overview.time_spent();
    let (mut network, mut disk) = (Duration::ZERO, ingest.disk);
    for (_, node) in nodes.iter() {
        network += node.progress.time_waiting();
        disk += node.progress.time_writing();
    }
    RunReport {
        packages: snapshot.packages.iter().map(|package| package_report(watch, package)).collect(),
        classes: RunReport::class_totals(counters.map(AsRef::as_ref)),
        errors,
        links: snapshot.links.clone(),
        time: TimeSpent { source: ingest.source, hash: ingest.hash, network, disk, run: watch.started.elapsed() },
    }
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
                field: "spec.storage".to_owned(),
                reason: error.reason.clone(),
                message: format!("node {}, package {}: {}", node.name, package.title(), error.message),
            })
        })
        .collect()
}

fn package_report(watch: &Watch, package: &PackageStatus) -> PackageReport {
    let key = watch.key_of(package);
    let after = |office: &OfficeName| watch.completed_after.get(&(key.clone(), office.clone())).copied();
    PackageReport {
        namespace: package.namespace.clone(),
        name: package.name.clone(),
        version: package.version.clone(),
        digest: package.digest,
        bytes: package.bytes,
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
