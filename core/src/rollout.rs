//! What each office should hold, and when to look again: a pure decision from the distributions, the office tree, what
//! the server has ingested, and the time. It returns the plan and a report of why; whoever carries it out has nothing
//! left to choose. Which chunks come from whom, and whether a disk has the space, is decided elsewhere.

mod retention;
mod room;
mod transit;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use self::retention::{HeldVersion, Retention, decide_retention};
pub use self::room::FullPlan;
pub use self::transit::Settled;
pub(crate) use self::transit::passed_on;
use crate::distribution::{Distribution, Priority};
use crate::names::{DistributionKey, OfficeName, PackageKey, Version};
use crate::office::OfficeTree;
use crate::plan::GrantedChildren;

/// Everything the decision depends upon.
#[derive(Debug, Clone, Copy)]
pub struct RolloutInput<'input> {
    /// The distributions wanted now.
    pub distributions: &'input BTreeMap<DistributionKey, Distribution>,
    /// The versions of each distribution that the server has whole, in the order in which they became current.
    pub ingested: &'input BTreeMap<DistributionKey, Vec<Version>>,
    /// The offices.
    pub tree: &'input OfficeTree,
    /// The offices that need nothing more of a package from above: offices on the way to them pass it on no longer.
    pub settled: &'input Settled,
    /// The time by the wall clock.
    pub now: Timestamp,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// Packages the server should bring in now, the most urgent first. Those it has are not listed.
    pub ingest: Vec<PackageKey>,
    /// For each office of the tree what it should hold, the most urgent first. What is listed neither here nor as awaited
    /// is evicted. An office that is not listed has more than a plan can name: its plan before stays in force.
    pub offices: BTreeMap<OfficeName, Vec<OfficePackage>>,
    /// What is meant for an office while the server has no version of it: it was not brought in yet, or the library was
    /// lost; and what its plan has no room for. Nodes keep what they hold of such a distribution.
    pub awaited: BTreeMap<OfficeName, Vec<PackageKey>>,
    /// What is in the library and meant for an office, and its plan has no room for.
    left_out: BTreeMap<OfficeName, BTreeMap<PackageKey, FullPlan>>,
    /// When the same input gives another answer because time has passed.
    pub look_again_at: Option<Timestamp>,
    /// Why, for each distribution.
    pub report: BTreeMap<DistributionKey, DistributionReport>,
}

impl Rollout {
    /// The report on a distribution, if this version of it is the one in the offices' plans.
    pub fn distributed(&self, package: &PackageKey) -> Option<&DistributionReport> {
        self.report.get(&package.distribution).filter(|report| report.distributed.as_ref() == Some(&package.version))
    }

    /// Whether the package is meant for the office, or for offices to which it is on the way.
    pub fn concerns(&self, office: &OfficeName, package: &PackageKey) -> bool {
        self.distributed(package)
            .is_some_and(|report| report.targets.contains(office) || report.transit.contains(office))
    }
}

/// One package in the plan of one office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficePackage {
    /// The package.
    pub package: PackageKey,
    /// What the office has it for.
    pub holding: Holding,
    /// Transfers rest, and what is there stays.
    pub paused: bool,
    /// Which packages go first.
    pub priority: Priority,
    /// Versions that the nodes keep, the current one included.
    pub retention_versions: u32,
    /// Which of the office's children, by name, may ask it for the package.
    pub granted_children: GrantedChildren,
}

/// What an office has a package for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Its nodes publish it.
    Target,
    /// It holds and passes on, and does not publish.
    Transit,
}

/// Why a distribution is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributionReport {
    /// What is being done about the wanted version.
    pub decision: RolloutDecision,
    /// The version in the offices' plans: the wanted one, the one before while that cannot start, or none yet.
    pub distributed: Option<Version>,
    /// Offices selected.
    pub targets: BTreeSet<OfficeName>,
    /// Offices on the way.
    pub transit: BTreeSet<OfficeName>,
    /// Those of them of which no office below needs the package any more: no plan of theirs lists it.
    pub passed_on: BTreeSet<OfficeName>,
}

/// What is being done about the wanted version of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutDecision {
    /// No office matches the selector, so nothing is fetched.
    NoOfficeSelected,
    /// The schedule does not allow it yet.
    WaitsForSchedule {
        /// When it does.
        until: Timestamp,
    },
    /// Paused by the object.
    Paused,
    /// The server brings the version in first.
    WaitsForIngest,
    /// In the plans of its offices.
    Distributes,
}

/// Decides what the server ingests and what every office holds. Whoever makes plans of it keeps it to their room
/// ([`Rollout::keep_to_room`]).
pub fn decide_rollout(input: RolloutInput<'_>) -> Rollout {
    let mut rollout = Rollout {
        offices: input.tree.offices().map(|office| (office.name.clone(), Vec::new())).collect(),
        ..Rollout::default()
    };
    let mut by_urgency: Vec<&Distribution> = input.distributions.values().collect();
    by_urgency.sort_by_key(|distribution| (Reverse(distribution.priority), &distribution.key));
    for distribution in by_urgency {
        let report = report_on(distribution, input);
        match report.decision {
            RolloutDecision::WaitsForSchedule { until } => {
                rollout.look_again_at = rollout.look_again_at.into_iter().chain([until]).min();
            }
            RolloutDecision::WaitsForIngest => rollout.ingest.push(distribution.package()),
            _ => {}
        }
        match &report.distributed {
            Some(version) => add_to_offices(&mut rollout.offices, distribution, version, &report, input.tree),
            None => await_in_offices(&mut rollout.awaited, distribution, &report),
        }
        rollout.report.insert(distribution.key.clone(), report);
    }
    rollout
}

fn report_on(distribution: &Distribution, input: RolloutInput<'_>) -> DistributionReport {
    let targets: BTreeSet<OfficeName> = input
        .tree
        .offices()
        .filter(|office| distribution.offices.matches(office))
        .map(|office| office.name.clone())
        .collect();
    let transit = input.tree.transit_offices(&targets);
    let ingested = input.ingested.get(&distribution.key).map(Vec::as_slice).unwrap_or_default();
    let waits_until = distribution.not_before.filter(|not_before| input.now < *not_before);
    let is_ingested = ingested.contains(&distribution.version);
    let decision = match waits_until {
        _ if targets.is_empty() => RolloutDecision::NoOfficeSelected,
        Some(until) => RolloutDecision::WaitsForSchedule { until },
        None if distribution.paused => RolloutDecision::Paused,
        None if !is_ingested => RolloutDecision::WaitsForIngest,
        None => RolloutDecision::Distributes,
    };
    let distributed = match waits_until {
        _ if targets.is_empty() => None,
        None if is_ingested => Some(distribution.version.clone()),
        _ => version_before(&distribution.version, ingested),
    };
    let key_of = |version: &Version| PackageKey { distribution: distribution.key.clone(), version: version.clone() };
    let settled = distributed.as_ref().and_then(|version| input.settled.get(&key_of(version)));
    let passed_on = passed_on(input.tree, &targets, &transit, settled);
    DistributionReport { decision, distributed, targets, transit, passed_on }
}

/// The version that stays in force while the wanted one cannot start. A version that was current before and waits for
/// its schedule again stays in force itself if it is the newest.
fn version_before(wanted: &Version, ingested: &[Version]) -> Option<Version> {
    let newest = ingested.last()?;
    let before = ingested.iter().rev().find(|version| *version != wanted);
    if newest == wanted { Some(newest.clone()) } else { before.cloned() }
}

fn add_to_offices(
    offices: &mut BTreeMap<OfficeName, Vec<OfficePackage>>,
    distribution: &Distribution,
    version: &Version,
    report: &DistributionReport,
    tree: &OfficeTree,
) {
    let package = PackageKey { distribution: distribution.key.clone(), version: version.clone() };
    let involved = |office: &OfficeName| report.targets.contains(office) || report.transit.contains(office);
    let targets = report.targets.iter().map(|office| (Holding::Target, office));
    let holdings = targets.chain(report.passing().map(|office| (Holding::Transit, office)));
    for (holding, office) in holdings {
        offices.entry(office.clone()).or_default().push(OfficePackage {
            package: package.clone(),
            holding,
            paused: distribution.paused,
            priority: distribution.priority,
            retention_versions: distribution.retention_versions,
            // Also one that passed it on may ask: the plan here does not change because a child holds it no longer.
            granted_children: tree
                .children_of(office)
                .enumerate()
                .filter(|(_, child)| involved(child))
                .map(|(place, _)| place)
                .collect(),
        });
    }
}

fn await_in_offices(
    offices: &mut BTreeMap<OfficeName, Vec<PackageKey>>,
    distribution: &Distribution,
    report: &DistributionReport,
) {
    for office in report.targets.iter().chain(&report.transit) {
        offices.entry(office.clone()).or_default().push(distribution.package());
    }
}

#[cfg(test)]
mod tests;
