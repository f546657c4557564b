//! A plan has room for so many packages. What an office is meant to hold beyond that is left out, the least urgent
//! first, together with what its parent leaves out and could not pass on. It is awaited instead, so that no node loses
//! what it has of it, and the report says so.

use std::collections::BTreeMap;

use super::Rollout;
use crate::message::PACKAGES_MAX;
use crate::names::{OfficeName, PackageKey};
use crate::office::OfficeTree;
use crate::plan::AWAITED_MAX;

/// Why a package is in the library and not in the plan of an office that is meant to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullPlan {
    /// The office whose plan is full: this one, or one on the way to it.
    pub office: OfficeName,
    /// How many packages are meant for that office.
    pub meant: usize,
}

impl Rollout {
    /// Why an office does not get a package that is meant for it, if its plan leaves that out.
    pub fn left_out(&self, office: &OfficeName, package: &PackageKey) -> Option<&FullPlan> {
        self.left_out.get(office)?.get(package)
    }

    /// Leaves out what plans have no room for.
    pub(super) fn keep_to_room(&mut self, tree: &OfficeTree) {
        let mut downwards = vec![tree.central()];
        while let Some(office) = downwards.pop() {
            downwards.extend(tree.children_of(office));
            let left_out = self.beyond_room(office, tree.parent_of(office));
            if !left_out.is_empty() {
                self.leave_out(office, left_out);
            }
        }
    }

    /// Should even the names of what is left out be too many, everything is: such a plan is not made.
    fn beyond_room(&self, office: &OfficeName, parent: Option<&OfficeName>) -> BTreeMap<PackageKey, FullPlan> {
        let awaited = self.awaited.get(office).map_or(0, Vec::len);
        let left_out = self.beyond(PACKAGES_MAX, office, parent);
        if awaited + left_out.len() > AWAITED_MAX { self.beyond(0, office, parent) } else { left_out }
    }

    fn beyond(&self, room: usize, office: &OfficeName, parent: Option<&OfficeName>) -> BTreeMap<PackageKey, FullPlan> {
        let packages = self.offices.get(office).map(Vec::as_slice).unwrap_or_default();
        let mut taken = 0;
        let mut left_out = BTreeMap::new();
        for package in packages.iter().map(|planned| &planned.package) {
            if let Some(above) = parent.and_then(|parent| self.left_out(parent, package)) {
                left_out.insert(package.clone(), above.clone());
            } else if taken == room {
                left_out.insert(package.clone(), FullPlan { office: office.clone(), meant: packages.len() });
            } else {
                taken += 1;
            }
        }
        left_out
    }

    fn leave_out(&mut self, office: &OfficeName, left_out: BTreeMap<PackageKey, FullPlan>) {
        if let Some(packages) = self.offices.get_mut(office) {
            packages.retain(|planned| !left_out.contains_key(&planned.package));
        }
        self.awaited.entry(office.clone()).or_default().extend(left_out.keys().cloned());
        self.left_out.insert(office.clone(), left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::{Distribution, Priority};
    use crate::rollout::tests::{decide, distribution, for_region, office_name};

    /// As many distributions, the last of which is urgent, and what is decided when the library has all of them.
    fn decide_on(count: usize, to: impl Fn(Distribution) -> Distribution) -> Rollout {
        let names: Vec<String> = (1..=count).map(|number| format!("app-{number:06}")).collect();
        let priority = |name: &String| if Some(name) == names.last() { Priority::High } else { Priority::Normal };
        let wanted = |name| to(Distribution { priority: priority(name), ..distribution(name, "1") });
        let ingested: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &["1"][..])).collect();
        decide(names.iter().map(wanted).collect(), &ingested, 0)
    }

    fn key(number: usize) -> PackageKey {
        distribution(&format!("app-{number:06}"), "1").package()
    }

    #[test]
    fn office_gets_as_many_packages_as_a_plan_has_room_for_and_keeps_what_it_has_of_the_others() {
        let meant = PACKAGES_MAX + 3;
        let rollout = decide_on(meant, |distribution| for_region("us", distribution));
        let full = FullPlan { office: office_name("central"), meant };
        for office in ["central", "depot"].map(office_name) {
            let planned: Vec<&PackageKey> = rollout.offices[&office].iter().map(|planned| &planned.package).collect();
            assert_eq!(planned.len(), PACKAGES_MAX, "{office}");
            assert_eq!((planned[0], planned[1]), (&key(meant), &key(1)), "the most urgent first, equals by name");
            let left_out: Vec<PackageKey> = (PACKAGES_MAX..meant).map(key).collect();
            assert_eq!(rollout.awaited[&office], left_out);
            for package in &left_out {
                assert_eq!(rollout.left_out(&office, package), Some(&full), "{package} in {office}");
            }
            assert_eq!(rollout.left_out(&office, &key(1)), None);
        }
        assert!(rollout.awaited.keys().all(|office| ["central", "depot"].contains(&office.as_str())));
    }

    #[test]
    fn plan_with_room_for_all_leaves_nothing_out() {
        let rollout = decide_on(PACKAGES_MAX, |distribution| distribution);
        assert!(rollout.offices.values().all(|packages| packages.len() == PACKAGES_MAX));
        assert_eq!((rollout.awaited.len(), rollout.left_out.len()), (0, 0));
    }

    #[test]
    fn everything_is_left_out_when_there_is_no_room_for_the_names_either() {
        let meant = PACKAGES_MAX + AWAITED_MAX + 1;
        let rollout = decide_on(meant, |distribution| for_region("hq", distribution));
        let central = office_name("central");
        assert!(rollout.offices[&central].is_empty());
        assert_eq!(rollout.awaited[&central].len(), meant);
        assert_eq!(rollout.left_out(&central, &key(1)), Some(&FullPlan { office: central.clone(), meant }));
    }
}
