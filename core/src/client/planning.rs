//! Taking over a new plan: packages that came, changed, were replaced or went.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Client;
use super::event::Output;
use super::package::{Package, Phase};
use crate::digest::Digest;
use crate::message::SignedBytes;
use crate::names::DistributionKey;
use crate::office::OfficeType;
use crate::plan::{Plan, PlannedPackage};
use crate::rendezvous::Rendezvous;

/// Most older versions that are remembered; those beyond go at the next start of the node.
const OLDER_MAX: usize = 4096;

impl Client {
    pub(super) fn take_plan(&mut self, now: Instant, signed: SignedBytes, plan: Plan) {
        if plan.office != self.config.me.office || plan.revision <= self.revision() {
            return;
        }
        self.become_of_office(now, plan.office_type, plan.central);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::fixture::{client, node, pass, plan, planned, take_plan};
    use crate::distribution::Priority;
    use crate::message::Message;
    use crate::peer::Peer;

    #[test]
    fn edited_type_of_the_office_counts() {
        let (mut client, now) = client(OfficeType::Wired);
        let mut plan = plan(OfficeType::Wired, vec![planned("package", Priority::Normal)]);
        take_plan(&mut client, now, &mut plan);
        let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
        client.message(now, Peer::Node(node("store", "store-2")), claim.clone()).unwrap();
        assert!(!client.is_rendezvous_point());
        plan.office_type = OfficeType::Vpn;
        take_plan(&mut client, now, &mut plan);
        assert!(client.is_rendezvous_point(), "each node of a VPN office is its own");
        plan.office_type = OfficeType::Wired;
        take_plan(&mut client, now, &mut plan);
        client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
        pass(&mut client, now, Duration::from_secs(1));
        assert!(!client.is_rendezvous_point());
    }
}
