//! How far packages are, into the status of their objects: totals, the slowest and the failing, never a row a node. The
//! conditions are the operator's. An object is written when something changed, at most once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use peerdist_core::names::{DistributionKey, NodeName};
use peerdist_crds::PackageDistribution;
use peerdist_crds::names::SERVER_FIELD_MANAGER;
use peerdist_crds::readable::{NOT_UNDERSTOOD, Readable};
use peerdist_crds::status::{
    ByteCounts, Eviction, IngestFailure, NodeCounts, OfficeCounts, PackageDistributionStatus, SLOWEST_MAX, SlowNode,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ANSWER_TIMEOUT, Cluster};
use crate::desired::{NO_OFFICE_SELECTED, ObjectError, PackageObject};
use crate::source::error::FILE_SOURCE_NOT_ALLOWED;
use crate::status::{NodeStatus, OfficeStatus, PackageStatus, StatusSnapshot};

/// Shortest time between two writes of one object.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest message of a node; the rest is in the server's API.
const MESSAGE_CHARS_MAX: usize = 400;
/// Longest message of a failure, as the schema has it: there is one, and it may name a command.
const FAILURE_CHARS_MAX: usize = 1024;

/// Refusals that go without an edit of the object: an office comes to have the labels, a newer release of the server
/// understands it, an administrator names the folder.
const HEAL_WITHOUT_EDIT: [&str; 3] = [NO_OFFICE_SELECTED, NOT_UNDERSTOOD, FILE_SOURCE_NOT_ALLOWED];

/// How things stand, with the objects that they belong to.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Packages that are acted upon.
    pub snapshot: Arc<StatusSnapshot>,
    /// The objects.
    pub objects: Arc<BTreeMap<DistributionKey, PackageObject>>,
    /// Nodes that still hold the packages of deleted objects.
    pub evictions: BTreeMap<DistributionKey, Vec<NodeName>>,
}

impl Standing {
    /// Before any object is known.
    pub fn new(snapshot: Arc<StatusSnapshot>) -> Self {
        Self { snapshot, objects: Arc::default(), evictions: BTreeMap::new() }
    }
}

/// Writes until `stop`. What could not be written is tried again with the next change of the clock. What was written
/// goes by the identity of the object: one that was made anew starts from nothing.
pub async fn write_progress(cluster: Cluster, mut standings: watch::Receiver<Standing>, stop: CancellationToken) {
    let mut written: BTreeMap<String, PackageDistributionStatus> = BTreeMap::new();
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let standing = standings.borrow_and_update().clone();
        written.retain(|uid, _| standing.objects.values().any(|object| object.uid == *uid));
        told.retain(|uid, _| standing.objects.values().any(|object| object.uid == *uid));
        for (key, uid, status) in statuses(&standing) {
            if written.get(uid) == Some(&status) {
                continue;
            }
            let error = match timeout(ANSWER_TIMEOUT, write(&cluster, key, uid, &status)).await {
                Ok(Ok(())) => {
                    written.insert(uid.clone(), status);
                    if told.remove(uid).is_some() {
                        tracing::info!(package = %key, "progress is written again");
                    }
                    continue;
                }
                // It was deleted a moment ago, and perhaps made anew.
                Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, 404 | 409) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            // Said once: the API server may be away for hours.
            if told.get(uid) != Some(&error) {
                tracing::warn!(error, package = %key, "progress cannot be written and is tried again");
                told.insert(uid.clone(), error);
            }
        }
        // What an object waits for within a round differs from round to round: the next one begins a second after all of
        // this one was answered.
        ticks.reset();
    }
}

/// What each object is told: who holds it still if it was deleted, why it is refused, or how far it is.
fn statuses(standing: &Standing) -> Vec<(&DistributionKey, &String, PackageDistributionStatus)> {
    let Standing { snapshot, objects, evictions } = standing;
    let status = |key: &DistributionKey, object: &PackageObject| match &object.refusal {
        _ if object.is_deleted => evictions.get(key).map(|holding| eviction(holding)),
        Some(refusal) => Some(refused(object.generation, refusal)),
        None => snapshot.packages.iter().find(|package| *key == key_of(package)).map(status_of),
    };
    objects.iter().filter_map(|(key, object)| Some((key, &object.uid, status(key, object)?))).collect()
}

fn eviction(holding: &[NodeName]) -> PackageDistributionStatus {
    let named = holding.iter().take(SLOWEST_MAX).map(ToString::to_string).collect();
    let eviction = Some(Eviction { nodes: count(holding.len()), named });
    PackageDistributionStatus { eviction, ..PackageDistributionStatus::default() }
}

/// What may be in force of an older form says nothing about this one.
fn refused(generation: i64, refusal: &ObjectError) -> PackageDistributionStatus {
    let message = match refusal.field.as_str() {
        "" => refusal.message.clone(),
        field => format!("{field}: {}", refusal.message),
    };
    PackageDistributionStatus {
        progress_generation: Some(generation),
        failure: Some(IngestFailure {
            reason: refusal.reason.clone(),
            message: shortened(&message, FAILURE_CHARS_MAX),
            needs_edit: !HEAL_WITHOUT_EDIT.contains(&refusal.reason.as_str()),
        }),
        ..PackageDistributionStatus::default()
    }
}

fn key_of(package: &PackageStatus) -> DistributionKey {
    DistributionKey { namespace: package.namespace.clone(), name: package.name.clone() }
}

async fn write(
    cluster: &Cluster,
    key: &DistributionKey,
    uid: &str,
    status: &PackageDistributionStatus,
) -> Result<(), kube::Error> {
    let api: Api<Readable<PackageDistribution>> = Api::namespaced(cluster.client.clone(), key.namespace.as_str());
    let body = json!({
        "apiVersion": peerdist_crds::API_VERSION,
        "kind": "PackageDistribution",
        // An object of another identity does not take it.
        "metadata": {"name": key.name.as_str(), "uid": uid},
        "status": status,
    });
    let parameters = PatchParams::apply(SERVER_FIELD_MANAGER).force();
    api.patch_status(key.name.as_str(), &parameters, &Patch::Apply(&body)).await.map(|_| ())
}

fn status_of(package: &PackageStatus) -> PackageDistributionStatus {
    let targeted = || package.offices.iter().filter(|office| office.targeted);
    let all = || package.offices.iter().flat_map(|office| &office.nodes);
    let nodes = || targeted().flat_map(|office| &office.nodes);
    let sum = |of: fn(&NodeStatus) -> u64| number(all().map(of).sum());
    PackageDistributionStatus {
        observed_generation: None,
        progress_generation: i64::try_from(package.generation).ok(),
        digest: package.digest.map(|digest| digest.to_string()),
        bytes: Some(ByteCounts {
            total: number(package.bytes),
            origin: number(package.bytes_ingested),
            wan: sum(|node| node.wan_bytes_received),
            lan: sum(|node| node.lan_bytes_received),
        }),
        failure: package.error.as_ref().map(|error| IngestFailure {
            reason: error.reason.clone(),
            message: shortened(&error.message, FAILURE_CHARS_MAX),
            needs_edit: package.needs_edit,
        }),
        offices: Some(OfficeCounts {
            targeted: count(targeted().count()),
            complete: count(targeted().filter(|office| !office.nodes.is_empty() && office.is_complete()).count()),
            transit: count(package.offices.iter().filter(|office| office.transit).count()),
        }),
        nodes: Some(NodeCounts {
            targeted: count(nodes().count()),
            complete: count(nodes().filter(|node| node.complete).count()),
            failed: count(nodes().filter(|node| !node.complete && !node.unreachable && node.error.is_some()).count()),
            unreachable: count(nodes().filter(|node| !node.complete && node.unreachable).count()),
        }),
        percent: Some(percent(package)),
        eta_seconds: nodes().filter_map(|node| node.eta_seconds).max().map(number),
        slowest: slowest(targeted()),
        eviction: None,
        conditions: Vec::new(),
    }
}

fn percent(package: &PackageStatus) -> i32 {
    let targeted = || package.offices.iter().filter(|office| office.targeted);
    let nodes: u64 = targeted().map(|office| office.nodes.len() as u64).sum();
    let held = targeted().map(OfficeStatus::bytes).sum();
    let complete = nodes > 0 && package.is_complete();
    i32::from(crate::status::percent(held, package.bytes.saturating_mul(nodes), complete))
}

/// Those that failed first, then those that hold least.
fn slowest<'a>(offices: impl Iterator<Item = &'a OfficeStatus>) -> Vec<SlowNode> {
    let of_office = |office: &'a OfficeStatus| office.nodes.iter().map(move |node| (office, node));
    let mut behind: Vec<(&OfficeStatus, &NodeStatus)> =
        offices.flat_map(of_office).filter(|(_, node)| !node.complete).collect();
    behind.sort_by_key(|(office, node)| (node.error.is_none(), node.percent, &office.name, &node.name));
    behind.truncate(SLOWEST_MAX);
    let slow = |(office, node): (&OfficeStatus, &NodeStatus)| SlowNode {
        office: office.name.to_string(),
        node: node.name.to_string(),
        percent: node.percent.into(),
        source: node.source.map(|source| source.to_string()).unwrap_or_default(),
        message: match node.error.as_ref().or(node.waits.as_ref()) {
            Some(error) => shortened(&error.message, MESSAGE_CHARS_MAX),
            None if node.unreachable => "not heard for ten minutes: look at the node and its link".to_owned(),
            None => String::new(),
        },
    };
    behind.into_iter().map(slow).collect()
}

fn shortened(message: &str, chars_max: usize) -> String {
    message.chars().take(chars_max).collect()
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ErrorScope;
    use crate::status::tests::snapshot_under_way;

    #[test]
    fn totals_leave_transit_offices_out_and_name_who_is_behind() {
        let package = &snapshot_under_way().packages[0];
        let status = status_of(package);
        assert_eq!(status.progress_generation, Some(3));
        assert_eq!(status.offices, Some(OfficeCounts { targeted: 1, complete: 0, transit: 1 }));
        assert_eq!(status.nodes, Some(NodeCounts { targeted: 2, complete: 0, failed: 1, unreachable: 0 }));
        assert_eq!((status.percent, status.eta_seconds), (Some(30), Some(8)));
        let slow: Vec<(&str, i32)> = status.slowest.iter().map(|slow| (slow.node.as_str(), slow.percent)).collect();
        assert_eq!(slow, [("store-1-2", 20), ("store-1-1", 40)], "the failing one first");
        assert!(status.slowest[0].message.contains("need 100 MiB"));
        assert!(status.conditions.is_empty() && status.observed_generation.is_none(), "those are the operator's");
    }

    #[test]
    fn each_object_is_told_what_is_true_of_its_own_identity() {
        let snapshot = Arc::new(snapshot_under_way());
        let key = key_of(&snapshot.packages[0]);
        let told = |refusal: Option<ObjectError>, is_deleted: bool, holding: &[&str]| {
            let object = PackageObject { uid: "u".to_owned(), generation: 9, is_deleted, refusal };
            let holding = holding.iter().map(|name| NodeName::new(name).unwrap()).collect();
            let objects = Arc::new(BTreeMap::from([(key.clone(), object)]));
            let evictions = BTreeMap::from([(key.clone(), holding)]);
            let standing = Standing { snapshot: snapshot.clone(), objects, evictions };
            let (_, uid, status) = statuses(&standing).pop().unwrap();
            assert_eq!(uid, "u");
            status
        };
        assert_eq!(told(None, false, &[]).progress_generation, Some(3));
        let refusal = ObjectError {
            object: String::new(),
            field: "spec.version".to_owned(),
            reason: "VersionReused".to_owned(),
            message: "m".to_owned(),
            scope: ErrorScope::Object,
        };
        let refused = told(Some(refusal.clone()), false, &[]);
        assert_eq!((refused.progress_generation, refused.digest, refused.nodes), (Some(9), None, None));
        let failure = refused.failure.unwrap();
        assert_eq!((failure.message.as_str(), failure.needs_edit), ("spec.version: m", true));
        for reason in HEAL_WITHOUT_EDIT {
            let refusal = ObjectError { reason: reason.to_owned(), ..refusal.clone() };
            assert!(!told(Some(refusal), false, &[]).failure.unwrap().needs_edit, "{reason}");
        }
        let eviction = told(Some(refusal), true, &["till-1"]).eviction.unwrap();
        assert_eq!((eviction.nodes, eviction.named), (1, vec!["till-1".to_owned()]));
        assert_eq!(told(None, true, &[]).eviction.map(|eviction| eviction.nodes), Some(0));
    }

    #[test]
    fn nothing_is_complete_without_nodes() {
        let mut package = snapshot_under_way().packages.remove(0);
        package.offices.iter_mut().for_each(|office| office.nodes.clear());
        let status = status_of(&package);
        assert_eq!((status.percent, status.offices.map(|offices| offices.complete)), (Some(0), Some(0)));
    }
}
