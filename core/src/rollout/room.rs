//! A plan is one message and has room for so many packages. What an office is meant to hold beyond that is left out, the
//! least urgent first, together with what its parent leaves out and could not pass on. It is awaited instead, so that no
//! node loses what it has of it, and the report says so.

use std::collections::BTreeMap;

use super::{OfficePackage, Rollout};
use crate::message::PACKAGES_MAX;
use crate::names::{OfficeName, PackageKey};
use crate::office::OfficeTree;
use crate::plan::{AWAITED_BYTES_MAX, AWAITED_MAX, bytes_of_name, bytes_of_planned, planned_bytes_max};

/// Why a package is in the library and not in the plan of an office that is meant to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullPlan {
    /// The office whose plan is full: this one, or one on the way to it.
    pub office: OfficeName,
    /// How many packages are meant for that office.
    pub meant: usize,
}

/// What a plan can still take.
#[derive(Clone, Copy)]
struct Room {
    packages: usize,
    bytes: usize,
}

const NO_ROOM: Room = Room { packages: 0, bytes: 0 };

impl Room {
    /// False when there is no room, also none for anything less urgent from then on.
    fn take(&mut self, bytes: usize) -> bool {
        if self.packages == 0 || self.bytes < bytes {
            *self = NO_ROOM;
            return false;
        }
        self.packages -= 1;
        self.bytes -= bytes;
        true
    }
}

impl Rollout {
    /// Why an office does not get a package that is meant for it, if its plan leaves that out.
    pub fn left_out(&self, office: &OfficeName, package: &PackageKey) -> Option<&FullPlan> {
        self.left_out.get(office)?.get(package)
    }

    /// Leaves out what plans have no room for. `root_bytes` tells the size of a package's signed root.
    pub fn keep_to_room(&mut self, tree: &OfficeTree, root_bytes: impl Fn(&PackageKey) -> usize) {
        let bytes = |planned: &OfficePackage| {
            bytes_of_planned(&planned.package, root_bytes(&planned.package), &planned.granted_children)
        };
        let mut downwards = vec![tree.central()];
        while let Some(office) = downwards.pop() {
            downwards.extend(tree.children_of(office));
            let full = FullPlan { office: office.clone(), meant: self.meant_for(office) };
            let room = Room { packages: PACKAGES_MAX, bytes: planned_bytes_max(tree.children_of(office)) };
            let left_out = self.beyond(room, &full, tree.parent_of(office), bytes);
            if !left_out.is_empty() {
                self.leave_out(office, left_out);
            }
            if self.awaits_too_much(office) {
                let all = self.beyond(NO_ROOM, &full, tree.parent_of(office), bytes);
                self.left_out.entry(office.clone()).or_default().extend(all);
                self.offices.remove(office);
            }
        }
    }

    /// Packages in the library and others.
    fn meant_for(&self, office: &OfficeName) -> usize {
        self.offices.get(office).map_or(0, Vec::len) + self.awaited.get(office).map_or(0, Vec::len)
    }

    fn beyond(
        &self,
        mut room: Room,
        full: &FullPlan,
        parent: Option<&OfficeName>,
        bytes: impl Fn(&OfficePackage) -> usize,
    ) -> BTreeMap<PackageKey, FullPlan> {
        let packages = self.offices.get(&full.office).map(Vec::as_slice).unwrap_or_default();
        let mut left_out = BTreeMap::new();
        for planned in packages {
            let package = &planned.package;
            if let Some(above) = parent.and_then(|parent| self.left_out(parent, package)) {
                left_out.insert(package.clone(), above.clone());
            } else if !room.take(bytes(planned)) {
                left_out.insert(package.clone(), full.clone());
            }
        }
        left_out
    }

    /// Whether a plan could not even name what the office waits for.
    fn awaits_too_much(&self, office: &OfficeName) -> bool {
        let awaited = self.awaited.get(office).map(Vec::as_slice).unwrap_or_default();
        awaited.len() > AWAITED_MAX || awaited.iter().map(bytes_of_name).sum::<usize>() > AWAITED_BYTES_MAX
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
    use crate::rollout::tests::{decide, distribution, for_region, office_name, tree};
    use crate::wire::LARGE_MESSAGE_BYTES_MAX;

    /// As many distributions, the last of which is urgent, and what is decided when the library has all of them.
    fn decide_on(count: usize, to: impl Fn(Distribution) -> Distribution) -> Rollout {
        let names: Vec<String> = (1..=count).map(|number| format!("app-{number:06}")).collect();
        let priority = |name: &String| if Some(name) == names.last() { Priority::High } else { Priority::Normal };
        let wanted = |name| to(Distribution { priority: priority(name), ..distribution(name, "1") });
        let ingested: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &["1"][..])).collect();
        decide(names.iter().map(wanted).collect(), &ingested, 0)
    }

    /// The same in plans, whose packages have roots of so many bytes.
    fn plan_of(count: usize, root_bytes: usize, to: impl Fn(Distribution) -> Distribution) -> Rollout {
        let mut rollout = decide_on(count, to);
        rollout.keep_to_room(&tree(), |_| root_bytes);
        rollout
    }

    fn key(number: usize) -> PackageKey {
        distribution(&format!("app-{number:06}"), "1").package()
    }

    #[test]
    fn office_gets_as_many_packages_as_a_plan_has_room_for_and_keeps_what_it_has_of_the_others() {
        let meant = PACKAGES_MAX + 3;
        let rollout = plan_of(meant, 0, |distribution| for_region("us", distribution));
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
        let rollout = plan_of(PACKAGES_MAX, 0, |distribution| distribution);
        assert!(rollout.offices.values().all(|packages| packages.len() == PACKAGES_MAX));
        assert_eq!((rollout.awaited.len(), rollout.left_out.len()), (0, 0));
    }

    #[test]
    fn everything_is_left_out_when_there_is_no_room_for_the_names_either() {
        let meant = PACKAGES_MAX + AWAITED_MAX + 1;
        let rollout = plan_of(meant, 0, |distribution| for_region("hq", distribution));
        let central = office_name("central");
        assert!(!rollout.offices.contains_key(&central), "no plan is made, and the one before stays");
        let full = FullPlan { office: central.clone(), meant };
        for number in [1, meant] {
            assert_eq!(rollout.left_out(&central, &key(number)), Some(&full));
        }
        assert!(rollout.offices.contains_key(&office_name("store")));
    }

    #[test]
    fn packages_with_large_roots_are_fewer() {
        let rollout = plan_of(400, crate::manifest::ROOT_BYTES_MAX, |distribution| for_region("hq", distribution));
        let central = office_name("central");
        let planned = rollout.offices[&central].len();
        let roots_bytes = planned * crate::manifest::ROOT_BYTES_MAX;
        assert!(roots_bytes > 10 << 20 && roots_bytes < LARGE_MESSAGE_BYTES_MAX, "{planned} packages");
        assert_eq!(rollout.awaited[&central].len(), 400 - planned);
        assert_eq!(rollout.offices[&central][0].package, key(400), "the most urgent first");
    }
}
