//! Which offices need nothing more of a package from above, so that offices on the way to them can delete what they only
//! passed on.
//!
//! An office settles once every node of it that the server knows is complete. From then on newcomers are served inside of
//! it, so it stays settled until somebody of it says that the office as a whole lacks chunks, and has said so for
//! [`LACKS_PATIENCE`]: a rendezvous point that has just begun knows less than its office has. Nodes of a VPN office share
//! nothing: every newcomer there needs the way, so such an office never settles. How far nodes were when the server was last up counts
//! until they are heard of again ([`ServerEvent::Remembered`]): a restart of the server changes no plan. Where nothing is
//! known, the office has not settled, and offices on the way hold a place into which nothing comes until somebody asks.
//!
//! [`ServerEvent::Remembered`]: super::ServerEvent::Remembered

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{IngestedPackage, Server};
use crate::digest::Digest;
use crate::names::{DistributionKey, NodeName, OfficeName, PackageKey};
use crate::office::OfficeType;
use crate::rollout::{Rollout, Settled, passed_on};

/// An office that has settled lacks something for so long before offices on the way get the package again.
pub(super) const LACKS_PATIENCE: Duration = Duration::from_secs(15);

/// The offices that have settled, and what is needed to find out which have.
#[derive(Debug, Default)]
pub(super) struct Settling {
    settled: Settled,
    /// Nodes that were complete when the server was last up.
    remembered: BTreeMap<PackageKey, BTreeSet<NodeName>>,
    /// Since when an office that has settled lacks something.
    lacking_since: BTreeMap<(PackageKey, OfficeName), Instant>,
    /// Of whom something was heard since the last look.
    heard: BTreeSet<(Digest, OfficeName)>,
}

/// How an office stands with a package, by what is known of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Every known node is complete.
    Complete,
    /// Some node is not, and finds in its office what it lacks, as far as anybody knows.
    Undecided,
    /// Nobody of the office has what some node lacks.
    Lacks,
}

impl Settling {
    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    /// These nodes were complete when the server was last up.
    pub(super) fn remember(&mut self, package: PackageKey, complete: BTreeSet<NodeName>) {
        self.remembered.insert(package, complete);
    }

    /// Something was heard of the package in the office.
    pub(super) fn hear(&mut self, digest: Digest, office: &OfficeName) {
        self.heard.insert((digest, office.clone()));
    }

    /// The package is gone: should it come back, nodes have nothing of it.
    pub(super) fn forget_package(&mut self, package: &PackageKey) {
        self.remembered.remove(package);
    }

    /// These nodes are gone.
    pub(super) fn forget_nodes(&mut self, nodes: &BTreeSet<NodeName>) {
        for complete in self.remembered.values_mut() {
            complete.retain(|node| !nodes.contains(node));
        }
    }

    /// Keeps what is about targets of packages in the plans: an office that is selected again later begins anew.
    pub(super) fn keep_to(&mut self, rollout: &Rollout) {
        let counts = |package: &PackageKey, office: &OfficeName| {
            rollout.distributed(package).is_some_and(|report| report.targets.contains(office))
        };
        for (package, offices) in &mut self.settled {
            offices.retain(|office| counts(package, office));
        }
        self.settled.retain(|_, offices| !offices.is_empty());
        self.lacking_since.retain(|(package, office), _| counts(package, office));
    }

    /// Takes in how an office stands. Returns whether it settled, or did so no longer.
    fn take(&mut self, now: Instant, package: &PackageKey, office: &OfficeName, standing: Standing) -> bool {
        let place = (package.clone(), office.clone());
        let is_settled = self.settled.get(package).is_some_and(|offices| offices.contains(office));
        if standing != Standing::Lacks || !is_settled {
            self.lacking_since.remove(&place);
            return standing == Standing::Complete
                && self.settled.entry(package.clone()).or_default().insert(office.clone());
        }
        let since = *self.lacking_since.entry(place.clone()).or_insert(now);
        if since + LACKS_PATIENCE > now {
            return false;
        }
        self.lacking_since.remove(&place);
        self.settled.get_mut(package).is_some_and(|offices| offices.remove(office))
    }
}

impl Server {
    /// The objects came, and nothing was heard yet: what is remembered counts.
    pub(super) fn settle_by_memory(&mut self, now: Instant) {
        let nodes = self.nodes_by_office();
        let mut complete = Vec::new();
        for package in self.settling.remembered.keys().filter_map(|key| self.library.get(key)) {
            for (office, nodes) in &nodes {
                if self.standing(office, package, nodes) == Standing::Complete {
                    complete.push((package.key.clone(), office.clone()));
                }
            }
        }
        for (package, office) in complete {
            self.settling.take(now, &package, &office, Standing::Complete);
        }
    }

    /// Looks at what was heard since the last look. Returns whether some office on the way is needed now and was not, or
    /// the other way round: then plans have to be made anew.
    pub(super) fn look_who_settled(&mut self, now: Instant) -> bool {
        let passing: BTreeMap<Digest, &IngestedPackage> =
            self.passing().map(|package| (package.digest, package)).collect();
        let heard = self.settling.heard.iter();
        let heard = heard.filter_map(|(digest, office)| Some((*passing.get(digest)?, office)));
        let lacking = self.settling.lacking_since.keys();
        let lacking = lacking.filter_map(|(package, office)| Some((self.library.get(package)?, office)));
        let looked_at: BTreeSet<(&PackageKey, &OfficeName)> =
            heard.chain(lacking).map(|(package, office)| (&package.key, office)).collect();
        let nodes = if looked_at.is_empty() { BTreeMap::new() } else { self.nodes_by_office() };
        let standings: Vec<(PackageKey, OfficeName, Standing)> = looked_at
            .into_iter()
            .filter_map(|(package, office)| {
                let nodes = nodes.get(office).map(Vec::as_slice).unwrap_or_default();
                let standing = self.standing(office, self.library.get(package)?, nodes);
                Some((package.clone(), office.clone(), standing))
            })
            .collect();
        self.settling.heard.clear();
        let mut moved = BTreeSet::new();
        for (package, office, standing) in standings {
            if self.settling.take(now, &package, &office, standing) {
                moved.insert(package.distribution);
            }
        }
        moved.iter().any(|distribution| self.passes_on_otherwise(distribution))
    }

    /// Packages in the plans that offices hold for others.
    fn passing(&self) -> impl Iterator<Item = &IngestedPackage> {
        let passing = self.rollout.report.iter().filter(|(_, report)| !report.transit.is_empty());
        passing.filter_map(|(distribution, report)| {
            let key = PackageKey { distribution: distribution.clone(), version: report.distributed.clone()? };
            self.library.get(&key)
        })
    }

    /// Whether other offices on the way are needed than when plans were made last.
    fn passes_on_otherwise(&self, distribution: &DistributionKey) -> bool {
        let (Some(tree), Some(report)) = (&self.tree, self.rollout.report.get(distribution)) else { return false };
        let Some(version) = report.distributed.clone() else { return false };
        let settled = self.settling.settled.get(&PackageKey { distribution: distribution.clone(), version });
        passed_on(tree, &report.targets, &report.transit, settled) != report.passed_on
    }

    fn standing(&self, office: &OfficeName, package: &IngestedPackage, nodes: &[NodeName]) -> Standing {
        let progress = self.progress(office, package.digest);
        let remembered = self.settling.remembered.get(&package.key);
        let remembered = remembered.filter(|_| !self.came_in_this_run(office, package.digest));
        let is_complete = |node: &NodeName| match progress.and_then(|progress| progress.nodes.get(node)) {
            Some(state) => state.complete,
            None => remembered.is_some_and(|complete| complete.contains(node)),
        };
        if self.office(office).is_none_or(|(office_type, _)| office_type == OfficeType::Vpn) {
            return Standing::Lacks;
        }
        if !nodes.is_empty() && nodes.iter().all(is_complete) {
            return Standing::Complete;
        }
        // A package without chunks is lacking where nobody has published it.
        let lacks = |available: u32| (available as usize) < package.lengths.len() || !nodes.iter().any(is_complete);
        if progress.and_then(|progress| progress.available_chunks).is_some_and(lacks) {
            Standing::Lacks
        } else {
            Standing::Undecided
        }
    }

    fn nodes_by_office(&self) -> BTreeMap<OfficeName, Vec<NodeName>> {
        let mut nodes: BTreeMap<OfficeName, Vec<NodeName>> = BTreeMap::new();
        for known in self.nodes.values() {
            nodes.entry(known.node.office.clone()).or_default().push(known.node.name.clone());
        }
        nodes
    }
}

#[cfg(test)]
mod tests;
