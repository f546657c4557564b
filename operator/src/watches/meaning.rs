//! What a change of an object means to the others, and which parts of an object are kept. Pure. A change that changes
//! nothing for us means nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};

use crate::fleet::NodeView;
use crate::held::{HeldDaemonSet, HeldNode, HeldPod};
use crate::office::is_observed;
use crate::starting::{Obstacle, StartFailure};

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// A cache was filled anew.
    Everything,
    /// An Office or a node, in what counts for the others.
    Fleet,
    /// An Office, or an object that belongs to it.
    Office(String),
    /// How many nodes an Office has.
    Counts(String),
    /// Which nodes the DaemonSet of an Office selects: it is new, gone, or selects by other labels.
    Standing(String),
    /// A PackageDistribution: namespace and name.
    Package(String, String),
    /// A VescEndpoint: namespace and name.
    Vesc(String, String),
    /// A node, in its addresses or the networks of its pods.
    Networks,
    /// The server's pod, its identity, or a network of services.
    Server,
    /// The server of an Office is gone.
    ServerGone(String),
    /// What keeps clients from starting, in the Office with this value of the label.
    Starting(String),
}

pub(super) fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

pub(super) fn office(before: Option<&Office>, after: Option<&Office>) -> Option<Touch> {
    let judged = |office: &Office| {
        let meta = &office.metadata;
        (office.spec.clone(), meta.labels.clone(), meta.uid.clone(), meta.creation_timestamp.clone())
    };
    let name = after.or(before)?.name_any();
    let same = before.map(judged) == after.map(judged) && before.map(generation) == after.map(generation);
    Some(if same { Touch::Office(name) } else { Touch::Fleet })
}

fn generation<K: Resource>(object: &K) -> Option<i64> {
    object.meta().generation
}

pub(super) fn package(_: Option<&PackageDistribution>, after: Option<&PackageDistribution>) -> Option<Touch> {
    let after = after?;
    Some(Touch::Package(after.namespace().unwrap_or_default(), after.name_any()))
}

pub(super) fn vesc(_: Option<&VescEndpoint>, after: Option<&VescEndpoint>) -> Option<Touch> {
    let after = after?;
    Some(Touch::Vesc(after.namespace().unwrap_or_default(), after.name_any()))
}

pub(super) fn node(before: Option<&HeldNode>, after: Option<&HeldNode>) -> Option<Touch> {
    let (was, is) = (before.map(|node| &node.view), after.map(|node| &node.view));
    if was.map(networks) != is.map(networks) {
        return Some(Touch::Networks);
    }
    (was != is).then_some(Touch::Fleet)
}

fn networks(view: &NodeView) -> (&[IpAddr], &[IpNet]) {
    (&view.addresses, &view.networks)
}

/// A ConfigMap that belongs to no Office tells clients whom to trust, which is the server's matter.
pub(super) fn config_map(before: Option<&ConfigMap>, after: Option<&ConfigMap>) -> Option<Touch> {
    owned(before, after).or(Some(Touch::Server))
}

pub(super) fn secret(before: Option<&Secret>, after: Option<&Secret>) -> Option<Touch> {
    let counts = |secret: &Secret| (secret.data.clone(), secret.metadata.annotations.clone());
    (before.map(counts) != after.map(counts)).then_some(Touch::Server)
}

pub(super) fn server_pod(before: Option<&HeldPod>, after: Option<&HeldPod>) -> Option<Touch> {
    let counts = |pod: &HeldPod| (pod.metadata.deletion_timestamp.clone(), pod.host.clone(), start(pod));
    (before.map(counts) != after.map(counts)).then_some(Touch::Server)
}

pub(super) fn service_network(_: Option<&ServiceCIDR>, _: Option<&ServiceCIDR>) -> Option<Touch> {
    Some(Touch::Server)
}

/// Pods leave this cache when they start.
pub(super) fn pending_pod(before: Option<&HeldPod>, after: Option<&HeldPod>) -> Option<Touch> {
    let office = after.or(before)?.office.clone()?;
    let kept = |pod: Option<&HeldPod>| pod.map(start).unwrap_or_default();
    (kept(before) != kept(after)).then_some(Touch::Starting(office))
}

/// What keeps a pod from starting.
fn start(pod: &HeldPod) -> (Option<StartFailure>, Option<Obstacle>) {
    (pod.failure.clone(), pod.obstacle.clone())
}

/// What belongs to an Office is looked at when it changes in any way: by us, by Kubernetes, or by somebody's hand.
pub(super) fn owned<K: Resource>(before: Option<&K>, after: Option<&K>) -> Option<Touch> {
    Some(Touch::Office(office_of(after.or(before)?)?.name.clone()))
}

pub(super) fn daemon_set(before: Option<&HeldDaemonSet>, after: Option<&HeldDaemonSet>) -> Option<Touch> {
    let Touch::Office(office) = owned(before, after)? else { return None };
    let counted = |set: &HeldDaemonSet| {
        let status = set.status.as_ref().filter(|_| is_observed(set))?;
        Some(status.desired_number_scheduled)
    };
    let (was, is) = (before.and_then(counted), after.and_then(counted));
    if before.map(|set| &set.node_selector) != after.map(|set| &set.node_selector) {
        Some(Touch::Standing(office))
    } else if is.is_some() && was != is {
        Some(Touch::Counts(office))
    } else {
        Some(Touch::Office(office))
    }
}

/// Without a server nobody tells any more which nodes still hold a package.
pub(super) fn stateful_set(before: Option<&StatefulSet>, after: Option<&StatefulSet>) -> Option<Touch> {
    match (owned(before, after)?, after) {
        (Touch::Office(office), None) => Some(Touch::ServerGone(office)),
        (touch, _) => Some(touch),
    }
}

/// The Office that an object belongs to.
pub(super) fn office_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.as_ref()?.iter().find(|owner| owner.kind == "Office")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::tests::{office as office_object, site};
    use crate::preflight::tests::pod;

    fn node_object(heartbeat: &str, label: &str) -> HeldNode {
        let object: Value = json!({
            "metadata": {"name": "n", "resourceVersion": heartbeat, "labels": {"site": label}, "annotations": {"a": "b"}},
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
                "images": [{"names": ["x"]}],
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_heartbeat_of_a_node_is_not_told() {
        let (before, after) = (node_object("1", "hq"), node_object("2", "hq"));
        assert_eq!(node(Some(&before), Some(&after)), None);
        assert_eq!(node(Some(&before), Some(&node_object("2", "store"))), Some(Touch::Fleet));
        assert_eq!(node(Some(&before), None), Some(Touch::Networks));
    }

    #[test]
    fn an_office_is_judged_anew_only_when_what_counts_has_changed() {
        let before = office_object("store", 1, site("store", Some("hub")));
        let mut after = before.clone();
        after.status = Some(peerdist_crds::OfficeStatus { observed_generation: Some(1), ..Default::default() });
        assert_eq!(office(Some(&before), Some(&after)), Some(Touch::Office("store".to_owned())));
        let edited = office_object("store", 1, site("other", Some("hub")));
        assert_eq!(office(Some(&before), Some(&edited)), Some(Touch::Fleet));
        assert_eq!(office(Some(&before), None), Some(Touch::Fleet));
    }

    #[test]
    fn a_pod_that_waits_is_told_only_when_something_keeps_it_from_starting_or_does_no_more() {
        let waits = |reason: &str| pod("till-1", json!({"state": {"waiting": {"reason": reason}}}));
        let said = json!({"lastState": {"terminated": {"exitCode": 2, "message": "PortInUse: x"}}});
        let told = Some(Touch::Starting("store".to_owned()));
        let fine = waits("ContainerCreating");
        assert_eq!(pending_pod(None, Some(&fine)), None);
        for fails in [pod("till-1", said), waits("ErrImagePull"), waits("CrashLoopBackOff")] {
            assert_eq!(pending_pod(Some(&fine), Some(&fails)), told);
            assert_eq!(pending_pod(Some(&fails), Some(&fails)), None);
            assert_eq!(pending_pod(Some(&fails), None), told);
            assert_eq!(server_pod(Some(&fine), Some(&fails)), Some(Touch::Server));
            assert_eq!(server_pod(Some(&fails), Some(&fails)), None);
        }
        assert_eq!(pending_pod(Some(&waits("ErrImagePull")), Some(&waits("ImagePullBackOff"))), None);
    }

    #[test]
    fn what_belongs_to_an_office_leads_to_it() {
        let set = |desired: i32| -> HeldDaemonSet {
            let owner = json!({"apiVersion": "peerdist.io/v1alpha1", "kind": "Office", "name": "store", "uid": "u"});
            let status = json!({"observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
            let metadata = json!({"name": "x", "generation": 1, "ownerReferences": [owner]});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let counts = |office: &str| Some(Touch::Counts(office.to_owned()));
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(1))), Some(Touch::Office("store".to_owned())));
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(2))), counts("store"));
        let not_counted = HeldDaemonSet { status: None, ..set(2) };
        assert_eq!(daemon_set(Some(&set(2)), Some(&not_counted)), Some(Touch::Office("store".to_owned())));
        assert_eq!(daemon_set(Some(&not_counted), Some(&set(2))), counts("store"));
        assert_eq!(daemon_set(None, Some(&set(1))), Some(Touch::Standing("store".to_owned())));
        assert_eq!(daemon_set(Some(&set(1)), None), Some(Touch::Standing("store".to_owned())));
        assert_eq!(owned::<ConfigMap>(Some(&ConfigMap::default()), None), None);
        let server = StatefulSet { metadata: set(1).metadata, ..StatefulSet::default() };
        assert_eq!(stateful_set(None, Some(&server)), Some(Touch::Office("store".to_owned())));
        assert_eq!(stateful_set(Some(&server), None), Some(Touch::ServerGone("store".to_owned())));
    }
}
