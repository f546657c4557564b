//! Taking over a new plan: packages that came, changed, were replaced or went.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Client;
use super::event::StoredPackage;
use super::package::{Package, Phase};
use crate::digest::Digest;
use crate::message::SignedBytes;
use crate::names::DistributionKey;
use crate::office::OfficeType;
use crate::plan::{Plan, PlannedPackage};
use crate::rendezvous::Rendezvous;

impl Client {
    pub(super) fn take_plan(&mut self, now: Instant, signed: SignedBytes, plan: Plan) {
        if plan.office != self.config.me.office || plan.revision <= self.revision() {
            return;
        }
        self.become_of_office(now, plan.office_type, plan.central);
        let planned: BTreeSet<Digest> = plan.packages.iter().map(|package| package.digest).collect();
        let meant = plan.packages.iter().map(|package| &package.key).chain(&plan.awaited);
        let distributions: BTreeSet<DistributionKey> = meant.map(|key| key.distribution.clone()).collect();
        for package in &plan.packages {
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
            } else if distributions.contains(&stored.distribution) {
                self.older.insert(digest, stored);
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
        self.announce_completions();
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
            let mut package = Package::new(planned.clone(), self.config.boot_id, self.sequence);
            let stored = self.unclaimed.get(&planned.digest).or(self.older.get(&planned.digest));
            package.on_disk = stored.is_some();
            package.published = stored.is_some_and(|stored| stored.published);
            self.packages.insert(planned.digest, package);
            if let Some(leading) = &mut self.leading {
                leading.list(planned.digest);
            }
            return;
        };
        let was_paused = package.planned.paused;
        if std::mem::take(&mut package.superseded) {
            // Nobody counts on what it said before it was replaced.
            package.touch();
            package.completion_due |= package.phase == Phase::Published;
        }
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

    /// The newer version has taken what it can use: unfinished old ones go, published ones are retention's.
    pub(super) fn drop_replaced(&mut self, distribution: &DistributionKey) {
        self.drop_unfinished(|of| of == distribution);
        let replaced = |package: &&Package| package.superseded && package.planned.key.distribution == *distribution;
        let published: Vec<Digest> =
            self.packages.values().filter(replaced).map(|package| package.planned.digest).collect();
        for digest in published {
            self.forget_package(digest);
            let stored = StoredPackage { distribution: distribution.clone(), digest, published: true };
            self.older.insert(digest, stored);
        }
    }

    /// Has what was begun of replaced versions and never published deleted, of some distributions. Returns whether there
    /// was anything.
    pub(super) fn drop_unfinished(&mut self, of: impl Fn(&DistributionKey) -> bool) -> bool {
        let superseded = self.packages.values().filter(|package| package.superseded && !package.published);
        let superseded = superseded.map(|package| (&package.planned.key.distribution, package.planned.digest));
        let of_earlier_runs = self.older.values().filter(|stored| !stored.published);
        let of_earlier_runs = of_earlier_runs.map(|stored| (&stored.distribution, stored.digest));
        let unfinished: Vec<Digest> = superseded
            .chain(of_earlier_runs)
            .filter(|(distribution, _)| of(distribution))
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
        self.drop_unfinished(|of| by_others.contains(of));
    }

    fn drop_package(&mut self, digest: Digest) {
        self.cancel_transfers(digest);
        self.forget_package(digest);
        self.delete(digest);
    }

    /// No plan lists the package any more.
    fn forget_package(&mut self, digest: Digest) {
        self.packages.remove(&digest);
        if let Some(leading) = &mut self.leading {
            leading.forget(digest);
        }
    }
}

#[cfg(test)]
mod tests;
