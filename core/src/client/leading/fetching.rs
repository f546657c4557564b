//! What the office lacks is asked of the parent office, and wanted of the holders that the parent names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{FAILURES_TO_BRING_IN, FAILURES_TO_BRING_IN_AGAIN, LOST_AFTER, Leading};
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, indices_of, runs_of};
use crate::client::Client;
use crate::client::event::{NOT_RENDEZVOUS_POINT, Refusal};
use crate::client::receiving::Incoming;
use crate::digest::Digest;
use crate::message::{Fetch, Grant, Holder, Inventory, Message, PackageInventory, Unserved, UnservedReason};
use crate::names::NodeName;
use crate::peer::{ContentClass, MessageClass, NodeRef, Peer};
use crate::plan::PlannedPackage;

/// A live member that has said nothing of a package for so long has nothing of it: it began anew with an empty disk
/// while the package only passes through, or does not tell.
const SAYS_NOTHING: Duration = Duration::from_secs(120);

/// A transfer that brought nothing for so long takes no share of the link from other packages.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// A package that may be brought in over the link to the parent office.
pub(super) struct OverLink {
    digest: Digest,
    /// What only one member has of it although others want it.
    unshared_bytes: u64,
}

impl Client {
    /// Asks the parent office for what nobody here has. `None` when the package is not to be brought in now.
    pub(super) fn ask_parent(&mut self, now: Instant, digest: Digest) -> Option<OverLink> {
        if self.config.central || !self.may_bring_in(now, digest) {
            return None;
        }
        self.look_at_parent(now, digest);
        let parent = self.parent_node(now)?;
        let (leading, package) = (self.leading.as_mut()?, self.packages.get_mut(&digest)?);
        if package.state.error.is_some() {
            return None;
        }
        let doubted = leading.doubted(now, &self.config.me.name, &package.planned, FAILURES_TO_BRING_IN);
        let (present, twice) = leading.view.spread(now, digest, package.capacity(), &doubted);
        // A transit office has no use of its own for a chunk: it brings in what its children wait for.
        let demand = (!package.planned.target).then(|| leading.demand(digest, package.capacity()));
        let mut provided = leading.view.coming(now, digest, &package.lengths);
        provided.union_with(&present);
        let runs = package.upstream.next_request(now, &provided, demand.as_ref(), &package.lengths);
        let unshared_bytes = if package.planned.target && leading.has_receivers(now, &self.config.me.name, digest) {
            let mut unshared = present;
            unshared.subtract(&twice);
            unshared.iter().map(|index| package.bytes_of(index)).sum()
        } else {
            0
        };
        if !runs.is_empty() {
            let (lost_holders, delivered_by) =
                (package.upstream.take_lost_holders(), package.upstream.take_delivered_by());
            let fetch = Fetch { term: self.election.term(), digest, runs, lost_holders, delivered_by };
            self.send_small(&parent, Message::Fetch(fetch));
        }
        Some(OverLink { digest, unshared_bytes })
    }

    /// Wants of the holders what was granted, of the most urgent package first: all packages share the window of the
    /// link, and the others get what that one leaves.
    pub(super) fn want_by_urgency(&mut self, now: Instant, over_link: &[OverLink]) {
        let mut on_link = self.bytes_on_link(now);
        for OverLink { digest, unshared_bytes } in over_link {
            let Some(package) = self.packages.get_mut(digest) else { continue };
            let others: u64 = on_link.iter().filter(|(other, _)| *other != digest).map(|(_, bytes)| bytes).sum();
            let wants = package.upstream.next_wants(unshared_bytes + others, &package.lengths);
            let wants_more = !wants.is_empty();
            for (holder, runs) in wants {
                self.want_of_parent(now, holder, *digest, &runs);
            }
            let Some(package) = self.packages.get_mut(digest) else { continue };
            if wants_more {
                on_link.insert(*digest, package.upstream.wanted_bytes(&package.lengths));
            }
            if package.upstream.waits_for_link(*unshared_bytes, &package.lengths) {
                break;
            }
        }
        for OverLink { digest, unshared_bytes } in over_link {
            if let Some(package) = self.packages.get_mut(digest)
                && package.upstream.waits_for_link(*unshared_bytes, &package.lengths)
            {
                package.upstream.wait_for_link(now);
            }
        }
    }

    /// What each package has on its way over the link. One that rests, or of which nothing came for a while, takes
    /// nothing from the others.
    fn bytes_on_link(&self, now: Instant) -> BTreeMap<Digest, u64> {
        let moves = |incoming: &&Incoming| {
            incoming.class == ContentClass::Background
                && !incoming.pace.paused
                && incoming.last_progress + STALLED_AFTER > now
        };
        let moving: BTreeSet<Digest> = self.transfers.values().filter(moves).map(|incoming| incoming.digest).collect();
        let packages = moving.into_iter().filter_map(|digest| Some((digest, self.packages.get(&digest)?)));
        packages.map(|(digest, package)| (digest, package.upstream.wanted_bytes(&package.lengths))).collect()
    }

    /// Wants chunks of a holder that the parent named. What cannot be wanted now is asked for again.
    fn want_of_parent(&mut self, now: Instant, holder: NodeRef, digest: Digest, runs: &[ChunkRun]) {
        let started = self.start(now, Holder::Node(holder), ContentClass::Background, digest, runs, Vec::new());
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let idle = runs.iter().flat_map(|run| run.range()).filter(|index| !started.contains(*index));
        let idle = runs_of(idle.collect::<Vec<ChunkIndex>>());
        package.upstream.release(&idle);
    }

    pub(in crate::client) fn fetch_failed(&mut self, now: Instant, to: &Peer, fetch: &Fetch, refused: Option<&str>) {
        if let Some(package) = self.packages.get_mut(&fetch.digest) {
            package.upstream.undelivered(now, &fetch.runs);
        }
        if let Some(node) = to.node().filter(|_| refused.is_none() || refused == Some(NOT_RENDEZVOUS_POINT)) {
            self.parent.does_not_lead(node);
        }
    }

    pub(in crate::client) fn take_grant(&mut self, now: Instant, from: &NodeRef, grant: Grant) -> Result<(), Refusal> {
        let parent = self.plan.as_ref().and_then(|plan| plan.parent.clone());
        if parent.as_ref() != Some(&from.office) {
            return Err(Refusal::unexpected());
        }
        if self.leading.is_none() {
            self.decline_grants(from, grant);
            return Ok(());
        }
        let Some(package) = self.packages.get_mut(&grant.digest) else { return Ok(()) };
        package.upstream.promised(now, &grant.not_yet);
        let mut declined = Vec::new();
        for order in grant.granted {
            let Holder::Node(holder) = order.holder else { continue };
            if Some(&holder.office) != parent.as_ref() {
                continue;
            }
            let chunks = order.runs.iter().flat_map(|run| run.range());
            let refused: Vec<ChunkIndex> =
                chunks.filter(|&index| !package.upstream.granted(now, index, &holder)).collect();
            if !refused.is_empty() {
                let (digest, reason) = (grant.digest, UnservedReason::Unreachable);
                declined.push(Unserved { digest, holder: Some(holder.name), runs: runs_of(refused), reason });
            }
        }
        let me = self.config.me.name.clone();
        for (receiver, runs) in grant.given_before {
            let lost = self
                .leading
                .as_ref()
                .is_none_or(|leading| leading.has_lost(now, &me, &receiver, &package.planned, &runs));
            package.upstream.given_before(now, &receiver, lost, &runs);
        }
        for unserved in declined {
            self.send_unserved(from, unserved);
        }
        self.hurry(now);
        Ok(())
    }

    /// This node does not lead any more, or below another office: what it has not asked a holder for comes to others, or
    /// from others.
    pub(in crate::client) fn give_back_grants(&mut self) {
        let given_back: Vec<Unserved> = self
            .packages
            .iter_mut()
            .map(|(&digest, package)| (digest, package.upstream.give_back()))
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(digest, runs)| Unserved { digest, holder: None, runs, reason: UnservedReason::Ended })
            .collect();
        let Some(parent) = self.parent.last_asked().cloned() else { return };
        for unserved in given_back {
            self.send_unserved(&parent, unserved);
        }
    }

    /// The answer to a question of the time when this node led.
    fn decline_grants(&mut self, from: &NodeRef, grant: Grant) {
        let Some(package) = self.packages.get(&grant.digest) else { return };
        let granted = grant.granted.iter().flat_map(|order| &order.runs);
        let mut declined = ChunkSet::new(package.capacity());
        indices_of(&granted.copied().collect::<Vec<_>>(), package.capacity()).for_each(|index| {
            declined.insert(index);
        });
        package.upstream.outstanding().for_each(|index| {
            declined.remove(index);
        });
        declined.subtract(&package.available);
        if !declined.is_empty() {
            let (digest, runs, reason) = (grant.digest, declined.runs(), UnservedReason::Ended);
            self.send_unserved(from, Unserved { digest, holder: None, runs, reason });
        }
    }

    /// A new rendezvous point of the parent rebuilds its ledger from this.
    pub(in crate::client) fn tell_parent_what_came(&mut self, parent: &NodeRef) {
        let now_known: Vec<PackageInventory> = self
            .packages
            .values()
            .filter(|package| package.is_prepared())
            .map(|package| {
                let mut came = package.available.clone();
                package.upstream.outstanding().for_each(|index| {
                    came.insert(index);
                });
                PackageInventory {
                    digest: package.planned.digest,
                    available: came.to_bytes().into(),
                    coming: Vec::new(),
                    state: package.state.clone(),
                }
            })
            .collect();
        if now_known.is_empty() {
            return;
        }
        let inventory = Inventory { boot_id: self.config.boot_id, term: self.election.term(), packages: now_known };
        self.send(Peer::Node(parent.clone()), MessageClass::Background, Message::Inventory(inventory));
    }
}

impl Leading {
    /// Whether another member can still get chunks of the package from this node.
    fn has_receivers(&self, now: Instant, me: &NodeName, digest: Digest) -> bool {
        let from_me = Some(me.clone());
        self.view.live(now).filter(|member| member.node.name != *me).any(|member| {
            let on_member = member.packages.get(&digest);
            on_member.is_some_and(|package| {
                let wants = package.state.error.is_none() && !package.available.is_full();
                wants && package.may_use(now, &from_me) && !package.is_idle(now)
            })
        })
    }

    /// Whether a node that was given these chunks before is silent, does not pass them on, or neither has nor expects
    /// them, or says nothing of them, although it had its time.
    fn has_lost(
        &self,
        now: Instant,
        me: &NodeName,
        node: &NodeName,
        planned: &PlannedPackage,
        runs: &[ChunkRun],
    ) -> bool {
        if self.since + LOST_AFTER > now {
            return false;
        }
        let Some(member) = self.view.member(node).filter(|_| self.view.is_live(now, node)) else { return true };
        let lacks_any = match member.packages.get(&planned.digest) {
            Some(package) => {
                runs.iter().flat_map(|run| run.range()).any(|index| !self.view.has_or_expects(now, package, index))
            }
            None => member.heard_since + SAYS_NOTHING <= now,
        };
        lacks_any || self.doubted(now, me, planned, FAILURES_TO_BRING_IN_AGAIN).contains(node)
    }
}

#[cfg(test)]
mod tests;
