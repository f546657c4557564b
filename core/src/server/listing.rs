//! From which plan on an office lists a package. What nodes say of a package that was taken out of their plan and came
//! back counts once they know the plan with which it came back: until then they tell of what they had and delete.
//!
//! What the first plans of a run list has no such beginning: it may be there since an earlier run.

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

/// The plan from which on each package is listed, by office, of packages that came after the first plan of the office.
#[derive(Debug, Default)]
pub(super) struct Listings(BTreeMap<OfficeName, BTreeMap<Digest, Revision>>);

impl Listings {
    /// A plan takes the place of another. Returns what it lists and that one did not.
    pub(super) fn take(&mut self, old: Option<&Plan>, plan: &Plan) -> Vec<Digest> {
        let listed: BTreeSet<Digest> = plan.packages.iter().map(|package| package.digest).collect();
        let listings = self.0.entry(plan.office.clone()).or_default();
        listings.retain(|digest, _| listed.contains(digest));
        let Some(old) = old else { return Vec::new() };
        let before: BTreeSet<Digest> = old.packages.iter().map(|package| package.digest).collect();
        let came: Vec<Digest> = listed.difference(&before).copied().collect();
        listings.extend(came.iter().map(|&digest| (digest, plan.revision)));
        came
    }

    /// The first plan that an office must know for its word to count; 0 for what the first plan of this run listed.
    fn since(&self, office: &OfficeName, digest: Digest) -> Revision {
        self.0.get(office).and_then(|listings| listings.get(&digest)).copied().unwrap_or(0)
    }

    /// Forgets offices that are gone.
    pub(super) fn keep_to(&mut self, tree: &OfficeTree) {
        self.0.retain(|office, _| tree.office(office).is_some());
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
