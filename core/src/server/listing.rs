//! From which plan on an office lists a package. What nodes say of a package that was taken out of their plan and came
//! back counts once they know the plan with which it came back: until then they tell of what they had and delete.
//!
//! What the first plans of a run list has no such beginning: it may be there since an earlier run. What that one knew of
//! nodes is in the database, which is told what is not wanted any more before the nodes are.

use std::collections::{BTreeMap, BTreeSet};

use super::event::ServerOutput;
use super::{OfficeProgress, Server};
use crate::client::Refusal;
use crate::digest::Digest;
use crate::message::{OfficeReport, Revision};
use crate::names::{NodeName, OfficeName, PackageKey};
use crate::office::OfficeTree;
use crate::peer::NodeRef;
use crate::plan::Plan;
use crate::rollout::Rollout;

/// What the plans of this run list.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// The plan from which on each package is listed, by office, of packages that came after the first plan of the office.
    since: BTreeMap<OfficeName, BTreeMap<Digest, Revision>>,
    /// Packages of the library that some plan of the office lists or has listed.
    ever: BTreeMap<OfficeName, BTreeSet<Digest>>,
}

impl Listings {
    /// A plan takes the place of another. Returns what it lists and that one did not.
    pub(super) fn take(&mut self, old: Option<&Plan>, plan: &Plan) -> Vec<Digest> {
        let listed: BTreeSet<Digest> = plan.packages.iter().map(|package| package.digest).collect();
        self.ever.entry(plan.office.clone()).or_default().extend(&listed);
        let listings = self.since.entry(plan.office.clone()).or_default();
        listings.retain(|digest, _| listed.contains(digest));
        let Some(old) = old else { return Vec::new() };
        let before: BTreeSet<Digest> = old.packages.iter().map(|package| package.digest).collect();
        let came: Vec<Digest> = listed.difference(&before).copied().collect();
        listings.extend(came.iter().map(|&digest| (digest, plan.revision)));
        came
    }

    /// The first plan that an office must know for its word to count; 0 for what the first plan of this run listed.
    fn since(&self, office: &OfficeName, digest: Digest) -> Revision {
        self.since.get(office).and_then(|listings| listings.get(&digest)).copied().unwrap_or(0)
    }

    /// Offices whose plans list one of these packages, or did so earlier in this run.
    pub(super) fn offices_of(&self, digests: &BTreeSet<Digest>) -> BTreeSet<&OfficeName> {
        let listing = self.ever.iter().filter(|(_, ever)| !ever.is_disjoint(digests));
        listing.map(|(office, _)| office).collect()
    }

    /// Forgets offices that are gone.
    pub(super) fn keep_to(&mut self, tree: &OfficeTree) {
        self.since.retain(|office, _| tree.office(office).is_some());
        self.ever.retain(|office, _| tree.office(office).is_some());
    }

    /// The package is not in the library any more.
    pub(super) fn forget_package(&mut self, digest: Digest) {
        self.ever.values_mut().for_each(|ever| {
            ever.remove(&digest);
        });
    }
}

impl Server {
    /// Whether an office lists a package since a plan of this run only: what was known of it in an earlier run does not
    /// count.
    pub fn came_in_this_run(&self, office: &OfficeName, digest: Digest) -> bool {
        self.listings.since(office, digest) > 0
    }

    /// Forgets what was said of packages that are not wanted of that office any more: should they come back, they begin
    /// anew. That the office spoke of them stays known: it may still hold them.
    pub(super) fn forget_unwanted_progress(&mut self) {
        let (Some(tree), rollout) = (&self.tree, &self.rollout) else { return };
        let packages: BTreeMap<Digest, &PackageKey> =
            self.library.values().map(|package| (package.digest, &package.key)).collect();
        self.progress.retain(|(office, digest), progress| {
            let key = packages.get(digest).filter(|_| tree.office(office).is_some());
            if key.is_some_and(|key| !rollout.concerns(office, key)) {
                *progress = OfficeProgress::default();
            }
            key.is_some()
        });
    }

    /// The same in the database, of packages that are wanted of fewer offices than before. At first it is told of every
    /// package: who wanted it in an earlier run is not known, and the objects may have changed since.
    pub(super) fn have_unwanted_progress_forgotten(&mut self, before: &Rollout) {
        let is_first = before.offices.is_empty();
        let rollout = &self.rollout;
        let is_wanted_less = |key: &PackageKey| {
            let was = before.distributed(key).filter(|was| rollout.distributed(key) != Some(*was));
            was.is_some_and(|was| was.targets.iter().chain(&was.transit).any(|office| !rollout.concerns(office, key)))
        };
        let offices = |key: &PackageKey| -> BTreeSet<OfficeName> {
            let report = rollout.distributed(key);
            report.map(|report| report.targets.union(&report.transit).cloned().collect()).unwrap_or_default()
        };
        let told = self.library.keys().filter(|key| is_first || is_wanted_less(key));
        let wanted: BTreeMap<PackageKey, BTreeSet<OfficeName>> = told.map(|key| (key.clone(), offices(key))).collect();
        if !wanted.is_empty() {
            self.outputs.push_back(ServerOutput::Wanted(wanted));
        }
    }

    /// Whoever speaks of a package may hold it, whether it is wanted of the office or not.
    pub(super) fn note_that_it_speaks_of(&mut self, office: &OfficeName, digest: Digest) {
        if self.key_of(digest).is_some() {
            self.progress.entry((office.clone(), digest)).or_default();
        }
    }

    /// What a report says of packages that are wanted of the office, since it knows of them, and of its nodes, of each
    /// package once: whoever keeps what is reported keeps no more than there is. A node is complete only as far as it
    /// knows the plan that its completion is about. In which order nodes said it is the rendezvous point's word alone, or
    /// another one could have later words taken for earlier ones.
    pub(super) fn as_it_counts(&self, office: &OfficeName, mut report: OfficeReport, by_leader: bool) -> OfficeReport {
        let mut seen = BTreeSet::new();
        let revision = report.plan_revision;
        report
            .packages
            .retain(|package| self.counts(office, package.digest, Some(revision)) && seen.insert(package.digest));
        for package in &mut report.packages {
            let since = self.listings.since(office, package.digest);
            let known = |node: &NodeName| self.nodes.get(node).filter(|known| known.node.office == *office);
            package.nodes.retain_mut(|(node, state)| {
                let known = known(node);
                state.complete &= known.is_some_and(|known| known.plan_revision >= since);
                state.sequence = if by_leader { state.sequence } else { 0 };
                known.is_some()
            });
        }
        report
    }

    /// Takes a node's word that it has published a package.
    pub(super) fn take_complete(
        &mut self,
        from: &NodeRef,
        digest: Digest,
        bytes: u64,
        plan_revision: Option<Revision>,
    ) -> Result<(), Refusal> {
        self.office_of(from)?;
        self.note_that_it_speaks_of(&from.office, digest);
        if !self.counts(&from.office, digest, plan_revision) {
            // It was deleted in the meantime.
            return Ok(());
        }
        self.progress.entry((from.office.clone(), digest)).or_default().complete(&from.name, bytes);
        self.settling.hear(digest, &from.office);
        self.outputs.push_back(ServerOutput::NodeCompleted { node: from.clone(), digest, bytes });
        Ok(())
    }

    /// Whether word of an office about a package counts that somebody gave who had this plan. Clients of earlier releases
    /// do not say which they had.
    fn counts(&self, office: &OfficeName, digest: Digest, plan_revision: Option<Revision>) -> bool {
        let Some(key) = self.key_of(digest) else { return false };
        let is_late = plan_revision.is_some_and(|revision| revision < self.listings.since(office, digest));
        self.rollout.concerns(office, key) && !is_late
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
