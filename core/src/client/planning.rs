//! Taking over a new plan: packages that came, changed, were replaced or went.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Client;
use super::event::Output;
use super::package::{Package, Phase};
use crate::digest::Digest;
use crate::message::SignedBytes;
use crate::names::DistributionKey;
use crate::plan::{Plan, PlannedPackage};

/// Most older versions that are remembered; those beyond go at the next start of the node.
const OLDER_MAX: usize = 4096;

impl Client {
    pub(super) fn take_plan(&mut self, now: Instant, signed: SignedBytes, plan: Plan) {
        if plan.office != self.config.me.office || plan.revision <= self.revision() {
            return;
        }
        let planned: BTreeSet<Digest> = plan.packages.iter().map(|package| package.digest).collect();
        let distributions: BTreeSet<DistributionKey> =
            plan.packages.iter().map(|package| package.key.distribution.clone()).collect();
        for package in &plan.packages {
            self.take_planned(now, package);
        }
        let gone: Vec<Digest> = self.packages.keys().filter(|digest| !planned.contains(digest)).copied().collect();
        for digest in gone {
            self.take_out(digest, &distributions);
        }
        let (unclaimed, older) = (std::mem::take(&mut self.unclaimed), std::mem::take(&mut self.older));
        for (digest, distribution) in unclaimed.into_iter().chain(older) {
            // Older versions of a planned distribution stay: their bytes are of use, and retention deletes them.
            if planned.contains(&digest) {
                continue;
            } else if distributions.contains(&distribution) {
                self.remember_older(digest, distribution);
            } else {
                self.outputs.push_back(Output::Delete { digest });
            }
        }
        self.plan = Some(plan);
        self.signed_plan = Some(signed);
        self.pace_due = true;
        self.parent.begin_anew();
        self.prune_at = now;
        self.retry_packages(now);
        self.hand_on_plan(now);
        self.hurry(now);
    }

    fn take_planned(&mut self, now: Instant, planned: &PlannedPackage) {
        let unpublished_by_plan = self.packages.get(&planned.digest).is_some_and(|package| {
            !planned.target && matches!(package.phase, Phase::Publishing | Phase::Published | Phase::PublishFailed(_))
        });
        if unpublished_by_plan {
            self.drop_package(planned.digest);
        }
        let Some(package) = self.packages.get_mut(&planned.digest) else {
            let mut package = Package::new(planned.clone());
            package.on_disk = self.unclaimed.contains_key(&planned.digest);
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

    /// The newer version has taken what it can use: an unfinished old one goes, a published one is retention's.
    pub(super) fn drop_replaced(&mut self, digest: Digest) {
        match self.packages.get(&digest).map(|package| package.phase) {
            Some(Phase::Published) => {
                let distribution = self.packages.get(&digest).map(|package| package.planned.key.distribution.clone());
                self.forget_package(digest);
                distribution.into_iter().for_each(|distribution| self.remember_older(digest, distribution));
            }
            Some(_) => self.drop_package(digest),
            None => {}
        }
    }

    /// Whether retention has deleted it since is not known, and deleting it again does no harm.
    fn remember_older(&mut self, digest: Digest, distribution: DistributionKey) {
        if self.older.len() < OLDER_MAX {
            self.older.insert(digest, distribution);
        }
    }

    fn drop_package(&mut self, digest: Digest) {
        self.cancel_transfers(digest);
        self.forget_package(digest);
        self.outputs.push_back(Output::Delete { digest });
    }

    fn forget_package(&mut self, digest: Digest) {
        self.packages.remove(&digest);
        if let Some(leading) = &mut self.leading {
            leading.forget(digest);
        }
    }
}
