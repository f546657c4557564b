//! A node: its labels, addresses and pod networks, and among these what other addresses it has. The version is that of the
//! object, which a write of its label names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::Labels;
use crate::fleet::NodeView;

/// A node. Its metadata has name and version only: labels are in the view.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Told")]
pub struct HeldNode {
    metadata: ObjectMeta,
    /// What counts of it.
    pub view: NodeView,
    /// Whether it is said to be not ready. Nobody is told when that changes.
    pub is_away: bool,
}

stands_for!(HeldNode, Node);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    resource_version: Option<String>,
    labels: Labels,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl From<Told> for HeldNode {
    fn from(told: Told) -> Self {
        let Told { metadata: Metadata { name, resource_version, labels }, spec, status } = told;
        let Status { addresses, conditions } = status.unwrap_or_default();
        let ready = conditions.into_iter().flatten().find(|condition| condition.kind == "Ready");
        let (addresses, others) = sorted(addresses.unwrap_or_default());
        let mut networks = spec.map(networks_of_pods).unwrap_or_default();
        // They count where networks of pods do, and nowhere else: no source may lead there. Few nodes have any.
        networks.extend(others.into_iter().map(IpNet::from));
        networks.shrink_to_fit();
        let view = NodeView { name: name.clone().unwrap_or_default(), labels, addresses, networks };
        let metadata = ObjectMeta { name, resource_version, ..ObjectMeta::default() };
        Self { metadata, view, is_away: ready.is_some_and(|ready| ready.status != "True") }
    }
}

/// The addresses of the type InternalIP, and those that are told as something else alone, as an ExternalIP mostly, or as a
/// name where nodes are called by their addresses.
fn sorted(told: Vec<Address>) -> (Vec<IpAddr>, BTreeSet<IpAddr>) {
    let (mut internal, mut others) = (Vec::new(), BTreeSet::new());
    for Address { kind, address } in told {
        let Ok(address) = address.parse::<IpAddr>() else { continue };
        if kind == "InternalIP" {
            internal.push(address);
        } else {
            others.insert(address);
        }
    }
    internal.shrink_to_fit();
    others.retain(|address| !internal.contains(address));
    (internal, others)
}

/// The first one is told twice.
fn networks_of_pods(spec: Spec) -> Vec<IpNet> {
    let Spec { pod_cidr, pod_cidrs } = spec;
    let texts: BTreeSet<String> = pod_cidr.into_iter().chain(pod_cidrs.into_iter().flatten()).collect();
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use kube::{Resource, ResourceExt};
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_whole_node_that_is_kept_which_counts() {
        let managed = json!([{
            "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:images": {}}}, "subresource": "status",
        }]);
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "till-1", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"site": "store", "kubernetes.io/os": "linux"}, "annotations": {"a": "b"},
                "managedFields": managed,
            },
            "spec": {
                "podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"], "providerID": "x",
                "taints": [{"key": "a", "effect": "NoSchedule"}],
            },
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "10.1.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
                    {"type": "InternalIP", "address": "rubbish"}, {"type": "Hostname", "address": "till-1"},
                    {"type": "ExternalIP", "address": "192.0.2.7"}, {"type": "ExternalIP", "address": "10.1.0.1"},
                    {"type": "InternalDNS", "address": "192.0.2.7"},
                ],
                "allocatable": {"cpu": "4"}, "capacity": {"cpu": "4"}, "conditions": [condition],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}, "images": [{"names": ["x"], "sizeBytes": 1}],
                "nodeInfo": {"kubeletVersion": "v1.36.0"},
            },
        });
        let node: HeldNode = serde_json::from_str(&object.to_string()).unwrap();
        assert_eq!((node.name_any().as_str(), node.resource_version().as_deref()), ("till-1", Some("7")));
        assert_eq!((HeldNode::kind(&()), HeldNode::url_path(&(), None)), ("Node".into(), "/api/v1/nodes".to_owned()));
        let NodeView { name, labels, addresses, networks: found } = &node.view;
        assert_eq!((name.as_str(), labels.get("site"), labels.iter().count()), ("till-1", Some("store"), 2));
        assert_eq!(*addresses, ["10.1.0.1", "fd00::1"].map(|address| address.parse::<std::net::IpAddr>().unwrap()));
        let networks = ["10.244.0.0/24", "fd00::/64", "192.0.2.7/32"];
        assert_eq!(*found, networks.map(|network| network.parse::<IpNet>().unwrap()));
        assert!(!node.is_away);
    }

    #[test]
    fn a_node_is_away_when_its_condition_says_so_and_not_before_it_has_one() {
        let condition = |kind: &str, status: &str| json!([{"type": kind, "status": status}]);
        for (conditions, expected) in [
            (condition("Ready", "True"), false),
            (condition("Ready", "False"), true),
            (condition("Ready", "Unknown"), true),
            (condition("DiskPressure", "False"), false),
            (json!(null), false),
        ] {
            let told = json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}});
            assert_eq!(serde_json::from_value::<HeldNode>(told).unwrap().is_away, expected, "{conditions}");
        }
    }

    #[test]
    fn a_node_may_say_nothing_but_its_name() {
        let node: HeldNode = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        assert_eq!(node.view, NodeView { name: "n".to_owned(), ..NodeView::default() });
    }
}
