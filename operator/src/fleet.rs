//! All offices judged together, as the cluster has them now: which form one tree, which node belongs to which. Pure:
//! the same offices and nodes give the same fleet. An office that came first keeps what a later one claims too, so that
//! a bad object never disturbs a good one.

mod nodes;
mod tree;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use peerdist_core::names::OfficeName;
use peerdist_core::office as core_office;
use peerdist_crds::FieldError;
use peerdist_crds::office::{NodeSelection, node_selection};

pub use self::nodes::{Assignment, NodeView};

/// Offices named in a message; more are cut.
const ERRORS_SHOWN_MAX: usize = 3;

/// The offices and nodes of a cluster, judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fleet {
    verdicts: BTreeMap<String, Verdict>,
    assignments: BTreeMap<String, Assignment>,
    central: Option<String>,
}

/// What may be done with an office.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is part of the tree and has its nodes for itself.
    Accepted(Box<ValidOffice>),
    /// Nothing of it is applied; what was applied before stays.
    Refused(Refusal),
}

/// An office that may be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidOffice {
    /// Its place in the tree, labels and limits.
    pub office: core_office::Office,
    /// Its nodes.
    pub selection: NodeSelection,
    /// Directory of a node's packages.
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

/// An office that is good for itself, with what decides who came first.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    created: Option<Timestamp>,
    valid: ValidOffice,
}

impl Fleet {
    /// Judges offices and nodes.
    pub fn new<'objects>(
        offices: impl IntoIterator<Item = &'objects peerdist_crds::Office>,
        nodes: &[NodeView],
    ) -> Self {
        let mut verdicts = BTreeMap::new();
        let mut candidates = Vec::new();
        for object in offices {
            match candidate(object) {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => {
                    verdicts.insert(object.name_any(), Verdict::Refused(refusal));
                }
            }
        }
        candidates.sort_by(|a, b| {
            (a.created.is_none(), a.created, &a.valid.office.name).cmp(&(
                b.created.is_none(),
                b.created,
                &b.valid.office.name,
            ))
        });
        let (in_tree, refused) = tree::judge(candidates, verdicts.keys());
        let central = in_tree.iter().find(|office| office.is_central()).map(|office| office.office.name.to_string());
        verdicts.extend(refused.into_iter().map(|(name, refusal)| (name.to_string(), Verdict::Refused(refusal))));
        let (accepted, doubly_claimed) = nodes::judge(in_tree, nodes);
        verdicts
            .extend(doubly_claimed.into_iter().map(|(name, refusal)| (name.to_string(), Verdict::Refused(refusal))));
        let assignments = nodes::assign(&accepted, &verdicts, nodes);
        let accepted = accepted.into_iter();
        verdicts.extend(accepted.map(|office| (office.office.name.to_string(), Verdict::Accepted(Box::new(office)))));
        Self { verdicts, assignments, central }
    }

    /// What may be done with the office of that name; `None`: it did not exist.
    pub fn verdict(&self, office: &str) -> Option<&Verdict> {
        self.verdicts.get(office)
    }

    /// Every office with what may be done with it, by name.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.verdicts.iter().map(|(name, verdict)| (name.as_str(), verdict))
    }

    /// The offices that are applied, by name.
    pub fn accepted(&self) -> impl Iterator<Item = &ValidOffice> {
        self.verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Accepted(office) => Some(&**office),
            Verdict::Refused(_) => None,
        })
    }

    /// The Central Office, if there is one in the tree.
    pub fn central(&self) -> Option<&str> {
        self.central.as_deref()
    }

    /// Nodes whose label must change, with what it must become.
    pub fn assignments(&self) -> &BTreeMap<String, Assignment> {
        &self.assignments
    }

    /// Names of the offices that are judged differently there than here, gone ones included.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let names = self.verdicts.keys().chain(other.verdicts.keys().filter(|name| !self.verdicts.contains_key(*name)));
        names.filter(|name| self.verdicts.get(*name) != other.verdicts.get(*name)).cloned().collect()
    }
}

fn candidate(object: &peerdist_crds::Office) -> Result<Candidate, Refusal> {
    let mut errors = Vec::new();
    let office = peerdist_crds::office::validate(object).map_err(|faults| errors.extend(faults)).ok();
    let selection = node_selection(&object.spec).map_err(|faults| errors.extend(faults)).ok();
    match (office, selection) {
        (Some(office), Some(Some(selection))) => Ok(Candidate {
            created: object.creation_timestamp().map(|time| time.0),
            valid: ValidOffice {
                office,
                selection,
                storage_path: object.spec.storage.path.clone(),
                uid: object.uid().unwrap_or_default(),
            },
        }),
        (Some(_), Some(None)) => Err(Refusal {
            field: "spec.nodeSelector".to_owned(),
            reason: "NodesNotSelected",
            message: "the office says nothing about its nodes: expected spec.nodeSelector or spec.subnets; add one"
                .to_owned(),
            stalled: true,
        }),
        _ => Err(Refusal::from_fields(&errors)),
    }
}

fn name_of(text: &str) -> Option<OfficeName> {
    OfficeName::new(text).ok()
}

#[cfg(test)]
pub(crate) mod tests;
