//! Which nodes of the cluster are the Central Office, and which the store.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use peerdist_e2e_cluster::commands::Commands;
use serde_json::Value;

/// A node of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// The nodes of both offices.
pub(crate) struct Sites {
    pub(crate) central: Vec<Node>,
    pub(crate) store: Vec<Node>,
}

impl Sites {
    /// By name: of five nodes, two are the Central Office.
    pub(crate) fn of(commands: &Commands) -> Result<Self> {
        let listed: Value = serde_json::from_str(&commands.kubectl(&["get", "nodes", "--output", "json"])?)?;
        let nodes = listed["items"].as_array().into_iter().flatten().map(node);
        let mut nodes = nodes.collect::<Result<Vec<Node>>>()?;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        ensure!(nodes.len() >= 2, "the cluster has {} nodes: expected 2 or more", nodes.len());
        let central = (nodes.len() * 2 / 5).max(1);
        let store = nodes.split_off(central);
        Ok(Self { central: nodes, store })
    }

    /// All nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Node> {
        self.central.iter().chain(&self.store)
    }

    /// The subnet of the store, if no node of the Central Office lies in it.
    pub(crate) fn subnet(&self) -> Option<String> {
        let subnet = |node: &Node| {
            let [a, b, c, _] = node.address.octets();
            Ipv4Addr::new(a, b, c, 0)
        };
        let own = subnet(self.store.first()?);
        let is_own = self.store.iter().all(|node| subnet(node) == own);
        (is_own && self.central.iter().all(|node| subnet(node) != own)).then(|| format!("{own}/24"))
    }
}

fn node(value: &Value) -> Result<Node> {
    let name = value["metadata"]["name"].as_str().context("a name")?.to_owned();
    let addresses = value["status"]["addresses"].as_array().into_iter().flatten();
    let internal = addresses.filter(|address| address["type"] == "InternalIP").find_map(|one| one["address"].as_str());
    let address = internal.with_context(|| format!("{name} has no internal address"))?.parse()?;
    Ok(Node { name, address })
}
