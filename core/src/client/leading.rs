//! The duties of the rendezvous point: [`members`](self) report and get the plan, chunks are assigned to them, chunks
//! are fetched from the parent office and granted to child offices, and the server hears of it all. This file has the
//! state of a leading node and the round of its duties; each duty has a file.

mod assigning;
mod fetching;
mod granting;
mod handover;
mod members;
mod reporting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::handover::Handover;
use super::event::{BroadcastRequest, Output};
use super::{Client, OFFICE_REPORT_INTERVAL};
use crate::chunk_set::ChunkSet;
use crate::digest::Digest;
use crate::message::{Message, PACKAGES_MAX};
use crate::names::{NodeName, OfficeName};
use crate::office::OfficeType;
use crate::peer::{MessageClass, NodeRef, Peer};
use crate::plan::{ANSWERERS_MAX, PlannedPackage};
use crate::swarm::avoidance::Avoided;
use crate::swarm::ledger::Ledger;
use crate::swarm::office_view::OfficeView;

/// A new rendezvous point waits at most this long for its members before it asks the parent, or the server, for
/// anything; and so long at most for a member that has not said yet what it has of a package.
const LISTEN_BEFORE_FETCHING: Duration = Duration::from_millis(1_000);
/// A first receiver that was not heard for so long since this node leads is lost.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// What a member says it has counts for the office until it failed somebody once,
const FAILURES_TO_BRING_IN: u32 = 1;
/// and until it failed so often in a row where a mistake costs bytes over a link a second time.
const FAILURES_TO_BRING_IN_AGAIN: u32 = 3;
/// Most packages asked for in one broadcast question.
const QUESTION_PACKAGES_MAX: usize = 16;

/// The link over which a child is served: an office, or a single node of a VPN office.
type Link = (OfficeName, Option<NodeName>);

/// State that exists only while the node leads.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) view: OfficeView,
    links: BTreeMap<Link, Ledger>,
    /// What a child waits for because nobody here has it yet.
    waiting: BTreeMap<(Link, Digest), (NodeRef, ChunkSet)>,
    /// Nodes of this office that did not serve a child, by the child's word, which counts for that child alone.
    avoided_for_children: Avoided<(Link, NodeName)>,
    /// First receivers of the server's ledger that it may disregard.
    excused: BTreeMap<Digest, BTreeSet<NodeName>>,
    /// Packages of which it forgot what members said, because no plan listed them.
    forgotten: BTreeSet<Digest>,
    plan_sent: BTreeMap<NodeName, (u64, Instant)>,
    handover: Handover,
    since: Instant,
    pub(super) office_report_at: Instant,
}

impl Client {
    pub(super) fn begin_leading(&mut self, now: Instant) {
        let mut view = OfficeView::taking_over(now);
        view.heard(now, &self.config.me, self.config.boot_id, self.revision());
        self.leading = Some(Leading {
            view,
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            avoided_for_children: Avoided::default(),
            excused: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            plan_sent: BTreeMap::new(),
            handover: Handover::new(now),
            since: now,
            office_report_at: now + OFFICE_REPORT_INTERVAL,
        });
        let prepared: Vec<Digest> =
            self.packages.iter().filter(|(_, package)| package.is_prepared()).map(|(&digest, _)| digest).collect();
        for digest in &prepared {
            self.show_own_package(now, *digest);
        }
        for package in self.packages.values_mut() {
            package.upstream.ask_again();
            package.upstream.wait_anew();
        }
        self.claim();
        self.ask_for_holders();
        self.retry_packages(now);
        self.wake_at(now + LISTEN_BEFORE_FETCHING);
        self.hurry(now);
    }

    /// Tells the server and the child offices who leads here.
    pub(super) fn claim(&mut self) {
        let claim = Message::RendezvousClaim { term: self.election.term(), plan_revision: self.revision() };
        self.send(Peer::Server, MessageClass::Small, claim.clone());
        let children: Vec<NodeRef> =
            self.plan.iter().flat_map(|plan| &plan.children).flat_map(|child| child.nodes.clone()).collect();
        for node in children {
            self.send_small(&node, claim.clone());
        }
    }

    fn ask_for_holders(&mut self) {
        let incomplete = self.packages.values().filter(|package| !package.superseded && !package.available.is_full());
        let digests: Vec<Digest> =
            incomplete.map(|package| package.planned.digest).take(QUESTION_PACKAGES_MAX).collect();
        if self.config.office_type.broadcasts() && !digests.is_empty() {
            let question = self.next_transfer;
            self.outputs.push_back(Output::Broadcast(BroadcastRequest::WhoHas { question, digests }));
        }
    }

    /// The own chunks are part of the office's view.
    pub(super) fn show_own_package(&mut self, now: Instant, digest: Digest) {
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get(&digest)) else { return };
        let me = &self.config.me;
        leading.view.heard(now, me, self.config.boot_id, self.plan.as_ref().map_or(0, |plan| plan.revision));
        if let Some(own) = leading.view.package(&me.name, digest, package.capacity()) {
            own.available = package.available.clone();
            own.assigned.clear();
        }
        leading.view.take_early(now, digest, package.capacity());
        self.wake_at(now + LISTEN_BEFORE_FETCHING);
    }

    /// One round of all duties.
    pub(super) fn lead(&mut self, now: Instant) {
        let revision = self.revision();
        let me = self.config.me.clone();
        // What it ordered of the server as a member comes still, and nobody else is to order it. Over a link to a parent
        // office, `upstream` keeps account of that.
        let mut from_server = if self.config.central { self.coming() } else { BTreeMap::new() };
        let Some(leading) = &mut self.leading else { return };
        leading.view.heard(now, &me, self.config.boot_id, revision);
        for package in self.packages.values_mut().filter(|package| package.is_prepared()) {
            package.forget_delta();
            if let Some(own) = leading.view.package(&me.name, package.planned.digest, package.capacity()) {
                own.state = package.state.clone();
                let coming = from_server.remove(&package.planned.digest).unwrap_or_default();
                own.coming.said(now, &coming, &own.available);
            }
        }
        let mut over_link = Vec::new();
        for digest in self.digests_by_urgency() {
            self.assign_package(now, digest);
            over_link.extend(self.ask_parent(now, digest));
        }
        self.want_by_urgency(now, &over_link);
        self.grant_waiting(now);
        self.report_office(now);
        self.hand_over_if_unable(now);
    }

    /// Planned packages in the plan's order, which is by urgency.
    fn digests_by_urgency(&self) -> Vec<Digest> {
        let planned = self.plan.iter().flat_map(|plan| &plan.packages).filter(|package| !package.paused);
        planned
            .map(|package| package.digest)
            .filter(|digest| self.packages.get(digest).is_some_and(super::Package::is_prepared))
            .collect()
    }

    /// Whether what the office lacks of a package may be brought in: every member has said what it has of it, or had
    /// its time to do so. After a restart of the office, members have chunks that nobody has reported yet.
    fn may_bring_in(&self, now: Instant, digest: Digest) -> bool {
        let (Some(leading), Some(package)) = (&self.leading, self.packages.get(&digest)) else { return false };
        if self.config.office_type == OfficeType::Vpn {
            return true;
        }
        let mut members = leading.view.live(now).filter(|member| member.node.name != self.config.me.name);
        let heard_all = package.planned.target && members.all(|member| member.packages.contains_key(&digest));
        let listened = |since: Instant| since + LISTEN_BEFORE_FETCHING <= now;
        if heard_all {
            return listened(leading.since) || self.whole_office_reports(now);
        }
        listened(leading.since) && package.prepared_at.is_some_and(listened)
    }

    /// Whether every node of this office that the server knows reports to this one. The plan names all of them only in a
    /// small office that broadcasts.
    fn whole_office_reports(&self, now: Instant) -> bool {
        let (Some(leading), Some(plan)) = (&self.leading, &self.plan) else { return false };
        let names_all = (1..ANSWERERS_MAX).contains(&plan.answerers.len());
        names_all && plan.answerers.iter().all(|name| leading.view.live(now).any(|member| member.node.name == *name))
    }
}

impl Leading {
    /// The package is not planned any more: nothing of it is kept.
    pub(super) fn forget(&mut self, digest: Digest) {
        self.view.forget(digest);
        self.links.values_mut().for_each(|ledger| ledger.retain(|kept| *kept != digest));
        self.waiting.retain(|(_, waits_for), _| *waits_for != digest);
        self.excused.remove(&digest);
        if self.forgotten.len() >= PACKAGES_MAX {
            self.forgotten.pop_first();
        }
        self.forgotten.insert(digest);
    }

    /// The package is planned. A member that did not see the plan without it would never say again that it has it, nor
    /// would one that did, but kept it until the version in its place was there.
    pub(super) fn list(&mut self, digest: Digest) {
        if self.forgotten.remove(&digest) {
            self.view.ask_for_inventories();
        }
    }

    /// Members whose claims do not keep chunks of a package from being brought in, because they failed so often in a
    /// row. Of a package that this node has no use for itself it learns from its children who does not deliver: should
    /// they lie, it brings in once what the office has already.
    fn doubted(&self, now: Instant, me: &NodeName, planned: &PlannedPackage, failures_min: u32) -> BTreeSet<NodeName> {
        let mut doubted = self.view.doubted(now, me, planned.digest, failures_min);
        if !planned.target {
            let by_children = self.avoided_for_children.iter(now).filter(|(_, failures)| *failures >= failures_min);
            doubted.extend(by_children.map(|((_, holder), _)| holder).filter(|holder| *holder != me).cloned());
        }
        doubted
    }
}
