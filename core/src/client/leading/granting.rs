//! What child offices may have, from whom, and once: the ledger of each link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{FAILURES_TO_BRING_IN, Leading, Link};
use crate::chunk_set::{ChunkIndex, ChunkSet, runs_of};
use crate::client::Client;
use crate::client::event::{NOT_GRANTED, NOT_READY, NOT_RENDEZVOUS_POINT, Refusal};
use crate::digest::Digest;
use crate::message::{
    Assignment, Fetch, Grant, Holder, Inventory, Message, PackageInventory, RUNS_MAX, Unserved, UnservedReason,
};
use crate::names::NodeName;
use crate::office::OfficeType;
use crate::peer::NodeRef;

impl Client {
    /// A child office asks: grants what somebody here has and was not given over this link before.
    pub(in crate::client) fn take_fetch(&mut self, now: Instant, from: &NodeRef, fetch: Fetch) -> Result<(), Refusal> {
        let link = self.link(from, fetch.digest)?;
        self.child_asks(now, fetch.digest);
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get(&fetch.digest)) else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        if !package.is_prepared() {
            return Err(Refusal::new(NOT_READY, "the manifest is not here yet"));
        }
        let capacity = package.capacity();
        for holder in &fetch.delivered_by {
            leading.avoided_for_children.delivered(&(link.clone(), holder.clone()));
        }
        let ledger = leading.links.entry(link.clone()).or_default();
        let answer = ledger.ask(fetch.digest, &from.name, &fetch.runs, capacity, &fetch.lost_holders);
        let doubted = leading.view.doubted(now, &self.config.me.name, fetch.digest, FAILURES_TO_BRING_IN);
        let left_out = leading.left_out(now, &link, &doubted);
        let (granted, not_yet) = leading.grant(now, &left_out, &link, fetch.digest, from, &answer.open, capacity);
        if !not_yet.is_empty() {
            let promise =
                leading.waiting.entry((link, fetch.digest)).or_insert_with(|| (from.clone(), ChunkSet::new(capacity)));
            if promise.0 != *from {
                *promise = (from.clone(), ChunkSet::new(capacity));
            }
            not_yet.iter().for_each(|&index| {
                promise.1.insert(index);
            });
            self.hurry(now);
        }
        let given_before =
            answer.given_before.into_iter().map(|(node, chunks)| (node, runs_of(chunks))).collect::<Vec<_>>();
        let grant = Grant { digest: fetch.digest, granted, given_before, not_yet: runs_of(not_yet) };
        self.send_small(from, Message::Grant(grant));
        Ok(())
    }

    /// Checks that the peer is of a child office that may have the package.
    fn link(&self, from: &NodeRef, digest: Digest) -> Result<Link, Refusal> {
        let child = self.plan.as_ref().and_then(|plan| plan.children.get(plan.place_of_child(&from.office)?));
        let Some(child) = child else {
            return Err(Refusal::new(NOT_GRANTED, format!("office {} is no child of this office", from.office)));
        };
        if !self.is_granted(&from.office, digest) {
            return Err(Refusal::new(NOT_GRANTED, format!("office {} has no grant for this package", from.office)));
        }
        let node = (child.office_type == OfficeType::Vpn).then(|| from.name.clone());
        Ok((from.office.clone(), node))
    }

    /// Chunks arrived that a child waits for.
    pub(super) fn grant_waiting(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let me = &self.config.me.name;
        // Mostly nobody is left out, and the same goes for all children.
        let mut present: BTreeMap<(Digest, BTreeSet<NodeName>), ChunkSet> = BTreeMap::new();
        let mut doubted: BTreeMap<Digest, BTreeSet<NodeName>> = BTreeMap::new();
        let mut grants = Vec::new();
        let mut waiting = std::mem::take(&mut leading.waiting);
        waiting.retain(|(link, digest), (asker, wanted)| {
            let Some(package) = self.packages.get(digest) else { return false };
            let capacity = package.capacity();
            let doubted =
                doubted.entry(*digest).or_insert_with(|| leading.view.doubted(now, me, *digest, FAILURES_TO_BRING_IN));
            let left_out = leading.left_out(now, link, doubted);
            let mut open = wanted.clone();
            open.intersect_with(
                present
                    .entry((*digest, left_out.clone()))
                    .or_insert_with(|| leading.view.spread(now, *digest, capacity, &left_out).0),
            );
            if open.is_empty() || package.planned.paused {
                return true;
            }
            let open: Vec<ChunkIndex> = open.iter().take(RUNS_MAX).collect();
            let (granted, not_yet) = leading.grant(now, &left_out, link, *digest, asker, &open, capacity);
            open.iter().filter(|index| !not_yet.contains(index)).for_each(|&index| {
                wanted.remove(index);
            });
            if !granted.is_empty() {
                let grant = Grant { digest: *digest, granted, given_before: Vec::new(), not_yet: Vec::new() };
                grants.push((asker.clone(), grant));
            }
            !wanted.is_empty()
        });
        leading.waiting = waiting;
        for (asker, grant) in grants {
            self.send_small(&asker, Message::Grant(grant));
        }
    }

    /// A child was not served: the ledger takes the chunks back and names another holder next time.
    pub(in crate::client) fn take_child_unserved(
        &mut self,
        now: Instant,
        from: &NodeRef,
        unserved: Unserved,
    ) -> Result<(), Refusal> {
        let link = self.link(from, unserved.digest)?;
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        leading.links.entry(link.clone()).or_default().take_back(unserved.digest, &from.name, &unserved.runs);
        if let Some(holder) = unserved.holder.filter(|holder| leading.view.member(holder).is_some()) {
            // Rubbish may have become so on the way, and there may be no other holder: it is tried again sooner.
            let reason = match unserved.reason {
                UnservedReason::Corrupt => UnservedReason::Unreachable,
                reason => reason,
            };
            leading.avoided_for_children.unserved(now, &(link, holder), &reason);
        }
        Ok(())
    }

    pub(in crate::client) fn take_child_inventory(
        &mut self,
        from: &NodeRef,
        inventory: Inventory,
    ) -> Result<(), Refusal> {
        for PackageInventory { digest, available, .. } in inventory.packages {
            let link = self.link(from, digest)?;
            let Some(package) = self.packages.get(&digest).filter(|package| package.is_prepared()) else { continue };
            let chunks = ChunkSet::from_bytes(package.capacity(), &available);
            if let Some(leading) = &mut self.leading {
                leading.links.entry(link).or_default().learn(digest, &from.name, &chunks);
            }
        }
        Ok(())
    }
}

impl Leading {
    /// What children wait for of a package.
    pub(super) fn demand(&self, digest: Digest, capacity: u32) -> ChunkSet {
        let mut demand = ChunkSet::new(capacity);
        for (_, (_, wanted)) in self.waiting.iter().filter(|((_, waits_for), _)| *waits_for == digest) {
            demand.union_with(wanted);
        }
        demand
    }

    /// Members that are not named to a child as holders: those whom the office doubts, and those that failed this child.
    fn left_out(&self, now: Instant, link: &Link, doubted: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
        let mut left_out = doubted.clone();
        let by_child = self.avoided_for_children.iter(now).filter(|((of_link, _), _)| of_link == link);
        left_out.extend(by_child.map(|((_, holder), _)| holder.clone()));
        left_out
    }

    /// Names a holder for each chunk and notes it in the ledger. Returns the grants and what nobody has.
    #[allow(clippy::too_many_arguments, reason = "a grant has as many sides")]
    fn grant(
        &mut self,
        now: Instant,
        left_out: &BTreeSet<NodeName>,
        link: &Link,
        digest: Digest,
        asker: &NodeRef,
        open: &[ChunkIndex],
        capacity: u32,
    ) -> (Vec<Assignment>, Vec<ChunkIndex>) {
        let ledger = self.links.entry(link.clone()).or_default();
        let (mut by_holder, mut not_yet) = (BTreeMap::<Holder, Vec<ChunkIndex>>::new(), Vec::new());
        for &index in open {
            match self.view.holder_for_child(now, digest, index, left_out) {
                Some(holder) => {
                    ledger.give(digest, &asker.name, index, capacity);
                    by_holder.entry(holder).or_default().push(index);
                }
                None => not_yet.push(index),
            }
        }
        let granted = by_holder
            .into_iter()
            .map(|(holder, chunks)| Assignment { holder, runs: runs_of(chunks), lost_holders: Vec::new() })
            .collect();
        (granted, not_yet)
    }
}

#[cfg(test)]
mod tests;
