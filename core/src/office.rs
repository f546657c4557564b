//! The office tree: which offices exist, who is whose parent, and which offices lie between the Central Office and
//! the targets of a package. A tree that exists is valid: [`OfficeTree::new`] refuses everything else and names each
//! fault. Nodes, addresses and rendezvous points are no part of it.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::error::OfficeTreeError;
use crate::names::OfficeName;

/// Most offices of one tree: the 5,000 stores of a large chain, twice.
pub const OFFICES_MAX: usize = 10_000;

/// How the nodes of an office may talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OfficeType {
    /// Nodes share content and find each other by broadcast.
    Wired,
    /// Nodes share content and learn of each other from the rendezvous point.
    WiFi,
    /// Nodes do not share: each is its own rendezvous point and fetches from the parent office.
    #[serde(rename = "VPN")]
    Vpn,
}

impl OfficeType {
    /// The word in objects and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wired => "Wired",
            Self::WiFi => "WiFi",
            Self::Vpn => "VPN",
        }
    }

    /// Whether the nodes serve content to each other, so that one of them fetches for all.
    pub fn shares(self) -> bool {
        self != Self::Vpn
    }

    /// Whether the nodes ask each other by broadcast.
    pub fn broadcasts(self) -> bool {
        self != Self::WiFi
    }
}

impl std::fmt::Display for OfficeType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Office {
    /// Its name.
    pub name: OfficeName,
    /// The office one level up; `None` for the Central Office.
    pub parent: Option<OfficeName>,
    /// How its nodes talk to each other.
    pub office_type: OfficeType,
    /// Labels, matched by the selectors of distributions.
    pub labels: BTreeMap<String, String>,
    /// Most bytes that a node of the office may use for packages; `None`: what the disk has.
    pub storage_limit_bytes: Option<u64>,
    /// Most bits a second that content from the parent office may take, above 0; `None`: no ceiling. In a VPN office
    /// the ceiling of each node.
    pub background_bits_per_second_max: Option<u64>,
}

/// What another office is to an office.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfficeRelation {
    /// The very same office.
    Same,
    /// The other is the parent.
    Parent,
    /// The other is a child.
    Child,
    /// Neither: their nodes have no business with each other.
    Unrelated,
}

/// All offices as one valid tree below the Central Office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficeTree {
    central: OfficeName,
    offices: BTreeMap<OfficeName, Office>,
    children: BTreeMap<OfficeName, BTreeSet<OfficeName>>,
}

impl OfficeTree {
    /// Checks the offices and builds the tree.
    ///
    /// # Errors
    /// Every fault found, ordered by office: duplicates, unknown parents, cycles, no or several Central Offices,
    /// a VPN office in a place where it cannot be, more than [`OFFICES_MAX`] offices.
    pub fn new(offices: impl IntoIterator<Item = Office>) -> Result<Self, Vec<OfficeTreeError>> {
        let (offices, mut errors) = collect_by_name(offices);
        errors.extend(central_errors(&offices));
        errors.extend(unknown_parents(&offices));
        errors.extend(cycles(&offices));
        errors.extend(misplaced_vpn_offices(&offices));
        if !errors.is_empty() {
            return Err(errors);
        }
        let Some(central) = roots(&offices).next().map(|office| office.name.clone()) else {
            return Err(vec![OfficeTreeError::Empty]);
        };
        let children = children_by_parent(&offices);
        Ok(Self { central, offices, children })
    }

    /// The Central Office.
    pub fn central(&self) -> &OfficeName {
        &self.central
    }

    /// Whether the office is the Central Office.
    pub fn is_central(&self, office: &OfficeName) -> bool {
        *office == self.central
    }

    /// The office of that name.
    pub fn office(&self, name: &OfficeName) -> Option<&Office> {
        self.offices.get(name)
    }

    /// All offices by name.
    pub fn offices(&self) -> impl Iterator<Item = &Office> {
        self.offices.values()
    }

    /// Number of offices, at least one.
    #[allow(clippy::len_without_is_empty, reason = "a tree is never empty")]
    pub fn len(&self) -> usize {
        self.offices.len()
    }

    /// The parent; `None` for the Central Office and for offices that are not in the tree.
    pub fn parent_of(&self, office: &OfficeName) -> Option<&OfficeName> {
        self.offices.get(office)?.parent.as_ref()
    }

    /// The children by name.
    pub fn children_of(&self, office: &OfficeName) -> impl Iterator<Item = &OfficeName> {
        self.children.get(office).into_iter().flatten()
    }

    /// The office, its parent, and so on up to the Central Office. Empty for offices that are not in the tree.
    pub fn path_to_central<'tree>(&'tree self, office: &OfficeName) -> impl Iterator<Item = &'tree OfficeName> {
        let start = self.offices.get(office).map(|office| &office.name);
        std::iter::successors(start, |office| self.parent_of(office))
    }

    /// The Central Office first, the office itself last. Empty for offices that are not in the tree.
    pub fn path_from_central(&self, office: &OfficeName) -> Vec<&OfficeName> {
        let mut path: Vec<&OfficeName> = self.path_to_central(office).collect();
        path.reverse();
        path
    }

    /// The offices on the paths from the Central Office to the targets that are no targets themselves.
    pub fn transit_offices(&self, targets: &BTreeSet<OfficeName>) -> BTreeSet<OfficeName> {
        let mut transit = BTreeSet::new();
        for target in targets {
            for office in self.path_to_central(target).skip(1) {
                // Seen before: so was everything above it.
                if !targets.contains(office) && !transit.insert(office.clone()) {
                    break;
                }
            }
        }
        transit
    }

    /// What `other` is to `office`.
    pub fn relation(&self, office: &OfficeName, other: &OfficeName) -> OfficeRelation {
        if !self.offices.contains_key(office) || !self.offices.contains_key(other) {
            OfficeRelation::Unrelated
        } else if office == other {
            OfficeRelation::Same
        } else if self.parent_of(office) == Some(other) {
            OfficeRelation::Parent
        } else if self.parent_of(other) == Some(office) {
            OfficeRelation::Child
        } else {
            OfficeRelation::Unrelated
        }
    }
}

fn collect_by_name(offices: impl IntoIterator<Item = Office>) -> (BTreeMap<OfficeName, Office>, Vec<OfficeTreeError>) {
    let mut by_name = BTreeMap::new();
    let mut duplicates = BTreeSet::new();
    for office in offices {
        if by_name.contains_key(&office.name) {
            duplicates.insert(office.name);
        } else if by_name.len() == OFFICES_MAX {
            return (by_name, vec![OfficeTreeError::TooMany]);
        } else {
            by_name.insert(office.name.clone(), office);
        }
    }
    let errors = duplicates.into_iter().map(|office| OfficeTreeError::Duplicate { office }).collect();
    (by_name, errors)
}

fn roots(offices: &BTreeMap<OfficeName, Office>) -> impl Iterator<Item = &Office> {
    offices.values().filter(|office| office.parent.is_none())
}

fn children_by_parent(offices: &BTreeMap<OfficeName, Office>) -> BTreeMap<OfficeName, BTreeSet<OfficeName>> {
    let mut children: BTreeMap<OfficeName, BTreeSet<OfficeName>> = BTreeMap::new();
    for office in offices.values() {
        if let Some(parent) = &office.parent {
            children.entry(parent.clone()).or_default().insert(office.name.clone());
        }
    }
    children
}

/// A set without a root has an unknown parent or a cycle, which says more, unless it is empty.
fn central_errors(offices: &BTreeMap<OfficeName, Office>) -> Vec<OfficeTreeError> {
    if offices.is_empty() {
        return vec![OfficeTreeError::Empty];
    }
    let centrals: Vec<OfficeName> = roots(offices).map(|office| office.name.clone()).collect();
    match centrals.split_first() {
        Some((first, others)) => others
            .iter()
            .map(|office| OfficeTreeError::SecondCentral { office: office.clone(), central: first.clone() })
            .collect(),
        None => Vec::new(),
    }
}

fn unknown_parents(offices: &BTreeMap<OfficeName, Office>) -> Vec<OfficeTreeError> {
    let unknown = |office: &Office| {
        let parent = office.parent.clone().filter(|parent| !offices.contains_key(parent))?;
        Some(OfficeTreeError::UnknownParent { office: office.name.clone(), parent })
    };
    offices.values().filter_map(unknown).collect()
}

/// Each cycle once, told from its first office by name.
fn cycles(offices: &BTreeMap<OfficeName, Office>) -> Vec<OfficeTreeError> {
    let mut settled: BTreeSet<&OfficeName> = BTreeSet::new();
    let mut errors = Vec::new();
    for start in offices.keys() {
        let mut path: Vec<&OfficeName> = Vec::new();
        let mut on_path: BTreeSet<&OfficeName> = BTreeSet::new();
        let mut next = offices.get(start);
        while let Some(office) = next {
            if !on_path.insert(&office.name) {
                errors.push(cycle_error(&path, &office.name));
                break;
            }
            if settled.contains(&office.name) {
                break;
            }
            path.push(&office.name);
            next = office.parent.as_ref().and_then(|parent| offices.get(parent));
        }
        settled.extend(path);
    }
    errors
}

fn cycle_error(path: &[&OfficeName], repeated: &OfficeName) -> OfficeTreeError {
    let mut cycle: Vec<OfficeName> =
        path.iter().skip_while(|name| **name != repeated).map(|name| (*name).clone()).collect();
    let first = cycle.iter().enumerate().min_by_key(|(_, name)| *name).map_or(0, |(index, _)| index);
    cycle.rotate_left(first);
    OfficeTreeError::Cycle { office: cycle.first().unwrap_or(repeated).clone(), cycle }
}

fn misplaced_vpn_offices(offices: &BTreeMap<OfficeName, Office>) -> Vec<OfficeTreeError> {
    let is_vpn = |name: &OfficeName| offices.get(name).is_some_and(|office| office.office_type == OfficeType::Vpn);
    let misplaced = |office: &Office| match &office.parent {
        None if is_vpn(&office.name) => Some(OfficeTreeError::VpnIsCentral { office: office.name.clone() }),
        Some(parent) if is_vpn(parent) => {
            Some(OfficeTreeError::VpnHasChild { office: office.name.clone(), parent: parent.clone() })
        }
        _ => None,
    };
    offices.values().filter_map(misplaced).collect()
}

#[cfg(test)]
mod tests;
