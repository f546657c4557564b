//! Where the server is and was, as its ConfigMap tells it: clients follow the address, and what it left on other nodes is
//! removed with the installation. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::held::HeldPod;
use crate::names::{SERVER_ADDRESS_KEY, SERVER_NODES_KEY};

/// Nodes that are remembered: many more than a server moves between in years.
const NODES_MAX: usize = 32;

/// Where the server runs, or ran last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Address of its node.
    pub address: IpAddr,
    /// Names of the nodes on which it was, each once, the latest last.
    pub nodes: Vec<String>,
}

/// Where it runs, or ran last: while it moves, the old address is better than none. `None`: it never ran.
pub(super) fn place(pods: &[Arc<HeldPod>], config_map: Option<&ConfigMap>) -> Option<Place> {
    let mut nodes = config_map.map(nodes_of).unwrap_or_default();
    let mut running = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let here = running.find_map(|pod| Some((pod.host.as_deref()?.parse().ok()?, pod.node.clone())));
    let (address, node) = match here {
        Some(here) => here,
        None => (value(config_map?, SERVER_ADDRESS_KEY)?.parse().ok()?, None),
    };
    if let Some(node) = node {
        nodes.retain(|known| *known != node);
        nodes.push(node);
    }
    nodes.drain(..nodes.len().saturating_sub(NODES_MAX));
    Some(Place { address, nodes })
}

/// Names of the nodes on which the server was, as its ConfigMap tells them.
pub fn nodes_of(config_map: &ConfigMap) -> Vec<String> {
    let lines = value(config_map, SERVER_NODES_KEY).unwrap_or_default().lines();
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn value<'map>(config_map: &'map ConfigMap, key: &str) -> Option<&'map str> {
    config_map.data.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, host: Option<&str>, ends: bool) -> Arc<HeldPod> {
        let mut pod = json!({"metadata": {"name": "peerdist-server-0"}, "spec": {"nodeName": node}});
        if let Some(host) = host {
            pod["status"] = json!({"hostIP": host});
        }
        if ends {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn map(address: &str, nodes: &str) -> ConfigMap {
        serde_json::from_value(json!({"data": {"address": address, "nodes": nodes}})).unwrap()
    }

    fn at(address: &str, nodes: &[&str]) -> Option<Place> {
        let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
        Some(Place { address: address.parse().unwrap(), nodes })
    }

    #[test]
    fn the_place_is_that_of_the_running_pod_and_the_last_one_while_it_moves() {
        let known = map("10.0.0.1", "a\n");
        let (leaves, waits) = (pod("a", Some("10.0.0.1"), true), pod("b", None, false));
        let here = pod("b", Some("10.0.0.2"), false);
        for (pods, config_map, expected) in [
            (vec![here.clone()], None, at("10.0.0.2", &["b"])),
            (vec![leaves.clone(), here], Some(&known), at("10.0.0.2", &["a", "b"])),
            (vec![leaves.clone(), waits], Some(&known), at("10.0.0.1", &["a"])),
            (vec![leaves], None, None),
            (vec![], Some(&known), at("10.0.0.1", &["a"])),
            (vec![], None, None),
            (vec![], Some(&ConfigMap::default()), None),
        ] {
            assert_eq!(place(&pods, config_map), expected, "{pods:?} {config_map:?}");
        }
    }

    #[test]
    fn a_node_is_named_once_the_latest_last_and_the_oldest_are_forgotten() {
        let run_on = |node: &str, nodes: &str| {
            place(&[pod(node, Some("10.0.0.9"), false)], Some(&map("10.0.0.1", nodes))).unwrap().nodes
        };
        assert_eq!(run_on("a", "a\nb\n"), ["b", "a"]);
        assert_eq!(run_on("b", "a\nb\n"), ["a", "b"]);
        assert_eq!(run_on("a", ""), ["a"]);
        let many: String = (0..NODES_MAX).map(|number| format!("n{number}\n")).collect();
        let nodes = run_on("here", &many);
        let ends = (nodes.len(), nodes.first().map(String::as_str), nodes.last().map(String::as_str));
        assert_eq!(ends, (NODES_MAX, Some("n1"), Some("here")));
        assert!(nodes_of(&ConfigMap::default()).is_empty(), "one of an older release tells no nodes");
    }
}
