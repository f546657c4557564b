//! A rendezvous point that cannot take a package itself gives the role to a member that can, so that one full disk does
//! not keep the package from the office. Election is [`crate::rendezvous`]'s; this file decides when and to whom.
//!
//! Nodes are compared by the packages that somebody in the office or below still needs, the most urgent first: whoever
//! can take the first on which they differ is the better one; who has not said anything about it comes in between. The
//! role goes only to a better one, so it does not go back and forth while disks stay as they are, and nothing moves
//! when nobody has the space. A package that everybody has who can take it counts no more, so the next in urgency gets
//! its turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::client::{Client, Package};
use crate::digest::Digest;
use crate::message::Message;
use crate::names::NodeName;
use crate::office::OfficeType;
use crate::peer::{NodeRef, Peer};

/// A new rendezvous point hears its members for so long before it compares itself with them, and so long passes between
/// two requests to take the role.
const HANDOVER_INTERVAL: Duration = Duration::from_secs(3);
/// A member that did not take the role is left out for so long.
const DECLINED: Duration = Duration::from_secs(30);

/// A child office that asked needs the package for so long.
const CHILD_ASKS: Duration = Duration::from_secs(30);

/// Whether a node can take a package; the order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ability {
    /// Its store refuses it.
    Refuses,
    /// Nobody knows: it had no manifest yet, or the package only passes through and members do not try.
    Unknown,
    /// It can, or has it.
    Takes,
}

/// What a rendezvous point remembers of its tries to give the role away.
#[derive(Debug)]
pub(super) struct Handover {
    next_at: Instant,
    /// Members that did not take the role, until then.
    declined: BTreeMap<NodeName, Instant>,
    /// When a child office asked last, by package.
    children_asked: BTreeMap<Digest, Instant>,
}

impl Handover {
    pub(super) fn new(now: Instant) -> Self {
        Self { next_at: now + HANDOVER_INTERVAL, declined: BTreeMap::new(), children_asked: BTreeMap::new() }
    }
}

impl Client {
    /// A child office needs a package that it may have.
    pub(in crate::client) fn child_asks(&mut self, now: Instant, digest: Digest) {
        if let Some(leading) = &mut self.leading {
            leading.handover.children_asked.retain(|_, at| *at + CHILD_ASKS > now);
            leading.handover.children_asked.insert(digest, now);
        }
    }

    /// Asks the best member to lead, if it can take what this node cannot.
    pub(super) fn hand_over_if_unable(&mut self, now: Instant) {
        let alone = self.config.office_type == OfficeType::Vpn;
        let able = !self.packages.values().any(Package::is_refused_by_store);
        let Some(leading) = &mut self.leading else { return };
        if alone || able || leading.handover.next_at > now {
            return;
        }
        leading.handover.next_at = now + HANDOVER_INTERVAL;
        leading.handover.declined.retain(|_, until| *until > now);
        if let Some(member) = self.better_member(now) {
            let term = self.election.term();
            self.send_small(&member, Message::Handover { term });
        }
    }

    /// The member did not take the role.
    pub(in crate::client) fn handover_declined(&mut self, now: Instant, to: &Peer) {
        if let (Some(member), Some(leading)) = (to.node(), &mut self.leading) {
            leading.handover.declined.insert(member.name.clone(), now + DECLINED);
        }
    }

    /// The best member, if it is better than this node.
    fn better_member(&self, now: Instant) -> Option<NodeRef> {
        let leading = self.leading.as_ref()?;
        let needed = self.needed(now);
        let own: Vec<Ability> = needed.iter().map(|package| own_ability(package)).collect();
        let others = leading.view.live(now).filter(|member| member.node.name != self.config.me.name);
        let candidates = others.filter(|member| !leading.handover.declined.contains_key(&member.node.name));
        let ranked = candidates.map(|member| {
            let rank: Vec<Ability> = needed.iter().map(|package| self.ability(&member.node.name, package)).collect();
            (rank, &member.node)
        });
        let (rank, member) = ranked.max_by(|(one, _), (other, _)| one.cmp(other))?;
        (rank > own).then(|| member.clone())
    }

    /// Packages that somebody waits for, in the plan's order.
    fn needed(&self, now: Instant) -> Vec<&Package> {
        let planned = self.plan.iter().flat_map(|plan| &plan.packages).filter(|planned| !planned.paused);
        let packages = planned.filter_map(|planned| self.packages.get(&planned.digest));
        packages.filter(|package| self.is_needed(now, package)).collect()
    }

    /// Whether a child asks for some of the package, or another member lacks it and may be able to take it.
    fn is_needed(&self, now: Instant, package: &Package) -> bool {
        let Some(leading) = &self.leading else { return false };
        let asked_at = leading.handover.children_asked.get(&package.planned.digest);
        let by_children = asked_at.is_some_and(|&at| at + CHILD_ASKS > now)
            || !leading.demand(package.planned.digest, package.capacity()).is_empty();
        by_children || (package.planned.target && self.is_lacked(now, package))
    }

    fn is_lacked(&self, now: Instant, package: &Package) -> bool {
        let Some(leading) = &self.leading else { return false };
        let mut others = leading.view.live(now).filter(|member| member.node.name != self.config.me.name);
        others.any(|member| {
            let state = leading.view.state_on(&member.node.name, package.planned.digest);
            state.is_none_or(|state| state.error.is_none() && !state.complete)
        })
    }

    /// Whether a member can take a package, by its own word.
    fn ability(&self, member: &NodeName, package: &Package) -> Ability {
        let state = self.leading.as_ref().and_then(|leading| leading.view.state_on(member, package.planned.digest));
        match state {
            None => Ability::Unknown,
            Some(state) if state.error.is_some() => Ability::Refuses,
            Some(_) => Ability::Takes,
        }
    }
}

fn own_ability(package: &Package) -> Ability {
    if package.is_refused_by_store() { Ability::Refuses } else { Ability::Takes }
}

#[cfg(test)]
mod tests;
