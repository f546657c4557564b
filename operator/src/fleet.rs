//! All offices judged together, as the cluster has them now: which form one tree, which node belongs to which. Pure:
//! the same offices, nodes and grounds give the same fleet. An office that came first keeps what a later one claims too,
//! so that a bad object never disturbs a good one.

mod candidate;
mod nodes;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use peerdist_core::names::OfficeName;
use peerdist_core::office as core_office;
use peerdist_crds::FieldError;
use peerdist_crds::office::NodeSelection;

use self::candidate::candidate;
use self::nodes::Claimant;
pub use self::nodes::{Assignment, NodeView};
use crate::storage::StoragePrefixes;

/// Offices named in a message; more are cut.
const ERRORS_SHOWN_MAX: usize = 3;

/// What a judgement rests on besides offices and nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grounds {
    /// Folders of the nodes that offices may use.
    pub storage_prefixes: StoragePrefixes,
    /// Identity of the Office that the server in the cluster belongs to.
    pub server_owner: Option<String>,
    /// The labels that the DaemonSet of an office asks of its nodes, for each that is in the cluster.
    pub standing: BTreeMap<String, BTreeMap<String, String>>,
}

/// The offices and nodes of a cluster, judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fleet {
    verdicts: BTreeMap<String, Verdict>,
    generations: BTreeMap<String, Generation>,
    assignments: BTreeMap<String, Assignment>,
    /// Offices of nodes whose label must change.
    awaiting: BTreeSet<String>,
    /// How many nodes each office holds that holds any.
    nodes: BTreeMap<String, i32>,
    central: Option<String>,
}

/// Which form of an object was judged: its identity and its generation.
type Generation = (Option<String>, Option<i64>);

/// What may be done with an office.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is part of the tree and has its nodes for itself.
    Accepted(Box<ValidOffice>),
    /// Nothing of it is applied; what was applied before stays, on nodes that no other office holds.
    Refused(Refusal),
}

/// An office that may be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidOffice {
    /// Its place in the tree, labels and limits.
    pub office: core_office::Office,
    /// Its nodes.
    pub selection: NodeSelection,
    /// Directory of a node's packages, in its normal form.
    pub storage_path: String,
    /// Identity of the object, for owner references.
    pub uid: String,
}

impl ValidOffice {
    /// Whether it is the Central Office.
    pub fn is_central(&self) -> bool {
        self.office.parent.is_none()
    }
}

/// Why an office is not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field at fault.
    pub field: String,
    /// One word.
    pub reason: &'static str,
    /// What was found, what was expected, what to do.
    pub message: String,
    /// Whether only an edit of this very object helps. Otherwise another object may still come.
    pub stalled: bool,
}

impl Refusal {
    /// Names the first field at fault, and says something about the next ones.
    pub(crate) fn from_fields(errors: &[FieldError]) -> Self {
        let first = errors.first();
        let told = errors.iter().take(ERRORS_SHOWN_MAX).map(|error| format!("{}: {}", error.field, error.message));
        Self {
            field: first.map(|error| error.field.clone()).unwrap_or_default(),
            reason: first.map_or("Invalid", |error| error.reason),
            message: told.collect::<Vec<_>>().join("; "),
            stalled: true,
        }
    }
}

impl Fleet {
    /// Judges offices and nodes.
    pub fn new<'objects>(
        offices: impl IntoIterator<Item = &'objects peerdist_crds::Office>,
        nodes: impl IntoIterator<Item = &'objects NodeView>,
        grounds: &Grounds,
    ) -> Self {
        let nodes: Vec<&NodeView> = nodes.into_iter().collect();
        let offices = in_order(offices);
        let mut verdicts = BTreeMap::new();
        let mut candidates = Vec::new();
        for object in &offices {
            match candidate(object, &grounds.storage_prefixes) {
                Ok(valid) => candidates.push(valid),
                Err(refusal) => {
                    verdicts.insert(object.name_any(), Verdict::Refused(refusal));
                }
            }
        }
        let (in_tree, refused) = tree::judge(candidates, verdicts.keys(), incumbent(&offices, grounds));
        verdicts.extend(refused.into_iter().map(|(name, refusal)| (name.to_string(), Verdict::Refused(refusal))));
        let judged = nodes::judge(claimants(&offices, in_tree, grounds), &nodes);
        let held = judged.counts();
        let refused = judged.refused.into_iter();
        verdicts.extend(refused.map(|(name, refusal)| (name, Verdict::Refused(refusal))));
        let labelling = nodes::assign(&judged.accepted, &verdicts, &judged.holders, &nodes);
        let central = judged.accepted.iter().find(|office| office.is_central());
        let central = central.map(|office| office.office.name.to_string());
        let accepted = judged.accepted.into_iter();
        verdicts.extend(accepted.map(|office| (office.office.name.to_string(), Verdict::Accepted(Box::new(office)))));
        let generations = offices.iter().map(|object| (object.name_any(), generation(object))).collect();
        let nodes::Labelling { changes: assignments, awaiting } = labelling;
        Self { verdicts, generations, assignments, awaiting, nodes: held, central }
    }

    /// What may be done with the office of that name; `None`: it did not exist.
    pub fn verdict(&self, office: &str) -> Option<&Verdict> {
        self.verdicts.get(office)
    }

    /// What may be done with this very form of an Office; `None`: another form of it was judged, or none.
    pub fn verdict_on(&self, object: &peerdist_crds::Office) -> Option<&Verdict> {
        let name = object.name_any();
        self.verdict(&name).filter(|_| self.generations.get(&name) == Some(&generation(object)))
    }

    /// The offices that are applied, by name.
    pub fn accepted(&self) -> impl Iterator<Item = &ValidOffice> {
        self.verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Accepted(office) => Some(&**office),
            Verdict::Refused(_) => None,
        })
    }

    /// The Central Office, if there is one and it is applied.
    pub fn central(&self) -> Option<&str> {
        self.central.as_deref()
    }

    /// Nodes whose label must change, with what it must become.
    pub fn assignments(&self) -> &BTreeMap<String, Assignment> {
        &self.assignments
    }

    /// Whether labels of nodes of the office must change, so that it is not whole yet.
    pub fn awaits_labels(&self, office: &str) -> bool {
        self.awaiting.contains(office)
    }

    /// How many nodes belong to the office, also those whose taints keep its clients away.
    pub fn nodes(&self, office: &str) -> i32 {
        self.nodes.get(office).copied().unwrap_or_default()
    }

    /// Names of the offices that are judged differently there than here, gone ones included, of those that wait for labels
    /// of nodes in one of the two only, and of those that have more or fewer nodes.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let names = self.verdicts.keys().chain(other.verdicts.keys().filter(|name| !self.verdicts.contains_key(*name)));
        let differs = |name: &&String| {
            self.verdicts.get(*name) != other.verdicts.get(*name)
                || self.awaits_labels(name) != other.awaits_labels(name)
                || self.nodes(name) != other.nodes(name)
        };
        names.filter(differs).cloned().collect()
    }
}

/// The order in which they came, which is the order of precedence.
fn in_order<'objects>(
    offices: impl IntoIterator<Item = &'objects peerdist_crds::Office>,
) -> Vec<&'objects peerdist_crds::Office> {
    let mut offices: Vec<_> = offices.into_iter().collect();
    offices.sort_by_cached_key(|office| {
        let created = office.creation_timestamp().map(|time| time.0);
        (created.is_none(), created, office.name_any())
    });
    offices
}

/// The office that has the server is the Central Office while it exists, whatever somebody makes of its spec: otherwise
/// a bad edit of it would hand the server and all content over to the next that claims to be one.
fn incumbent(offices: &[&peerdist_crds::Office], grounds: &Grounds) -> Option<OfficeName> {
    let owner = grounds.server_owner.as_ref()?;
    let office = offices.iter().find(|office| office.metadata.uid.as_ref() == Some(owner))?;
    OfficeName::new(&office.name_any()).ok()
}

/// Everybody who may hold nodes: offices of the tree by their spec, refused ones by what is in the cluster of them.
fn claimants(offices: &[&peerdist_crds::Office], in_tree: Vec<ValidOffice>, grounds: &Grounds) -> Vec<Claimant> {
    let mut in_tree: BTreeMap<String, ValidOffice> =
        in_tree.into_iter().map(|office| (office.office.name.to_string(), office)).collect();
    let claimant = |office: &&peerdist_crds::Office| {
        let name = office.name_any();
        let standing = grounds.standing.get(&name).cloned().map(NodeSelection::Labels);
        Claimant { valid: in_tree.remove(&name), standing, name }
    };
    offices.iter().map(claimant).collect()
}

fn generation(object: &peerdist_crds::Office) -> Generation {
    (object.uid(), object.metadata.generation)
}

fn name_of(text: &str) -> Option<OfficeName> {
    OfficeName::new(text).ok()
}

#[cfg(test)]
pub(crate) mod tests;
