//! The networks that sources must not lead to: all addresses of nodes, networks of pods as the nodes tell them, networks of
//! services. A pod network that no node tells is the administrator's to name. Pure.

use std::borrow::Borrow;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::fleet::NodeView;
use crate::held::HeldNode;

/// All of them, in order and without those that lie in another.
pub fn forbidden_networks(
    nodes: impl IntoIterator<Item = impl Borrow<HeldNode>>,
    services: impl IntoIterator<Item = impl Borrow<ServiceCIDR>>,
) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    for node in nodes {
        // A node's addresses for the world outside are among the latter.
        let NodeView { addresses, networks: own, name: _, labels: _ } = &node.borrow().view;
        networks.extend(addresses.iter().copied().map(IpNet::from));
        networks.extend(own);
    }
    for service in services {
        let ranges = service.borrow().spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        networks.extend(ranges.filter_map(|range| range.parse::<IpNet>().ok()));
    }
    IpNet::aggregate(&networks)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nodes_pods_and_services_are_named_once_each() {
        let node = |address: &str, pods: Value| -> HeldNode {
            let addresses =
                json!([{"type": "InternalIP", "address": address}, {"type": "ExternalIP", "address": "8.8.8.8"}]);
            serde_json::from_value(json!({"spec": pods, "status": {"addresses": addresses}})).unwrap()
        };
        let nodes = [
            node("10.1.0.9", json!({"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]})),
            node("10.1.0.3", json!({"podCIDR": "10.244.0.0/24"})),
            node("10.1.0.3", json!({})),
        ];
        let services: ServiceCIDR =
            serde_json::from_value(json!({"spec": {"cidrs": ["10.96.0.0/12", "fd00:2::/112", "rubbish"]}})).unwrap();
        let networks: Vec<String> = forbidden_networks(&nodes, [services]).iter().map(ToString::to_string).collect();
        let outside = "8.8.8.8/32";
        let inside = ["10.1.0.3/32", "10.1.0.9/32", "10.96.0.0/12", "10.244.0.0/23", "fd00:1::/64", "fd00:2::/112"];
        assert_eq!(networks, [&[outside][..], &inside].concat());
    }
}
