//! The office as its rendezvous point sees it: members, what each has available, what each was told to fetch.
//! Filled by reports and inventories; a member that stays silent for [`MEMBER_SILENCE`] does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assigner::LINK_WINDOW_BYTES;
use super::coming::COMING_MAX;
use super::member_package::MemberPackage;
use crate::chunk_set::{ChunkIndex, ChunkSet};
use crate::digest::Digest;
use crate::message::{Holder, NodeState, PackageDelta, RUNS_MAX, Revision};
use crate::names::NodeName;
use crate::peer::NodeRef;

/// A member is reckoned with for this long after its last report.
pub const MEMBER_SILENCE: Duration = Duration::from_millis(4_000);
/// So many members besides the rendezvous point have to doubt another one.
const DOUBTERS_MIN: usize = 2;
/// Most packages of a member of which reports are kept until their manifest is here.
const EARLY_PACKAGES_MAX: usize = 256;
/// Most members an office has.
pub const MEMBERS_MAX: usize = 10_000;

/// The chunks of a package as machines need them: the length of each.
pub type ChunkLengths = Arc<[u32]>;

/// A member and its packages.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub node: NodeRef,
    /// Its process.
    pub boot_id: u64,
    /// When this process of it was heard first.
    pub heard_since: Instant,
    /// When it last reported.
    pub last_report: Instant,
    /// The plan it has.
    pub plan_revision: Revision,
    /// What it has and fetches, of packages that it has made ready for.
    pub packages: BTreeMap<Digest, MemberPackage>,
    /// What it reported of packages whose manifest is not here yet.
    early: BTreeMap<Digest, PackageDelta>,
    /// It has to say everything: its inventory has not come, or something it said could not be kept.
    inventory_wanted: bool,
}

/// Every member of an office.
#[derive(Debug, Default)]
pub struct OfficeView {
    members: BTreeMap<NodeName, Member>,
    /// Members that sent rubbish to the rendezvous point itself: what they say they have does not count until then.
    distrusted: BTreeMap<NodeName, Instant>,
    /// Until when members' word on what comes to them counts; `None`: always.
    awaits_until: Option<Instant>,
}

impl OfficeView {
    /// The view of a rendezvous point that takes over: what comes to members comes from orders of its predecessor, and
    /// is waited for [`COMING_MAX`] at most, however often they begin anew.
    pub fn taking_over(now: Instant) -> Self {
        Self { awaits_until: Some(now + COMING_MAX), ..Self::default() }
    }

    fn awaits(&self, now: Instant) -> bool {
        self.awaits_until.is_none_or(|until| until > now)
    }

    /// Whether the chunk is at a member, or on its way to it from outside the office.
    pub fn has_or_expects(&self, now: Instant, package: &MemberPackage, index: ChunkIndex) -> bool {
        package.available.contains(index) || (self.awaits(now) && package.coming.contains(now, index))
    }

    /// Notes that a member reported. Returns whether its earlier state is void or unknown, so that it has to send its
    /// inventory. `None` when the office is full.
    pub fn heard(&mut self, now: Instant, node: &NodeRef, boot_id: u64, plan_revision: Revision) -> Option<bool> {
        if let Some(member) = self.members.get_mut(&node.name) {
            let restarted = member.boot_id != boot_id;
            if restarted {
                member.packages.clear();
                member.early.clear();
                member.inventory_wanted = true;
                member.heard_since = now;
            }
            member.node = node.clone();
            member.boot_id = boot_id;
            member.last_report = now;
            member.plan_revision = plan_revision;
            return Some(member.inventory_wanted);
        }
        if self.members.len() >= MEMBERS_MAX {
            return None;
        }
        let member = Member {
            node: node.clone(),
            boot_id,
            heard_since: now,
            last_report: now,
            plan_revision,
            packages: BTreeMap::new(),
            early: BTreeMap::new(),
            inventory_wanted: true,
        };
        self.members.insert(node.name.clone(), member);
        Some(true)
    }

    /// A member's package, made when it is new.
    pub fn package(&mut self, member: &NodeName, digest: Digest, capacity: u32) -> Option<&mut MemberPackage> {
        let member = self.members.get_mut(member)?;
        Some(member.packages.entry(digest).or_insert_with(|| MemberPackage::new(capacity)))
    }

    /// A member's package, if it has reported it.
    pub fn known_package(&mut self, member: &NodeName, digest: Digest) -> Option<&mut MemberPackage> {
        self.members.get_mut(member)?.packages.get_mut(&digest)
    }

    /// Takes in what a member says of a package. `capacity` is none while the manifest is not here: that is kept for
    /// [`OfficeView::take_early`], or the member has to say it again.
    pub fn learn(&mut self, now: Instant, member: &NodeName, delta: PackageDelta, capacity: Option<u32>) {
        let Some(member) = self.members.get_mut(member) else { return };
        // The manifest may have come and gone: a store that refused the package makes ready for it again.
        let known = member.packages.get(&delta.digest).map(|package| package.available.capacity());
        if let Some(capacity) = capacity.or(known) {
            let package = member.packages.entry(delta.digest).or_insert_with(|| MemberPackage::new(capacity));
            package.gain(now, &delta.available);
            package.lose(&delta.lost);
            package.coming.said(now, &delta.coming, &package.available);
            if !delta.state.is_before(&package.state) {
                package.state = delta.state;
            }
            return;
        }
        let is_new = !member.early.contains_key(&delta.digest);
        if (is_new && member.early.len() >= EARLY_PACKAGES_MAX) || (!is_new && !delta.lost.is_empty()) {
            member.inventory_wanted = true;
            return;
        }
        let early = member.early.entry(delta.digest).or_insert_with(|| PackageDelta {
            digest: delta.digest,
            available: Vec::new(),
            lost: Vec::new(),
            coming: Vec::new(),
            state: NodeState::default(),
        });
        let room = RUNS_MAX - early.available.len();
        if delta.available.len() > room {
            member.inventory_wanted = true;
        }
        early.available.extend(delta.available.into_iter().take(room));
        if !delta.state.is_before(&early.state) {
            (early.coming, early.state) = (delta.coming, delta.state);
        }
    }

    /// The manifest of a package came: what members said of it before counts now.
    pub fn take_early(&mut self, now: Instant, digest: Digest, capacity: u32) {
        let early: Vec<(NodeName, PackageDelta)> = self
            .members
            .iter_mut()
            .filter_map(|(name, member)| Some((name.clone(), member.early.remove(&digest)?)))
            .collect();
        for (member, delta) in early {
            self.learn(now, &member, delta, Some(capacity));
        }
    }

    /// Forgets what members said of a package.
    pub fn forget(&mut self, digest: Digest) {
        for member in self.members.values_mut() {
            member.packages.remove(&digest);
            member.early.remove(&digest);
        }
    }

    /// A member says everything: nothing that was left out before is missing any more.
    pub fn inventory_came(&mut self, member: &NodeName) {
        if let Some(member) = self.members.get_mut(member) {
            member.inventory_wanted = false;
        }
    }

    /// Every member.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// How many there are, silent ones included.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// What a member says of a package on its disk, also while the manifest is not here.
    pub fn state_on(&self, member: &NodeName, digest: Digest) -> Option<&NodeState> {
        let member = self.members.get(member)?;
        let known = member.packages.get(&digest).map(|package| &package.state);
        known.or_else(|| member.early.get(&digest).map(|early| &early.state))
    }

    /// One member.
    pub fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.get(name)
    }

    /// Members that reported lately.
    pub fn live(&self, now: Instant) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| member.last_report + MEMBER_SILENCE > now)
    }

    /// Whether the node is a live member.
    pub fn is_live(&self, now: Instant, name: &NodeName) -> bool {
        self.members.get(name).is_some_and(|member| member.last_report + MEMBER_SILENCE > now)
    }

    /// Disregards what a member says it has. Only for what this node saw itself: hearsay would let a liar smear others.
    pub fn distrust(&mut self, member: &NodeName, until: Instant) {
        if self.members.contains_key(member) {
            self.distrusted.insert(member.clone(), until);
        }
    }

    /// Live members whose word on what they have counts.
    pub fn holders(&self, now: Instant) -> impl Iterator<Item = &Member> {
        self.live(now).filter(move |member| self.distrusted.get(&member.node.name).is_none_or(|&until| until <= now))
    }

    /// A member said of this one that it does not have what it claims. It may be so or not: it says everything again.
    pub fn ask_for_inventory(&mut self, member: &NodeName) {
        if let Some(member) = self.members.get_mut(member) {
            member.inventory_wanted = true;
        }
    }

    /// Every member says everything again.
    pub fn ask_for_inventories(&mut self) {
        self.members.values_mut().for_each(|member| member.inventory_wanted = true);
    }

    /// Members whose word on what they have of a package does not count for what the office has: they failed `me` so
    /// often in a row, or at least [`DOUBTERS_MIN`] others, and are left alone now. One member's word is not enough, or
    /// a liar could smear others.
    pub fn doubted(&self, now: Instant, me: &NodeName, digest: Digest, failures_min: u32) -> BTreeSet<NodeName> {
        let mut doubters: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for member in self.live(now) {
            let Some(package) = member.packages.get(&digest) else { continue };
            let weight = if member.node.name == *me { DOUBTERS_MIN } else { 1 };
            for (holder, failures) in package.avoided.iter(now) {
                if let Some(holder) = holder.as_ref().filter(|holder| *holder != me && failures >= failures_min) {
                    *doubters.entry(holder).or_default() += weight;
                }
            }
        }
        let doubted = doubters.into_iter().filter(|(_, count)| *count >= DOUBTERS_MIN).map(|(holder, _)| holder);
        let distrusted = self.distrusted.iter().filter(|(_, until)| **until > now).map(|(holder, _)| holder);
        doubted.chain(distrusted).cloned().collect()
    }

    /// Chunks that at least one live member has, and chunks that at least two have, leaving out some members.
    pub fn spread(
        &self,
        now: Instant,
        digest: Digest,
        capacity: u32,
        doubted: &BTreeSet<NodeName>,
    ) -> (ChunkSet, ChunkSet) {
        let (mut once, mut twice) = (ChunkSet::new(capacity), ChunkSet::new(capacity));
        let holders = self.holders(now).filter(|member| !doubted.contains(&member.node.name));
        for package in holders.filter_map(|member| member.packages.get(&digest)) {
            let mut again = once.clone();
            again.intersect_with(&package.available);
            twice.union_with(&again);
            once.union_with(&package.available);
        }
        (once, twice)
    }

    /// Chunks that some live member was told to fetch. Assignments of silent members and old ones are voided.
    pub fn spoken_for(&mut self, now: Instant, digest: Digest, capacity: u32) -> ChunkSet {
        let mut spoken = ChunkSet::new(capacity);
        for member in self.members.values_mut() {
            let live = member.last_report + MEMBER_SILENCE > now;
            let Some(package) = member.packages.get_mut(&digest) else { continue };
            package.assigned.retain(|_, assigned| live && assigned.until > now);
            package.assigned.keys().for_each(|&index| {
                spoken.insert(index);
            });
        }
        spoken
    }

    /// Chunks that are on their way to live members from outside the office; of each member no more than an honest one
    /// lets come at once.
    pub fn coming(&self, now: Instant, digest: Digest, lengths: &ChunkLengths) -> ChunkSet {
        let mut coming = ChunkSet::new(lengths.len() as u32);
        let awaited = self.live(now).filter(|_| self.awaits(now));
        for package in awaited.filter_map(|member| member.packages.get(&digest)) {
            let mut room = LINK_WINDOW_BYTES;
            for index in package.coming.iter(now) {
                if room == 0 {
                    break;
                }
                room = room.saturating_sub(lengths.get(index as usize).copied().map_or(0, u64::from));
                coming.insert(index);
            }
        }
        coming
    }

    /// A live member that has the chunk; which one depends on the chunk, so that the load spreads.
    pub fn holder_for_child(
        &self,
        now: Instant,
        digest: Digest,
        index: ChunkIndex,
        avoid: &BTreeSet<NodeName>,
    ) -> Option<Holder> {
        let holders: Vec<&NodeRef> = self
            .holders(now)
            .filter(|member| !avoid.contains(&member.node.name))
            .filter(|member| member.packages.get(&digest).is_some_and(|package| package.available.contains(index)))
            .map(|member| &member.node)
            .collect();
        let neighbours = 32;
        holders.get((index / neighbours) as usize % holders.len().max(1)).map(|&node| Holder::Node(node.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
