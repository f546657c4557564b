//! Which node belongs to which office: by the labels that the user gave the node, or by its InternalIP. A node of two
//! offices stays with the one that came first, and the other is refused as a whole. What is in the cluster of a refused
//! office stays, but not on nodes that another one holds: such a node is labelled with its holder, and a DaemonSet
//! leaves out nodes that bear the label of another office.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use peerdist_crds::office::NodeSelection;

use super::{Refusal, ValidOffice, Verdict};
use crate::held::Labels;
use crate::names::{ASSIGNED_OFFICE_LABEL, label_value};

/// What counts of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses of the type InternalIP.
    pub addresses: Vec<IpAddr>,
    /// What else of it no source may lead to: networks of its pods, where the cluster gives each node its own, and its
    /// addresses of other types.
    pub networks: Vec<IpNet>,
}

impl NodeView {
    /// The value of the operator's label.
    pub fn assigned(&self) -> Option<&str> {
        self.labels.get(ASSIGNED_OFFICE_LABEL)
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

impl Assignment {
    /// The value of the label; `None`: there is to be none.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Office(label) => Some(label),
            Self::None => None,
        }
    }
}

/// Somebody who may hold nodes.
#[derive(Debug)]
pub(super) struct Claimant {
    /// Name of the office.
    pub(super) name: String,
    /// What it wants, as part of the tree; `None`: it is refused already.
    pub(super) valid: Option<ValidOffice>,
    /// What the DaemonSet selects that is in the cluster.
    pub(super) standing: Option<NodeSelection>,
}

/// Who has which nodes.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Offices that have their nodes for themselves.
    pub(super) accepted: Vec<ValidOffice>,
    /// The others that were part of the tree.
    pub(super) refused: Vec<(String, Refusal)>,
    /// The holder of a node, by the node's index.
    pub(super) holders: BTreeMap<usize, Holder>,
}

/// Who holds a node.
#[derive(Debug)]
pub(super) struct Holder {
    /// Name of the office.
    office: String,
    /// Whether the DaemonSet of another office, which is refused, selects the node too.
    contested: bool,
}

/// Gives nodes to claimants, which come in the order of precedence.
pub(super) fn judge(claimants: Vec<Claimant>, nodes: &[&NodeView]) -> Judged {
    let wanted = claims(claimants.iter().map(|claimant| Some(&claimant.valid.as_ref()?.selection)), nodes);
    let standing = claims(claimants.iter().map(|claimant| claimant.standing.as_ref()), nodes);
    let mut judged = Judged::default();
    for ((claimant, wanted), standing) in claimants.into_iter().zip(wanted).zip(standing) {
        let Claimant { name, valid, standing: selection } = claimant;
        let Some(valid) = valid else {
            judged.keep(&name, &standing, selection.as_ref());
            continue;
        };
        let conflict = wanted.iter().find_map(|node| Some((*node, judged.holders.get(node)?)));
        if let Some((node, holder)) = conflict {
            let refusal = in_two_offices(&valid, &nodes[node].name, &holder.office);
            judged.refused.push((name.clone(), refusal));
            judged.keep(&name, &standing, selection.as_ref());
        } else {
            let holder = || Holder { office: name.clone(), contested: false };
            judged.holders.extend(wanted.into_iter().map(|node| (node, holder())));
            judged.accepted.push(valid);
        }
    }
    judged
}

impl Judged {
    /// How many nodes each office holds that holds any.
    pub(super) fn counts(&self) -> BTreeMap<String, i32> {
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        for holder in self.holders.values() {
            match counts.get_mut(&holder.office) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    counts.insert(holder.office.clone(), 1);
                }
            }
        }
        counts
    }

    /// A refused office keeps the nodes on which it is, except those of others. A selection by the operator's own label
    /// ends with that label, so that nothing has to keep it away from a node.
    fn keep(&mut self, office: &str, standing: &[usize], selection: Option<&NodeSelection>) {
        let by_own_label =
            matches!(selection, Some(NodeSelection::Labels(labels)) if labels.contains_key(ASSIGNED_OFFICE_LABEL));
        for node in standing {
            let vacant = || Holder { office: office.to_owned(), contested: false };
            let holder = self.holders.entry(*node).or_insert_with(vacant);
            holder.contested |= holder.office != office && !by_own_label;
        }
    }
}

/// What is to be labelled.
#[derive(Debug, Default)]
pub(super) struct Labelling {
    /// By node.
    pub(super) changes: BTreeMap<String, Assignment>,
    /// Offices that get a node, or get it for themselves, only when its label has changed.
    pub(super) awaiting: BTreeSet<String>,
}

/// The labels that must change. A node of an office that is refused for now keeps the label it has unless another holds
/// the node, and so does one that tells no address.
pub(super) fn assign(
    accepted: &[ValidOffice],
    refused: &BTreeMap<String, Verdict>,
    holders: &BTreeMap<usize, Holder>,
    nodes: &[&NodeView],
) -> Labelling {
    let by_subnet: BTreeSet<&str> = accepted
        .iter()
        .filter(|office| matches!(office.selection, NodeSelection::Subnets(_)))
        .map(|office| office.office.name.as_str())
        .collect();
    let resting: BTreeSet<String> = refused.keys().map(|name| label_value(name)).collect();
    let known: BTreeSet<String> = by_subnet.iter().map(|name| label_value(name)).collect();
    let mut labelling = Labelling::default();
    for (index, node) in nodes.iter().enumerate() {
        let holder = holders.get(&index);
        let labelled = holder.filter(|holder| holder.contested || by_subnet.contains(holder.office.as_str()));
        let wanted = labelled.map(|holder| label_value(&holder.office));
        let keeps = |label: &str| {
            let of_another = holder.is_some_and(|holder| label_value(&holder.office) != label);
            (resting.contains(label) && !of_another) || (node.addresses.is_empty() && known.contains(label))
        };
        let change = match (node.assigned(), wanted) {
            (found, Some(wanted)) if found != Some(wanted.as_str()) => Assignment::Office(wanted),
            (Some(found), None) if !keeps(found) => Assignment::None,
            _ => continue,
        };
        let away = holder.filter(|holder| node.assigned() != Some(label_value(&holder.office).as_str()));
        labelling.awaiting.extend(away.map(|holder| holder.office.clone()));
        labelling.changes.insert(node.name.clone(), change);
    }
    labelling
}

fn in_two_offices(office: &ValidOffice, node: &str, holder: &str) -> Refusal {
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

/// For each selection the nodes it means, by index. Each node looks its offices up by its own labels and addresses, so
/// that the cost grows with nodes plus offices and not with their product.
fn claims<'selections>(
    selections: impl ExactSizeIterator<Item = Option<&'selections NodeSelection>>,
    nodes: &[&NodeView],
) -> Vec<Vec<usize>> {
    let mut claims = vec![Vec::new(); selections.len()];
    let index = Index::new(selections);
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
    fn new(selections: impl Iterator<Item = Option<&'offices NodeSelection>>) -> Self {
        let mut index = Self { by_label: BTreeMap::new(), by_subnet: BTreeMap::new(), prefix_lengths: BTreeSet::new() };
        for (office, selection) in selections.enumerate() {
            match selection {
                Some(NodeSelection::Labels(labels)) => index.add_labels(office, labels),
                Some(NodeSelection::Subnets(subnets)) => index.add_subnets(office, subnets),
                None => {}
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
            let candidates = self.by_label.get(&(key, value)).into_iter().flatten();
            candidates
                .filter(|(_, labels)| labels.iter().all(|(key, value)| node.labels.get(key) == Some(value.as_str())))
        });
        let networks = node.addresses.iter().flat_map(|address| {
            let lengths = self.prefix_lengths.iter();
            lengths.filter_map(|length| Some(IpNet::new(*address, *length).ok()?.trunc()))
        });
        let by_subnet = networks.flat_map(|network| self.by_subnet.get(&network).into_iter().flatten());
        by_label.map(|(office, _)| *office).chain(by_subnet.copied()).collect()
    }
}
