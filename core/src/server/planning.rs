//! From the objects to the plan of every office.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::event::ServerOutput;
use super::{IngestedPackage, Server};
use crate::digest::Digest;
use crate::message::Revision;
use crate::names::{NodeName, OfficeName, PackageKey};
use crate::office::OfficeType;
use crate::peer::NodeRef;
use crate::plan::{ANSWERERS_MAX, ChildOffice, PARENT_NODES_MAX, Plan, PlannedPackage};
use crate::rollout::{Holding, OfficePackage, RolloutInput, decide_rollout};

/// The nodes of offices.
type Members = BTreeMap<OfficeName, Vec<NodeRef>>;

impl Server {
    /// Decides anew what is ingested and what every office holds.
    pub(super) fn replan(&mut self, wall: Timestamp) {
        let Some(tree) = &self.tree else { return };
        let rollout = decide_rollout(RolloutInput {
            distributions: &self.distributions,
            ingested: &self.ingested,
            tree,
            settled: self.settling.settled(),
            now: wall,
        });
        let before = std::mem::replace(&mut self.rollout, rollout);
        self.rollout.keep_to_room(tree, |package| self.library.get(package).map_or(0, |known| known.root.bytes()));
        self.settling.keep_to(&self.rollout);
        let digests: BTreeSet<Digest> = self.library.values().map(|package| package.digest).collect();
        // What the Central Office has passed on it deletes: should it get it again, nobody there has it.
        let passed_on = |package: &&IngestedPackage| self.rollout.has_passed_on(tree.central(), &package.key);
        let passed_on: BTreeSet<Digest> =
            self.library.values().filter(passed_on).map(|package| package.digest).collect();
        self.central_ledger.retain(|digest| digests.contains(digest) && !passed_on.contains(digest));
        self.forget_unwanted_progress();
        self.have_unwanted_progress_forgotten(&before);
        self.note_what_became_current();
        self.look_again_at = self.rollout.look_again_at;
        self.order_ingests();
        self.plan_offices();
    }

    /// An object may have gone back to an older version: that is the one before the next.
    fn note_what_became_current(&mut self) {
        for (key, report) in &self.rollout.report {
            let (Some(current), Some(versions)) = (&report.distributed, self.ingested.get_mut(key)) else { continue };
            versions.sort_by_key(|version| version == current);
        }
    }

    fn order_ingests(&mut self) {
        let wanted = self.rollout.ingest.clone();
        let stale: Vec<PackageKey> = self.ingesting.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        for key in stale {
            self.ingesting.remove(&key);
            self.outputs.push_back(ServerOutput::CancelIngest { key });
        }
        for key in wanted {
            let Some(distribution) = self.distributions.get(&key.distribution) else { continue };
            let order = (distribution.source.clone(), distribution.unpack);
            if self.ingesting.insert(key, order.clone()) != Some(order) {
                self.outputs.push_back(ServerOutput::Ingest { distribution: distribution.clone() });
            }
        }
    }

    /// Builds every office's plan and pushes those that changed.
    pub(super) fn plan_offices(&mut self) {
        let Some(tree) = &self.tree else { return };
        let offices = tree.offices().map(|office| office.name.clone()).collect();
        self.newcomers.clear();
        self.plans.retain(|name, _| tree.office(name).is_some());
        self.listings.keep_to(tree);
        self.overtaken.retain(|name, _| tree.office(name).is_some());
        self.first_above_told.retain(|name, _| tree.office(name).is_some());
        self.plan_each(&offices);
    }

    /// The plans of the offices beside this one name its rendezvous point: it is another one now. They are made at the
    /// next regular look, once for all that changes until then: after a start of the server every office claims.
    pub(super) fn plan_neighbours_soon(&mut self, office: &OfficeName) {
        let Some(tree) = &self.tree else { return };
        self.newcomers.extend(tree.children_of(office).chain(tree.parent_of(office)).cloned());
    }

    /// Nodes became known in some offices since, or rendezvous points beside them: their plans lack those.
    pub(super) fn plan_for_newcomers(&mut self) {
        let offices = std::mem::take(&mut self.newcomers);
        if !offices.is_empty() {
            self.plan_each(&offices);
        }
    }

    fn plan_each(&mut self, offices: &BTreeSet<OfficeName>) {
        let members = self.members(offices);
        let changed: Vec<&OfficeName> = offices.iter().filter(|office| self.plan_office(office, &members)).collect();
        for office in changed {
            self.push_plan(office);
        }
    }

    /// The nodes of these offices and of their parents, gathered in one go.
    fn members(&self, offices: &BTreeSet<OfficeName>) -> Members {
        let parents = self.tree.iter().flat_map(|tree| offices.iter().filter_map(|office| tree.parent_of(office)));
        let mut members: Members = offices.iter().chain(parents).map(|office| (office.clone(), Vec::new())).collect();
        for known in self.nodes.values() {
            if let Some(nodes) = members.get_mut(&known.node.office) {
                nodes.push(known.node.clone());
            }
        }
        members
    }

    /// Builds an office's plan. True when it changed.
    fn plan_office(&mut self, name: &OfficeName, members: &Members) -> bool {
        let Some(mut plan) = self.build_plan(name, members) else { return false };
        let is_renumbered = self.renumbered.remove(name);
        let members = members.get(name).filter(|_| plan.office_type.broadcasts());
        let members = members.map(Vec::as_slice).unwrap_or_default();
        if let Some(old) = self.plans.get(name) {
            plan.revision = old.revision;
            if still_answer(&old.answerers, members) {
                plan.answerers = old.answerers.clone();
                if plan == *old && !is_renumbered {
                    return false;
                }
            }
        }
        self.revision += 1;
        plan.revision = self.revision;
        self.note_number(name, plan.revision);
        plan.answerers = answerers(members, plan.revision);
        for digest in self.listings.take(self.plans.get(name), &plan) {
            if let Some(progress) = self.progress.get_mut(&(name.clone(), digest)) {
                progress.begin_anew();
            }
        }
        self.plans.insert(name.clone(), plan);
        true
    }

    fn build_plan(&self, name: &OfficeName, members: &Members) -> Option<Plan> {
        let tree = self.tree.as_ref()?;
        let office = tree.office(name)?;
        let parent = tree.parent_of(name).cloned();
        // Nodes would delete what it does not name.
        let packages = self.rollout.offices.get(name)?;
        let awaited = self.rollout.awaited.get(name).cloned().unwrap_or_default();
        Some(Plan {
            revision: 0,
            office: name.clone(),
            office_type: office.office_type,
            central: tree.is_central(name),
            parent_nodes: parent.as_ref().map(|parent| self.nodes_to_ask(parent, members)).unwrap_or_default(),
            parent,
            children: tree
                .children_of(name)
                .filter_map(|child| {
                    let office_type = tree.office(child)?.office_type;
                    let nodes = match self.rendezvous_points.get(child) {
                        Some(point) if office_type != OfficeType::Vpn => vec![point.node.clone()],
                        _ => Vec::new(),
                    };
                    Some(ChildOffice { name: child.clone(), office_type, nodes })
                })
                .collect(),
            packages: packages.iter().filter_map(|package| self.planned(package)).collect(),
            awaited,
            server_addresses: self.config.addresses.clone(),
            storage_limit_bytes: office.storage_limit_bytes.unwrap_or(0),
            retention_seconds: self.config.retention_seconds,
            background_bits_per_second_max: office.background_bits_per_second_max.unwrap_or(0),
            answerers: Vec::new(),
        })
    }

    /// The rendezvous point first; others in case it dies, though only while it is unknown, lest every enrolment of a
    /// node change the plans of all child offices.
    fn nodes_to_ask(&self, office: &OfficeName, members: &Members) -> Vec<NodeRef> {
        if let Some(point) = self.rendezvous_points.get(office) {
            return vec![point.node.clone()];
        }
        members.get(office).into_iter().flatten().take(PARENT_NODES_MAX).cloned().collect()
    }

    fn planned(&self, package: &OfficePackage) -> Option<PlannedPackage> {
        let ingested = self.library.get(&package.package)?;
        Some(PlannedPackage {
            key: package.package.clone(),
            digest: ingested.digest,
            root: ingested.root.clone(),
            target: package.holding == Holding::Target,
            paused: package.paused,
            priority: package.priority,
            retention_versions: package.retention_versions,
            granted_children: package.granted_children.clone(),
        })
    }
}

/// Which members answer broadcast questions: with every revision others, so that the work and the chance of having died
/// spread.
fn answerers(members: &[NodeRef], revision: Revision) -> Vec<NodeName> {
    let start = (revision % members.len().max(1) as u64) as usize;
    let chosen = members.iter().cycle().skip(start).take(members.len().min(ANSWERERS_MAX));
    chosen.map(|node| node.name.clone()).collect()
}

/// Whether the answerers of a plan are still members and as many as there can be: no plan changes without need.
fn still_answer(answerers: &[NodeName], members: &[NodeRef]) -> bool {
    let is_member = |name: &NodeName| members.iter().any(|node| node.name == *name);
    answerers.len() == members.len().min(ANSWERERS_MAX) && answerers.iter().all(is_member)
}

#[cfg(test)]
mod tests;
