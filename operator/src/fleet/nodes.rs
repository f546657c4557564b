//! Which node belongs to which office: by the labels that the user gave the node, or by its InternalIP. A node of two
//! offices stays with the one that came first, and the other is refused as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use peerdist_core::names::OfficeName;
use peerdist_crds::office::NodeSelection;

use super::{Refusal, ValidOffice, Verdict};
use crate::names::{ASSIGNED_OFFICE_LABEL, label_value};

/// What counts of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses of the type InternalIP.
    pub addresses: Vec<IpAddr>,
}

impl NodeView {
    /// What counts of a node of the cluster.
    pub fn of(node: &Node) -> Self {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        }
    }

    fn assigned(&self) -> Option<&str> {
        self.labels.get(ASSIGNED_OFFICE_LABEL).map(String::as_str)
    }
}

/// What the operator's label on a node must become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// This value.
    Office(String),
    /// No label.
    None,
}

/// Offices that have their nodes for themselves, and the others with reasons. The offices come in the order of
/// precedence.
pub(super) fn judge(offices: Vec<ValidOffice>, nodes: &[NodeView]) -> (Vec<ValidOffice>, Vec<(OfficeName, Refusal)>) {
    let claims = claims(&offices, nodes);
    let mut taken: BTreeMap<usize, OfficeName> = BTreeMap::new();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (office, claimed) in offices.into_iter().zip(claims) {
        let conflict = claimed.iter().find_map(|node| Some((*node, taken.get(node)?.clone())));
        match conflict {
            Some((node, holder)) => {
                let refusal = in_two_offices(&office, &nodes[node].name, &holder);
                refused.push((office.office.name, refusal));
            }
            None => {
                taken.extend(claimed.into_iter().map(|node| (node, office.office.name.clone())));
                accepted.push(office);
            }
        }
    }
    (accepted, refused)
}

/// The labels that must change. A node of an office that is refused for now keeps the label it has, and so does one
/// that tells no address.
pub(super) fn assign(
    accepted: &[ValidOffice],
    refused: &BTreeMap<String, Verdict>,
    nodes: &[NodeView],
) -> BTreeMap<String, Assignment> {
    let by_subnet: Vec<ValidOffice> =
        accepted.iter().filter(|office| matches!(office.selection, NodeSelection::Subnets(_))).cloned().collect();
    let mut wanted: Vec<Option<String>> = vec![None; nodes.len()];
    for (office, claimed) in by_subnet.iter().zip(claims(&by_subnet, nodes)) {
        for node in claimed {
            wanted[node] = Some(label_value(office.office.name.as_str()));
        }
    }
    let resting: BTreeSet<String> = refused.keys().map(|name| label_value(name)).collect();
    let known: BTreeSet<String> = by_subnet.iter().map(|office| label_value(office.office.name.as_str())).collect();
    let mut changes = BTreeMap::new();
    for (node, wanted) in nodes.iter().zip(wanted) {
        let keeps = |label: &str| resting.contains(label) || (node.addresses.is_empty() && known.contains(label));
        match (node.assigned(), wanted) {
            (found, Some(wanted)) if found != Some(wanted.as_str()) => {
                changes.insert(node.name.clone(), Assignment::Office(wanted));
            }
            (Some(found), None) if !keeps(found) => {
                changes.insert(node.name.clone(), Assignment::None);
            }
            _ => {}
        }
    }
    changes
}

fn in_two_offices(office: &ValidOffice, node: &str, holder: &OfficeName) -> Refusal {
    let field = match office.selection {
        NodeSelection::Labels(_) => "spec.nodeSelector",
        NodeSelection::Subnets(_) => "spec.subnets",
    };
    Refusal {
        field: field.to_owned(),
        reason: "NodeInTwoOffices",
        message: format!(
            "node {node} belongs to office {holder} already: expected nodes of no other office; narrow {field} of \
             {} or of {holder}, or change the node",
            office.office.name
        ),
        stalled: false,
    }
}

/// For each office the nodes it selects, by index. Each node looks its offices up by its own labels and addresses, so
/// that the cost grows with nodes plus offices and not with their product.
fn claims(offices: &[ValidOffice], nodes: &[NodeView]) -> Vec<Vec<usize>> {
    let index = Index::new(offices);
    let mut claims = vec![Vec::new(); offices.len()];
    for (node_index, node) in nodes.iter().enumerate() {
        for office in index.offices_of(node) {
            claims[office].push(node_index);
        }
    }
    claims
}

/// An office by index, with all labels that its nodes must have.
type Labelled<'offices> = (usize, &'offices BTreeMap<String, String>);

struct Index<'offices> {
    by_label: BTreeMap<(&'offices str, &'offices str), Vec<Labelled<'offices>>>,
    by_subnet: BTreeMap<IpNet, Vec<usize>>,
    prefix_lengths: BTreeSet<u8>,
}

impl<'offices> Index<'offices> {
    fn new(offices: &'offices [ValidOffice]) -> Self {
        let mut index = Self { by_label: BTreeMap::new(), by_subnet: BTreeMap::new(), prefix_lengths: BTreeSet::new() };
        for (office, valid) in offices.iter().enumerate() {
            match &valid.selection {
                NodeSelection::Labels(labels) => index.add_labels(office, labels),
                NodeSelection::Subnets(subnets) => index.add_subnets(office, subnets),
            }
        }
        index
    }

    /// One of the labels leads to the office, the others are compared then.
    fn add_labels(&mut self, office: usize, labels: &'offices BTreeMap<String, String>) {
        if let Some((key, value)) = labels.iter().next() {
            self.by_label.entry((key, value)).or_default().push((office, labels));
        }
    }

    fn add_subnets(&mut self, office: usize, subnets: &[IpNet]) {
        for subnet in subnets {
            self.prefix_lengths.insert(subnet.prefix_len());
            self.by_subnet.entry(*subnet).or_default().push(office);
        }
    }

    fn offices_of(&self, node: &NodeView) -> BTreeSet<usize> {
        let by_label = node.labels.iter().flat_map(|(key, value)| {
            let candidates = self.by_label.get(&(key.as_str(), value.as_str())).into_iter().flatten();
            candidates.filter(|(_, labels)| labels.iter().all(|(key, value)| node.labels.get(key) == Some(value)))
        });
        let networks = node.addresses.iter().flat_map(|address| {
            let lengths = self.prefix_lengths.iter();
            lengths.filter_map(|length| Some(IpNet::new(*address, *length).ok()?.trunc()))
        });
        let by_subnet = networks.flat_map(|network| self.by_subnet.get(&network).into_iter().flatten());
        by_label.map(|(office, _)| *office).chain(by_subnet.copied()).collect()
    }
}
