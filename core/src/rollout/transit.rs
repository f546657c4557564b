//! How long an office on the way keeps what it passes on: while some office below still needs it from there.
//!
//! An office below has settled on a package when it needs nothing more of it from above; who finds that out keeps it in
//! mind ([`RolloutInput::settled`]). Above an office that has not settled everything is needed up to the next target that
//! has, because that one holds the package itself, and else up to the Central Office.
//!
//! [`RolloutInput::settled`]: super::RolloutInput::settled

use std::collections::{BTreeMap, BTreeSet};

use super::{DistributionReport, Rollout};
use crate::names::{OfficeName, PackageKey};
use crate::office::OfficeTree;

/// The offices that have settled, by package.
pub type Settled = BTreeMap<PackageKey, BTreeSet<OfficeName>>;

/// The offices on the way of which no office below needs the package any more.
pub(crate) fn passed_on(
    tree: &OfficeTree,
    targets: &BTreeSet<OfficeName>,
    transit: &BTreeSet<OfficeName>,
    settled: Option<&BTreeSet<OfficeName>>,
) -> BTreeSet<OfficeName> {
    let Some(settled) = settled.filter(|_| !transit.is_empty()) else { return BTreeSet::new() };
    // An office that was a target once and is none now has nothing, whatever is remembered of it.
    let holds = |office: &OfficeName| targets.contains(office) && settled.contains(office);
    let mut passed_on = transit.clone();
    for target in targets.iter().filter(|target| !settled.contains(*target)) {
        for office in tree.path_to_central(target).skip(1).take_while(|office| !holds(office)) {
            passed_on.remove(office);
        }
    }
    passed_on
}

impl DistributionReport {
    /// Offices on the way that hold the package, or are to.
    pub fn passing(&self) -> impl Iterator<Item = &OfficeName> {
        self.transit.difference(&self.passed_on)
    }
}

impl Rollout {
    /// Whether the office is on the way of a package that is in the plans, and holds nothing of it any more because every
    /// office below has what it needs.
    pub fn has_passed_on(&self, office: &OfficeName, package: &PackageKey) -> bool {
        self.distributed(package).is_some_and(|report| report.passed_on.contains(office))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distribution::Distribution;
    use crate::rollout::Holding;
    use crate::rollout::tests::{decide_settled, distribution, for_region, key, office_name, tree};

    fn names(texts: &[&str]) -> BTreeSet<OfficeName> {
        texts.iter().map(|text| office_name(text)).collect()
    }

    /// What is decided when these offices have settled on version 1 of the only distribution.
    fn decide(wanted: Distribution, settled: &[&str]) -> Rollout {
        let of_package = Distribution { version: "1".parse().unwrap(), ..wanted.clone() }.package();
        decide_settled(vec![wanted], &[("app", &["1", "2"])], 0, &Settled::from([(of_package, names(settled))]))
    }

    /// The offices whose plans list the only distribution, and what for.
    fn planned(rollout: &Rollout) -> Vec<(&str, Holding)> {
        let packages =
            rollout.offices.iter().flat_map(|(office, packages)| packages.iter().map(move |one| (office, one)));
        packages.map(|(office, package)| (office.as_str(), package.holding)).collect()
    }

    #[test]
    fn offices_on_the_way_hold_nothing_once_all_below_have_settled() {
        let wanted = for_region("eu-kiosk", distribution("app", "1"));
        let (central, store) = (("central", Holding::Transit), ("store", Holding::Transit));
        assert_eq!(planned(&decide(wanted.clone(), &[])), [central, ("kiosk", Holding::Target), store]);
        let rollout = decide(wanted.clone(), &["kiosk"]);
        assert_eq!(planned(&rollout), [("kiosk", Holding::Target)]);
        let report = &rollout.report[&key("app")];
        assert_eq!(
            (&report.passed_on, &report.transit),
            (&names(&["central", "store"]), &names(&["central", "store"]))
        );
        assert!(rollout.has_passed_on(&office_name("store"), &wanted.package()));
        assert!(!rollout.has_passed_on(&office_name("kiosk"), &wanted.package()));
        assert!(rollout.awaited.is_empty(), "what is awaited is not deleted");
    }

    #[test]
    fn another_version_is_passed_on_anew() {
        let rollout = decide(for_region("eu-kiosk", distribution("app", "2")), &["kiosk"]);
        assert_eq!(planned(&rollout).len(), 3);
    }

    #[test]
    fn office_that_is_needed_below_keeps_what_others_do_not_need() {
        let tree = tree();
        let of = |targets: &[&str], transit: &[&str], settled: &[&str]| {
            passed_on(&tree, &names(targets), &names(transit), Some(&names(settled)))
        };
        let (both, way) = (["kiosk", "depot"], ["central", "store"]);
        assert_eq!(of(&both, &way, &["kiosk"]), names(&["store"]), "the Central Office serves the depot");
        assert_eq!(of(&both, &way, &["depot"]), names(&[]));
        assert_eq!(of(&both, &way, &["depot", "kiosk"]), names(&way));
    }

    #[test]
    fn settled_target_on_the_way_stands_in_for_what_is_above_it() {
        let tree = tree();
        let of = |targets: &[&str], transit: &[&str], settled: &[&str]| {
            passed_on(&tree, &names(targets), &names(transit), Some(&names(settled)))
        };
        assert_eq!(of(&["store", "kiosk"], &["central"], &["store"]), names(&["central"]));
        assert_eq!(of(&["store", "kiosk"], &["central"], &["kiosk"]), names(&[]));
        assert_eq!(of(&["kiosk"], &["central", "store"], &["store"]), names(&[]), "it is no target any more");
    }

    proptest! {
        #[test]
        fn whoever_lacks_something_is_granted_it_by_holders_up_to_one_that_has_all(
            region in proptest::option::of(proptest::sample::select(vec!["hq", "eu", "eu-kiosk", "us"])),
            settled in proptest::sample::subsequence(vec!["central", "depot", "kiosk", "store"], 0..=4),
        ) {
            let wanted = distribution("app", "1");
            let wanted = region.map_or(wanted.clone(), |region| for_region(region, wanted));
            let (rollout, tree) = (decide(wanted, &settled), tree());
            let report = &rollout.report[&key("app")];
            let has_settled = |office: &OfficeName| report.targets.contains(office) && settled.contains(&office.as_str());
            for target in report.targets.iter().filter(|target| !has_settled(target)) {
                let path: Vec<&OfficeName> = tree.path_to_central(target).collect();
                for pair in path.windows(2).take_while(|pair| !has_settled(pair[0])) {
                    let place = tree.children_of(pair[1]).position(|child| child == pair[0]).unwrap();
                    prop_assert!(rollout.offices[pair[1]].iter().any(|above| above.granted_children.contains(place)));
                }
            }
            for office in &report.transit {
                prop_assert_eq!(rollout.offices[office].is_empty(), report.passed_on.contains(office));
            }
        }
    }
}
