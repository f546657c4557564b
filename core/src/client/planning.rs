//! Taking over a new plan: packages that came, changed, were replaced or went.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Client;
use super::event::StoredPackage;
use super::package::{Package, Phase};
use crate::digest::Digest;
use crate::message::SignedBytes;
use crate::names::{DistributionKey, PackageKey};
use crate::office::OfficeType;
use crate::plan::{Plan, PlannedPackage};
use crate::rendezvous::Rendezvous;

/// Most older versions that are remembered; those beyond go at the next start of the node.
const OLDER_MAX: usize = 4096;

/// What becomes of unfinished versions that the plan awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// They stay for the day when they are planned again.
    Stays,
    /// They make room.
    Goes,
}

impl Client {
    pub(super) fn take_plan(&mut self, now: Instant, signed: SignedBytes, plan: Plan) {
        if plan.office != self.config.me.office || plan.revision <= self.revision() {
            return;
        }
        self.become_of_office(now, plan.office_type, plan.central);
        let awaited_here = self.current_here(&plan.awaited);
        let for_this_node = || plan.packages.iter().filter(|package| !awaited_here.contains(&package.key.distribution));
        let planned: BTreeSet<Digest> = for_this_node().map(|package| package.digest).collect();
        let meant = plan.packages.iter().map(|package| &package.key).chain(&plan.awaited);
        let distributions: BTreeSet<DistributionKey> = meant.map(|key| key.distribution.clone()).collect();
        for package in for_this_node() {
            self.take_planned(now, package);
        }
        let gone: Vec<Digest> = self.packages.keys().filter(|digest| !planned.contains(digest)).copied().collect();
        for digest in gone {
            self.take_out(digest, &distributions);
        }
        let (unclaimed, older) = (std::mem::take(&mut self.unclaimed), std::mem::take(&mut self.older));
        for (digest, stored) in unclaimed.into_iter().chain(older) {
            // Other versions of a distribution that is meant for the office stay: their bytes are of use. Retention deletes published ones.
            if planned.contains(&digest) {
                continue;
            } else if distributions.contains(&stored.key.distribution) {
                self.remember_older(stored);
            } else {
                self.delete(digest);
            }
        }
        let other_parent = self.plan.as_ref().is_some_and(|old| old.parent != plan.parent);
        self.plan = Some(plan);
        self.signed_plan = Some(signed);
        self.pace_due = true;
        self.look_for_parent_anew(other_parent);
        self.prune_at = now;
        self.drop_what_others_replace();
        self.retry_packages(now);
        self.hand_on_plan(now);
        self.hurry(now);
        self.deletions.confirm(self.revision());
    }

    /// Distributions whose awaited version this node has published already: a server that begins with an older library
    /// plans the version before meanwhile, which this node would take only to give it up again.
    fn current_here(&self, awaited: &[PackageKey]) -> BTreeSet<DistributionKey> {
        let taken = self.packages.values().filter(|package| package.published).map(|package| &package.planned.key);
        let stored = self.unclaimed.values().chain(self.older.values()).filter(|stored| stored.current);
        let current: BTreeSet<&PackageKey> = taken.chain(stored.map(|stored| &stored.key)).collect();
        awaited.iter().filter(|key| current.contains(key)).map(|key| key.distribution.clone()).collect()
    }

    /// The office became one of another type, or its place in the tree another one: who leads it is decided anew.
    fn become_of_office(&mut self, now: Instant, office_type: OfficeType, central: bool) {
        if (self.config.office_type, self.config.central) == (office_type, central) {
            return;
        }
        (self.config.office_type, self.config.central) = (office_type, central);
        let digests: Vec<Digest> = self.packages.keys().copied().collect();
        digests.into_iter().for_each(|digest| self.cancel_transfers(digest));
        let term = self.election.term();
        self.election = Rendezvous::new(now, self.config.me.clone(), office_type, term, &mut self.rng);
        self.begin_following(now);
    }

    fn take_planned(&mut self, now: Instant, planned: &PlannedPackage) {
        let unpublished_by_plan = self.packages.get(&planned.digest).is_some_and(|package| {
            !planned.target && matches!(package.phase, Phase::Publishing | Phase::Published | Phase::PublishFailed(_))
        });
        if unpublished_by_plan {
            self.drop_package(planned.digest);
        }
        let Some(package) = self.packages.get_mut(&planned.digest) else {
            let mut package = Package::new(planned.clone(), self.config.boot_id);
            let stored = self.unclaimed.get(&planned.digest).or(self.older.get(&planned.digest));
            package.on_disk = stored.is_some();
            package.published = stored.is_some_and(|stored| stored.published);
            self.packages.insert(planned.digest, package);
            return;
        };
        let was_paused = package.planned.paused;
        package.superseded = false;
        package.planned = planned.clone();
        if was_paused != planned.paused {
            self.pause_package(now, planned.digest, planned.paused);
        }
        self.publish_if_whole(planned.digest);
    }

    fn take_out(&mut self, digest: Digest, distributions: &BTreeSet<DistributionKey>) {
        let Some(package) = self.packages.get_mut(&digest) else { return };
        if distributions.contains(&package.planned.key.distribution) {
            package.superseded = true;
            self.cancel_transfers(digest);
        } else {
            self.drop_package(digest);
        }
    }

    /// The newer version has taken what it can use: unfinished old ones go, published ones are retention's. What is there
    /// of a version that the library has lost stays.
    pub(super) fn drop_replaced(&mut self, distribution: &DistributionKey) {
        self.drop_unfinished(|of| of.distribution == *distribution, Awaited::Stays);
        let replaced = self.packages.values().filter(|package| package.superseded && package.published);
        let replaced = replaced.filter(|package| package.planned.key.distribution == *distribution);
        let replaced: Vec<(Digest, PackageKey)> =
            replaced.map(|package| (package.planned.digest, package.planned.key.clone())).collect();
        for (digest, key) in replaced {
            self.forget_package(digest);
            self.remember_older(StoredPackage { key, digest, published: true, current: false });
        }
    }

    /// Has what was begun of replaced versions and never published deleted, where `of` says so. Returns whether there
    /// was anything.
    pub(super) fn drop_unfinished(&mut self, of: impl Fn(&PackageKey) -> bool, awaited: Awaited) -> bool {
        let superseded = self.packages.values().filter(|package| package.superseded && !package.published);
        let superseded = superseded.map(|package| (&package.planned.key, package.planned.digest));
        let of_earlier_runs = self.older.values().filter(|stored| !stored.published);
        let of_earlier_runs = of_earlier_runs.map(|stored| (&stored.key, stored.digest));
        let stays = |key: &PackageKey| {
            awaited == Awaited::Stays && self.plan.as_ref().is_some_and(|plan| plan.awaited.contains(key))
        };
        let unfinished: Vec<Digest> = superseded
            .chain(of_earlier_runs)
            .filter(|(key, _)| of(key) && !stays(key))
            .map(|(_, digest)| digest)
            .collect();
        for &digest in &unfinished {
            self.older.remove(&digest);
            self.drop_package(digest);
        }
        !unfinished.is_empty()
    }

    /// Where another node brings the newer version to the office, unfinished old ones are of no more use.
    pub(super) fn drop_what_others_replace(&mut self) {
        if self.election.leader().is_none() {
            return;
        }
        let newest = self.packages.values().filter(|package| !package.superseded && package.is_left_to_others(false));
        let by_others: BTreeSet<DistributionKey> =
            newest.map(|package| package.planned.key.distribution.clone()).collect();
        self.drop_unfinished(|of| by_others.contains(&of.distribution), Awaited::Stays);
    }

    /// Whether retention has deleted it since is not known, and deleting it again does no harm.
    fn remember_older(&mut self, stored: StoredPackage) {
        if self.older.len() < OLDER_MAX {
            self.older.insert(stored.digest, stored);
        }
    }

    fn drop_package(&mut self, digest: Digest) {
        self.cancel_transfers(digest);
        self.forget_package(digest);
        self.delete(digest);
    }

    fn forget_package(&mut self, digest: Digest) {
        self.packages.remove(&digest);
        if let Some(leading) = &mut self.leading {
            leading.forget(digest);
        }
    }
}

#[cfg(test)]
mod tests;
