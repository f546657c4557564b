//! What can never arrive: which offices get nothing of a package because an office above them failed, and when a run
//! with `--once` has nothing left to wait for. Errors that heal are not told from others here. Where every node that lacks
//! a package has one, patience is short; where nodes wait for others, these are given the time to try again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peerdist_core::names::OfficeName;
use peerdist_core::office::OfficeTree;

use crate::status::{NodeStatus, OfficeStatus, PackageStatus, StatusError};

/// With `--once`, nodes that report errors and nothing else for so long are given up,
const STUCK_MAX: Duration = Duration::from_secs(8);
/// and those below them after this: longer than a node waits before it tries again to make room.
const STUCK_BELOW_MAX: Duration = Duration::from_secs(40);
/// Reason word: an office above the node's failed, so nothing can come.
const WAITS_FOR_OFFICE: &str = "WaitsForOffice";

/// For how long nothing has been able to go on.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    /// Since when, and the bytes that the nodes held then.
    stood: Option<(Instant, u64)>,
}

impl Standstill {
    /// Notes how things stand now, and says whether to give up. `patience` is `None` while something goes on; as long as
    /// bytes arrive somewhere, nobody gives up.
    pub(super) fn is_over(&mut self, now: Instant, patience: Option<Duration>, bytes: u64) -> bool {
        let before = self.stood.filter(|(_, held)| *held == bytes);
        let since = before.map_or(now, |(since, _)| since);
        self.stood = patience.map(|_| (since, bytes));
        patience.is_some_and(|patience| now.duration_since(since) >= patience)
    }
}

/// How long to wait when every node that lacks the package has an error, or waits for an office that failed; `None` when
/// that is not so.
pub(super) fn patience(package: &PackageStatus) -> Option<Duration> {
    let targeted = package.offices.iter().filter(|office| office.targeted);
    let nodes: Vec<&NodeStatus> = targeted.flat_map(|office| office.nodes.iter()).collect();
    let waits = |node: &&NodeStatus| wait_for_office(node).is_some();
    let stands = |node: &NodeStatus| node.complete || node.error.is_some() || waits(&node);
    let is_stuck = package.digest.is_some() && !nodes.is_empty() && nodes.iter().all(|node| stands(node));
    is_stuck.then(|| if nodes.iter().any(waits) { STUCK_BELOW_MAX } else { STUCK_MAX })
}

/// What the node says if it waits for an office that failed.
pub(super) fn wait_for_office(node: &NodeStatus) -> Option<&StatusError> {
    node.waits.as_ref().filter(|waits| waits.reason == WAITS_FOR_OFFICE)
}

/// Says on the nodes of every office that nothing can come to which office failed above it. `members` is how many nodes
/// run in each office.
pub(super) fn explain_waits(package: &mut PackageStatus, offices: &OfficeTree, members: &BTreeMap<OfficeName, usize>) {
    let waiting: Vec<(OfficeName, OfficeName)> = {
        let package: &PackageStatus = package;
        let targeted = package.offices.iter().filter(|office| office.targeted);
        targeted
            .filter_map(|office| {
                let failed = failed_above(package, office, offices, members)?;
                Some((office.name.clone(), failed.name.clone()))
            })
            .collect()
    };
    for (name, failed) in waiting {
        let office = package.offices.iter_mut().filter(|office| office.name == name);
        let nodes = office.flat_map(|office| office.nodes.iter_mut());
        for node in nodes.filter(|node| !node.complete && node.error.is_none()) {
            node.waits = Some(waits_for(&failed));
        }
    }
}

fn waits_for(office: &OfficeName) -> StatusError {
    let message = format!("waits for Office {office}, which cannot take the package: correct what its nodes report");
    StatusError { reason: WAITS_FOR_OFFICE.to_owned(), message }
}

/// The nearest office above through which nothing can come. One that has the package passes it on, whatever is above.
fn failed_above<'package>(
    package: &'package PackageStatus,
    office: &OfficeStatus,
    offices: &OfficeTree,
    members: &BTreeMap<OfficeName, usize>,
) -> Option<&'package OfficeStatus> {
    // A node that was asked for chunks and got none for long knows better than what can be seen from here.
    let starves = office.nodes.iter().any(|node| node.waits.is_some());
    for name in offices.path_to_central(&office.name).skip(1) {
        let Some(above) = package.offices.iter().find(|above| above.name == *name) else { continue };
        let all_tried = members.get(name).is_none_or(|&count| above.nodes.len() >= count);
        if has_failed(above) && (starves || (all_tried && !may_hold_all(above, package.bytes))) {
            return Some(above);
        }
        if may_hold_all(above, package.bytes) {
            return None;
        }
    }
    None
}

/// Whether no node got it and each says why. In a transit office only those nodes are listed that have tried.
fn has_failed(office: &OfficeStatus) -> bool {
    !office.nodes.is_empty() && office.nodes.iter().all(|node| !node.complete && node.error.is_some())
}

/// Whether the nodes together may have every chunk: one that cannot publish the package may hold all of it.
fn may_hold_all(office: &OfficeStatus, package_bytes: u64) -> bool {
    office.nodes.iter().any(|node| node.complete) || office.bytes() >= package_bytes.max(1)
}

#[cfg(test)]
mod tests {
    use peerdist_core::office::{Office, OfficeType};

    use super::*;
    use crate::status::tests::snapshot_under_way;

    fn name(name: &str) -> OfficeName {
        OfficeName::new(name).unwrap()
    }

    fn tree() -> OfficeTree {
        let office = |own: &str, parent: Option<&str>| Office {
            name: name(own),
            parent: parent.map(name),
            office_type: OfficeType::Wired,
            labels: BTreeMap::new(),
            storage_limit_bytes: None,
            background_bits_per_second_max: None,
        };
        OfficeTree::new([office("central", None), office("store-1", Some("central"))]).unwrap()
    }

    /// A package that the one node of the Central Office, which passes it on, could not take: it holds so many bytes.
    fn failed_in_central(bytes: u64) -> PackageStatus {
        let mut package = snapshot_under_way().packages.remove(0);
        let node = &mut package.offices[0].nodes[0];
        (node.complete, node.bytes) = (false, bytes);
        node.error = Some(StatusError { reason: "DiskFull".into(), message: "make room".into() });
        package
    }

    fn explained(mut package: PackageStatus, nodes_in_central: usize) -> PackageStatus {
        explain_waits(&mut package, &tree(), &BTreeMap::from([(name("central"), nodes_in_central)]));
        package
    }

    #[test]
    fn office_below_one_that_failed_is_stuck_and_names_it() {
        let package = explained(failed_in_central(0), 1);
        assert_eq!(patience(&package), Some(STUCK_BELOW_MAX));
        let [waiting, failed] = &package.offices[1].nodes[..] else { panic!("two nodes") };
        assert!(wait_for_office(waiting).unwrap().message.contains("Office central"));
        assert!(wait_for_office(failed).is_none(), "its own error says more");
    }

    #[test]
    fn office_that_may_still_get_the_package_is_not_stuck() {
        let under_way = snapshot_under_way().packages.remove(0);
        assert_eq!(patience(&explained(under_way.clone(), 1)), None, "one node above has it");
        let bytes = under_way.bytes;
        assert_eq!(patience(&explained(failed_in_central(bytes), 1)), None, "it cannot publish, and passes on");
        assert_eq!(patience(&explained(failed_in_central(0), 2)), None, "another node above has not tried");
    }

    #[test]
    fn node_that_got_nothing_for_long_is_believed() {
        let mut package = failed_in_central(100 << 20);
        let silent = StatusError { reason: "ParentSilent".into(), message: "has sent nothing".into() };
        package.offices[1].nodes[0].waits = Some(silent);
        assert_eq!(patience(&explained(package, 2)), Some(STUCK_BELOW_MAX));
    }

    #[test]
    fn error_that_heals_or_bytes_that_arrive_give_more_patience() {
        let (mut standstill, start) = (Standstill::default(), Instant::now());
        let second = Duration::from_secs(1);
        let stuck = Some(STUCK_MAX);
        assert!(!standstill.is_over(start, stuck, 5));
        assert!(!standstill.is_over(start + STUCK_MAX - second, None, 5), "healed");
        assert!(!standstill.is_over(start + STUCK_MAX, stuck, 5));
        assert!(!standstill.is_over(start + STUCK_MAX * 2 - second, stuck, 6), "something arrived");
        assert!(!standstill.is_over(start + STUCK_MAX * 2, stuck, 6));
        assert!(standstill.is_over(start + STUCK_MAX * 3, stuck, 6));
    }
}
