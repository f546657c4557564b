//! What a change of an object means to the others, and which parts of an object are kept. Pure. A change that changes
//! nothing for us means nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeSpec, NodeStatus, Pod, PodSpec, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};

use crate::fleet::NodeView;
use crate::names::OFFICE_LABEL;
use crate::office::is_observed;
use crate::preflight::failure_of;

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
    /// What keeps clients from starting, in the Office with this value of the label.
    Preflight(String),
}

pub(super) fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

pub(super) fn strip_node(node: &mut Node) {
    strip(node);
    node.metadata.annotations = None;
    node.spec = node.spec.take().map(|spec| NodeSpec {
        pod_cidr: spec.pod_cidr,
        pod_cidrs: spec.pod_cidrs,
        ..NodeSpec::default()
    });
    let addresses = node.status.take().and_then(|status| status.addresses);
    node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
}

/// Of a pod its labels count, its node, and how its preflight ended.
pub(super) fn strip_pod(pod: &mut Pod) {
    strip(pod);
    pod.metadata.annotations = None;
    pod.spec = pod.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    if let Some(status) = &mut pod.status {
        (status.conditions, status.container_statuses) = (None, None);
    }
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

pub(super) fn node(before: Option<&Node>, after: Option<&Node>) -> Option<Touch> {
    let (was, is) = (before.map(NodeView::of), after.map(NodeView::of));
    let networks =
        |view: &Option<NodeView>| view.as_ref().map(|view| (view.addresses.clone(), view.pod_networks.clone()));
    if networks(&was) != networks(&is) {
        return Some(Touch::Networks);
    }
    (was != is).then_some(Touch::Fleet)
}

/// A ConfigMap that belongs to no Office tells clients whom to trust, which is the server's matter.
pub(super) fn config_map(before: Option<&ConfigMap>, after: Option<&ConfigMap>) -> Option<Touch> {
    owned(before, after).or(Some(Touch::Server))
}

pub(super) fn secret(before: Option<&Secret>, after: Option<&Secret>) -> Option<Touch> {
    let counts = |secret: &Secret| (secret.data.clone(), secret.metadata.annotations.clone());
    (before.map(counts) != after.map(counts)).then_some(Touch::Server)
}

pub(super) fn server_pod(before: Option<&Pod>, after: Option<&Pod>) -> Option<Touch> {
    let host = |pod: &Pod| {
        let host = pod.status.as_ref().and_then(|status| status.host_ip.clone());
        (pod.metadata.deletion_timestamp.clone(), host, failure_of(pod))
    };
    (before.map(host) != after.map(host)).then_some(Touch::Server)
}

pub(super) fn service_network(_: Option<&ServiceCIDR>, _: Option<&ServiceCIDR>) -> Option<Touch> {
    Some(Touch::Server)
}

/// Pods leave this cache when they start.
pub(super) fn pending_pod(before: Option<&Pod>, after: Option<&Pod>) -> Option<Touch> {
    let office = after.or(before)?.labels().get(OFFICE_LABEL)?.clone();
    (before.and_then(failure_of) != after.and_then(failure_of)).then_some(Touch::Preflight(office))
}

/// What belongs to an Office is looked at when it changes in any way: by us, by Kubernetes, or by somebody's hand.
pub(super) fn owned<K: Resource>(before: Option<&K>, after: Option<&K>) -> Option<Touch> {
    Some(Touch::Office(office_of(after.or(before)?)?.name.clone()))
}

pub(super) fn daemon_set(before: Option<&DaemonSet>, after: Option<&DaemonSet>) -> Option<Touch> {
    let Touch::Office(office) = owned(before, after)? else { return None };
    let counted = |set: &DaemonSet| {
        let status = set.status.as_ref().filter(|_| is_observed(set))?;
        Some(status.desired_number_scheduled)
    };
    let (was, is) = (before.and_then(counted), after.and_then(counted));
    if before.map(selected_labels) != after.map(selected_labels) {
        Some(Touch::Standing(office))
    } else if is.is_some() && was != is {
        Some(Touch::Counts(office))
    } else {
        Some(Touch::Office(office))
    }
}

/// The labels that a DaemonSet asks of its nodes.
pub(super) fn selected_labels(set: &DaemonSet) -> Option<&BTreeMap<String, String>> {
    set.spec.template.spec.as_ref()?.node_selector.as_ref()
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

    fn node_object(heartbeat: &str, label: &str) -> Node {
        let object: Value = json!({
            "metadata": {"name": "n", "resourceVersion": heartbeat, "labels": {"site": label}, "annotations": {"a": "b"}},
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
                "images": [{"names": ["x"]}],
            },
        });
        let mut node: Node = serde_json::from_value(object).unwrap();
        strip_node(&mut node);
        node
    }

    #[test]
    fn a_heartbeat_of_a_node_is_not_told_and_its_bulk_not_kept() {
        let (before, after) = (node_object("1", "hq"), node_object("2", "hq"));
        assert_eq!(node(Some(&before), Some(&after)), None);
        assert_eq!(node(Some(&before), Some(&node_object("2", "store"))), Some(Touch::Fleet));
        assert_eq!(node(Some(&before), None), Some(Touch::Networks));
        let status = after.status.unwrap();
        assert!(status.images.is_none() && after.metadata.annotations.is_none());
        assert_eq!(after.spec.and_then(|spec| spec.pod_cidr).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(status.addresses.unwrap().len(), 1);
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
    fn a_pod_that_waits_is_told_only_when_its_preflight_fails_or_passes() {
        let said = json!({"lastState": {"terminated": {"exitCode": 2, "message": "PortInUse: x"}}});
        let (waits, fails) = (pod("till-1", json!({})), pod("till-1", said));
        let told = Some(Touch::Preflight("store".to_owned()));
        assert_eq!(pending_pod(None, Some(&waits)), None);
        assert_eq!(pending_pod(Some(&waits), Some(&fails)), told);
        assert_eq!(pending_pod(Some(&fails), Some(&fails)), None);
        assert_eq!(pending_pod(Some(&fails), None), told);
        let mut stripped = Pod::clone(&fails);
        strip_pod(&mut stripped);
        assert_eq!(failure_of(&stripped), failure_of(&fails));
    }

    #[test]
    fn what_belongs_to_an_office_leads_to_it() {
        let set = |desired: i32| -> DaemonSet {
            let owner = json!({"apiVersion": "peerdist.io/v1alpha1", "kind": "Office", "name": "store", "uid": "u"});
            let status = json!({"observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
            let metadata = json!({"name": "x", "generation": 1, "ownerReferences": [owner]});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let counts = |office: &str| Some(Touch::Counts(office.to_owned()));
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(1))), Some(Touch::Office("store".to_owned())));
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(2))), counts("store"));
        let not_counted = DaemonSet { status: None, ..set(2) };
        assert_eq!(daemon_set(Some(&set(2)), Some(&not_counted)), Some(Touch::Office("store".to_owned())));
        assert_eq!(daemon_set(Some(&not_counted), Some(&set(2))), counts("store"));
        assert_eq!(daemon_set(None, Some(&set(1))), Some(Touch::Standing("store".to_owned())));
        assert_eq!(daemon_set(Some(&set(1)), None), Some(Touch::Standing("store".to_owned())));
        assert_eq!(owned::<ConfigMap>(Some(&ConfigMap::default()), None), None);
    }
}
