//! The duties of the rendezvous point: the office's view, assignments to members, requests to the parent office,
//! grants to child offices, reports to the server, and handing on the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::event::{BroadcastRequest, INVENTORY_NEEDED, NOT_GRANTED, NOT_READY, NOT_RENDEZVOUS_POINT, Output, Refusal};
use super::{Client, OFFICE_REPORT_INTERVAL};
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, runs_of};
use crate::digest::Digest;
use crate::message::{
    Assign, Assignment, Fetch, Grant, Holder, HoldersFound, Inventory, MemberReport, Message, OfficePackage,
    OfficeReport, PackageInventory, RUNS_MAX, Unserved, UnservedReason,
};
use crate::names::{NodeName, OfficeName};
use crate::office::OfficeType;
use crate::peer::{ContentClass, MessageClass, NodeRef, Peer};
use crate::swarm::assigner::{Job, assign};
use crate::swarm::ledger::Ledger;
use crate::swarm::office_view::OfficeView;

/// A new rendezvous point waits this long for its members' inventories before it asks the parent for anything.
const LISTEN_BEFORE_FETCHING: Duration = Duration::from_millis(1_000);
/// A holder that did not serve a member is left out for it this long.
const AVOID_UNREACHABLE: Duration = Duration::from_secs(5);
/// A holder that sent rubbish is left out for it this long.
const AVOID_CORRUPT: Duration = Duration::from_secs(3_600);
/// The plan goes to the same member at most this often.
const PLAN_INTERVAL: Duration = Duration::from_secs(2);
/// Completions of members reach the server with an office report this soon.
const REPORT_COMPLETION: Duration = Duration::from_millis(500);
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
    /// Nodes of this office that did not serve a child, until then.
    avoided_for_children: BTreeMap<NodeName, Instant>,
    /// First receivers of the server's ledger that it may disregard.
    excused: BTreeMap<Digest, BTreeSet<NodeName>>,
    plan_sent: BTreeMap<NodeName, (u64, Instant)>,
    fetch_from: Instant,
    office_report_at: Instant,
}

impl Client {
    pub(super) fn begin_leading(&mut self, now: Instant) {
        let mut view = OfficeView::default();
        view.heard(now, &self.config.me, self.config.boot_id, self.revision());
        self.leading = Some(Leading {
            view,
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            avoided_for_children: BTreeMap::new(),
            excused: BTreeMap::new(),
            plan_sent: BTreeMap::new(),
            fetch_from: now + LISTEN_BEFORE_FETCHING,
            office_report_at: now + OFFICE_REPORT_INTERVAL,
        });
        let prepared: Vec<Digest> =
            self.packages.iter().filter(|(_, package)| package.is_prepared()).map(|(&digest, _)| digest).collect();
        for digest in &prepared {
            self.show_own_package(now, *digest);
        }
        self.claim();
        self.ask_for_holders();
        self.retry_packages(now);
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
    }

    /// One round of all duties.
    pub(super) fn lead(&mut self, now: Instant) {
        let revision = self.revision();
        let me = self.config.me.clone();
        let Some(leading) = &mut self.leading else { return };
        leading.view.heard(now, &me, self.config.boot_id, revision);
        for package in self.packages.values_mut().filter(|package| package.is_prepared()) {
            package.forget_delta();
            if let Some(own) = leading.view.package(&me.name, package.planned.digest, package.capacity()) {
                own.state = package.state.clone();
            }
        }
        let digests = self.digests_by_urgency();
        for &digest in &digests {
            self.assign_package(now, digest);
            self.fetch_package(now, digest);
        }
        self.grant_waiting(now);
        self.report_office(now);
    }

    /// Planned packages in the plan's order, which is by urgency.
    fn digests_by_urgency(&self) -> Vec<Digest> {
        let planned = self.plan.iter().flat_map(|plan| &plan.packages).filter(|package| !package.paused);
        planned
            .map(|package| package.digest)
            .filter(|digest| self.packages.get(digest).is_some_and(super::Package::is_prepared))
            .collect()
    }

    fn assign_package(&mut self, now: Instant, digest: Digest) {
        let me = self.config.me.clone();
        let central = self.config.central;
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get(&digest)) else { return };
        if self.config.office_type == OfficeType::Vpn {
            return;
        }
        let excused = leading.excused.get(&digest);
        let job = Job {
            digest,
            lengths: package.lengths.clone(),
            only: (!package.planned.target).then(|| me.name.clone()),
            from_server: central,
            lost_holders: excused.map(|names| names.iter().cloned().collect()).unwrap_or_default(),
        };
        let orders = assign(&mut leading.view, now, &job);
        let term = self.election.term();
        for (member, assignments) in orders {
            for assignments in batches(assignments) {
                let order = Assign { term, digest, assignments };
                if member.name == me.name {
                    self.follow_assignments(now, order);
                } else {
                    self.send_small(&member, Message::Assign(order));
                }
            }
        }
    }

    /// Asks the parent office for what nobody here has.
    fn fetch_package(&mut self, now: Instant, digest: Digest) {
        if self.config.central {
            return;
        }
        let Some(parent) = self.parent() else { return };
        let me = self.config.me.name.clone();
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get_mut(&digest)) else { return };
        if leading.fetch_from > now || package.state.error.is_some() {
            return;
        }
        let capacity = package.capacity();
        let (present, twice) = leading.view.spread(now, digest, capacity);
        let receivers = leading.view.live(now).any(|member| {
            member.node.name != me
                && member.packages.get(&digest).is_some_and(|on_member| on_member.state.error.is_none())
        });
        let mut unshared_bytes = 0;
        if receivers && package.planned.target {
            let mut unshared = present.clone();
            unshared.subtract(&twice);
            unshared_bytes = unshared.iter().map(|index| package.bytes_of(index)).sum();
        }
        let runs = package.upstream.next_request(now, &present, unshared_bytes, &package.lengths);
        if runs.is_empty() {
            return;
        }
        let lost_holders = package.upstream.lost_holders();
        let fetch = Fetch { term: self.election.term(), digest, runs, lost_holders };
        self.send_small(&parent, Message::Fetch(fetch));
    }

    pub(super) fn fetch_failed(&mut self, now: Instant, to: &Peer, fetch: &Fetch, refused: Option<&str>) {
        if let Some(package) = self.packages.get_mut(&fetch.digest) {
            package.upstream.undelivered(now, &fetch.runs);
        }
        if refused.is_none() || refused == Some(NOT_RENDEZVOUS_POINT) {
            if self.parent_claim.as_ref().is_some_and(|(_, node)| Some(node) == to.node()) {
                self.parent_claim = None;
            } else {
                self.parent_turn += 1;
            }
        }
    }

    /// The parent's rendezvous point as far as it is known, otherwise the next node of the parent that the plan names.
    pub(super) fn parent(&self) -> Option<NodeRef> {
        if let Some((_, node)) = &self.parent_claim {
            return Some(node.clone());
        }
        let nodes = self.plan.as_ref().map(|plan| &plan.parent_nodes)?;
        nodes.get(self.parent_turn % nodes.len().max(1)).cloned()
    }

    pub(super) fn take_grant(&mut self, now: Instant, from: &NodeRef, grant: Grant) -> Result<(), Refusal> {
        let parent = self.plan.as_ref().and_then(|plan| plan.parent.clone());
        if parent.as_ref() != Some(&from.office) {
            return Err(Refusal::unexpected());
        }
        let Some(package) = self.packages.get_mut(&grant.digest) else { return Ok(()) };
        package.upstream.promised(now, &grant.not_yet);
        let mut starts: Vec<(Holder, Vec<ChunkRun>)> = Vec::new();
        for order in grant.granted {
            let holder_in_parent = matches!(&order.holder, Holder::Node(node) if Some(&node.office) == parent.as_ref());
            let granted =
                order.runs.iter().flat_map(|run| run.range()).filter(|&index| package.upstream.granted(index));
            let runs = runs_of(granted.collect::<Vec<ChunkIndex>>());
            if holder_in_parent && !runs.is_empty() {
                starts.push((order.holder, runs));
            }
        }
        for (receiver, runs) in grant.given_before {
            let lost = self.leading.as_ref().is_none_or(|leading| !leading.view.is_live(now, &receiver));
            package.upstream.given_before(now, &receiver, lost, &runs);
        }
        for (holder, runs) in starts {
            self.start(now, holder, ContentClass::Background, grant.digest, &runs, Vec::new());
        }
        self.hurry(now);
        Ok(())
    }

    /// A child office asks: grants what somebody here has and was not given over this link before.
    pub(super) fn take_fetch(&mut self, now: Instant, from: &NodeRef, fetch: Fetch) -> Result<(), Refusal> {
        let link = self.link(from, fetch.digest)?;
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get(&fetch.digest)) else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        if !package.is_prepared() {
            return Err(Refusal::new(NOT_READY, "the manifest is not here yet"));
        }
        let capacity = package.capacity();
        let ledger = leading.links.entry(link.clone()).or_default();
        let answer = ledger.ask(fetch.digest, &from.name, &fetch.runs, capacity, &fetch.lost_holders);
        let (granted, not_yet) = leading.grant(now, &link, fetch.digest, from, &answer.open, capacity);
        if !not_yet.is_empty() {
            let mut waiting = ChunkSet::new(capacity);
            not_yet.iter().for_each(|&index| {
                waiting.insert(index);
            });
            leading.waiting.insert((link, fetch.digest), (from.clone(), waiting));
        }
        let given_before =
            answer.given_before.into_iter().map(|(node, chunks)| (node, runs_of(chunks))).collect::<Vec<_>>();
        let grant = Grant { digest: fetch.digest, granted, given_before, not_yet: runs_of(not_yet) };
        self.send_small(from, Message::Grant(grant));
        Ok(())
    }

    /// Checks that the peer is of a child office that may have the package.
    fn link(&self, from: &NodeRef, digest: Digest) -> Result<Link, Refusal> {
        let child = self.plan.iter().flat_map(|plan| &plan.children).find(|child| child.name == from.office);
        let Some(child) = child else {
            return Err(Refusal::new(NOT_GRANTED, format!("office {} is no child of this office", from.office)));
        };
        let granted =
            self.packages.get(&digest).is_some_and(|package| package.planned.granted_children.contains(&from.office));
        if !granted {
            return Err(Refusal::new(NOT_GRANTED, format!("office {} has no grant for this package", from.office)));
        }
        let node = (child.office_type == OfficeType::Vpn).then(|| from.name.clone());
        Ok((from.office.clone(), node))
    }

    /// Chunks arrived that a child waits for.
    fn grant_waiting(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let keys: Vec<(Link, Digest)> = leading.waiting.keys().cloned().collect();
        let mut grants = Vec::new();
        for key in keys {
            let Some(package) = self.packages.get(&key.1).filter(|package| !package.planned.paused) else { continue };
            let capacity = package.capacity();
            let Some((asker, mut wanted)) = leading.waiting.remove(&key) else { continue };
            let open: Vec<ChunkIndex> = wanted.iter().collect();
            let (granted, not_yet) = leading.grant(now, &key.0, key.1, &asker, &open, capacity);
            if !not_yet.is_empty() {
                wanted = ChunkSet::new(capacity);
                not_yet.iter().for_each(|&index| {
                    wanted.insert(index);
                });
                leading.waiting.insert(key.clone(), (asker.clone(), wanted));
            }
            if !granted.is_empty() {
                grants.push((asker, Grant { digest: key.1, granted, given_before: Vec::new(), not_yet: Vec::new() }));
            }
        }
        for (asker, grant) in grants {
            self.send_small(&asker, Message::Grant(grant));
        }
    }

    pub(super) fn take_member_report(
        &mut self,
        now: Instant,
        from: &NodeRef,
        report: MemberReport,
    ) -> Result<(), Refusal> {
        let revision = self.revision();
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        let unknown = leading.view.heard(now, from, report.boot_id, report.plan_revision);
        let mut news = false;
        if unknown == Some(false) {
            for delta in report.packages {
                let Some(package) = self.packages.get(&delta.digest).filter(|package| package.is_prepared()) else {
                    continue;
                };
                let Some(on_member) = leading.view.package(&from.name, delta.digest, package.capacity()) else {
                    continue;
                };
                on_member.gain(&delta.available);
                on_member.lose(&delta.lost);
                if delta.state.complete && !on_member.state.complete {
                    leading.office_report_at = leading.office_report_at.min(now + REPORT_COMPLETION);
                }
                on_member.state = delta.state;
                news = true;
            }
        }
        if report.plan_revision < revision {
            self.send_plan(now, from);
        }
        if news {
            self.hurry(now);
        }
        match unknown {
            Some(false) => Ok(()),
            Some(true) => Err(Refusal::new(INVENTORY_NEEDED, "the rendezvous point does not know this member yet")),
            None => Err(Refusal::new(super::BUSY, "the office has more members than a rendezvous point keeps")),
        }
    }

    pub(super) fn take_member_inventory(
        &mut self,
        now: Instant,
        from: &NodeRef,
        inventory: Inventory,
    ) -> Result<(), Refusal> {
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        leading.view.heard(now, from, inventory.boot_id, 0);
        for PackageInventory { digest, available, state } in inventory.packages {
            let Some(package) = self.packages.get(&digest).filter(|package| package.is_prepared()) else { continue };
            let capacity = package.capacity();
            if let Some(on_member) = leading.view.package(&from.name, digest, capacity) {
                // Reports may overtake an inventory, so it only adds; what is lost is reported as lost.
                on_member.available.union_with(&ChunkSet::from_bytes(capacity, &available));
                on_member.state = state;
            }
        }
        self.hurry(now);
        Ok(())
    }

    pub(super) fn take_holders_found(&mut self, now: Instant, from: &NodeRef, found: HoldersFound) {
        let Some(leading) = &mut self.leading else { return };
        for delta in found.packages {
            let Some(package) = self.packages.get(&delta.digest).filter(|package| package.is_prepared()) else {
                continue;
            };
            if leading.view.member(&from.name).is_some()
                && let Some(on_member) = leading.view.package(&from.name, delta.digest, package.capacity())
            {
                on_member.gain(&delta.available);
            }
        }
        self.hurry(now);
    }

    pub(super) fn take_member_unserved(
        &mut self,
        now: Instant,
        from: &NodeRef,
        unserved: Unserved,
    ) -> Result<(), Refusal> {
        if self.leading.is_none() {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        }
        self.account_unserved(now, from, unserved);
        self.hurry(now);
        Ok(())
    }

    /// A member was not served: its assignment is void, and the holder is left out for a while.
    pub(super) fn account_unserved(&mut self, now: Instant, member: &NodeRef, unserved: Unserved) {
        let Some(package) = self.packages.get(&unserved.digest).filter(|package| package.is_prepared()) else { return };
        let Some(leading) = &mut self.leading else { return };
        let avoid_until = match unserved.reason {
            UnservedReason::Unreachable | UnservedReason::Refused => Some(now + AVOID_UNREACHABLE),
            UnservedReason::Corrupt => Some(now + AVOID_CORRUPT),
            UnservedReason::Missing | UnservedReason::Ended | UnservedReason::AlreadyGiven(_) => None,
        };
        if let UnservedReason::AlreadyGiven(receiver) = &unserved.reason {
            leading.excuse(now, unserved.digest, receiver, &unserved.runs);
        }
        let capacity = package.capacity();
        if unserved.reason == UnservedReason::Missing
            && let Some(holder) = &unserved.holder
            && let Some(on_holder) = leading.view.package(holder, unserved.digest, capacity)
        {
            on_holder.lose(&unserved.runs);
        }
        if let Some(on_member) = leading.view.package(&member.name, unserved.digest, capacity) {
            on_member.unserved(&unserved.holder, &unserved.runs, avoid_until);
        }
    }

    /// A child was not served: the ledger takes the chunks back and names another holder next time.
    pub(super) fn take_child_unserved(
        &mut self,
        now: Instant,
        from: &NodeRef,
        unserved: Unserved,
    ) -> Result<(), Refusal> {
        let link = self.link(from, unserved.digest)?;
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        leading.links.entry(link).or_default().take_back(unserved.digest, &from.name, &unserved.runs);
        if let Some(holder) = unserved.holder
            && !matches!(unserved.reason, UnservedReason::Missing | UnservedReason::Ended)
        {
            leading.avoided_for_children.insert(holder, now + AVOID_UNREACHABLE);
        }
        Ok(())
    }

    pub(super) fn take_child_inventory(&mut self, from: &NodeRef, inventory: Inventory) -> Result<(), Refusal> {
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

    /// A new rendezvous point of the parent rebuilds its ledger from this.
    pub(super) fn tell_parent_what_came(&mut self, parent: &NodeRef) {
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

    pub(super) fn assign_failed(&mut self, now: Instant, to: &Peer, order: Assign, refused: Option<&str>) {
        let Some(member) = to.node().cloned() else { return };
        if refused.is_none()
            && let Some(leading) = &mut self.leading
        {
            leading.view.silence(now, &member.name);
        }
        for assignment in order.assignments {
            let unserved = Unserved {
                digest: order.digest,
                holder: assignment.holder.node_name().cloned(),
                runs: assignment.runs,
                reason: UnservedReason::Missing,
            };
            if let Some(leading) = &mut self.leading
                && let Some(package) = self.packages.get(&order.digest)
                && let Some(on_member) = leading.view.package(&member.name, order.digest, package.capacity())
            {
                on_member.unserved(&unserved.holder, &unserved.runs, None);
            }
        }
    }

    /// A new plan goes to every member at once.
    pub(super) fn hand_on_plan(&mut self, now: Instant) {
        let Some(leading) = &self.leading else { return };
        let me = &self.config.me.name;
        let members: Vec<NodeRef> =
            leading.view.live(now).map(|member| member.node.clone()).filter(|member| member.name != *me).collect();
        for member in members {
            self.send_plan(now, &member);
        }
    }

    fn send_plan(&mut self, now: Instant, member: &NodeRef) {
        let revision = self.revision();
        let (Some(leading), Some(signed)) = (&mut self.leading, &self.signed_plan) else { return };
        let sent = leading.plan_sent.get(&member.name);
        if sent.is_some_and(|&(sent, at)| sent == revision && at + PLAN_INTERVAL > now) {
            return;
        }
        leading.plan_sent.insert(member.name.clone(), (revision, now));
        let plan = Message::Plan(signed.clone());
        self.send(Peer::Node(member.clone()), MessageClass::Foreground, plan);
    }

    fn report_office(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let planned_complete = self.packages.values().any(|package| package.completion_due);
        if leading.office_report_at > now && !planned_complete {
            return;
        }
        leading.office_report_at = now + OFFICE_REPORT_INTERVAL;
        let packages = self
            .packages
            .values()
            .filter(|package| !package.superseded)
            .map(|package| {
                let digest = package.planned.digest;
                let nodes = leading
                    .view
                    .members()
                    .filter_map(|member| Some((member.node.name.clone(), member.packages.get(&digest)?.state.clone())))
                    .chain((!package.is_prepared()).then(|| (self.config.me.name.clone(), package.state.clone())))
                    .collect();
                let available = leading.view.spread(now, digest, package.capacity()).0.to_bytes().into();
                OfficePackage { digest, available, nodes }
            })
            .collect();
        let report = OfficeReport { term: self.election.term(), plan_revision: self.revision(), packages };
        let class = if self.config.central { MessageClass::Foreground } else { MessageClass::Background };
        self.send(Peer::Server, class, Message::OfficeReport(report));
    }
}

impl Leading {
    /// Names a holder for each chunk and notes it in the ledger. Returns the grants and what nobody has.
    fn grant(
        &mut self,
        now: Instant,
        link: &Link,
        digest: Digest,
        asker: &NodeRef,
        open: &[ChunkIndex],
        capacity: u32,
    ) -> (Vec<Assignment>, Vec<ChunkIndex>) {
        self.avoided_for_children.retain(|_, until| *until > now);
        let avoid: BTreeSet<NodeName> = self.avoided_for_children.keys().cloned().collect();
        let ledger = self.links.entry(link.clone()).or_default();
        let (mut by_holder, mut not_yet) = (BTreeMap::<Holder, Vec<ChunkIndex>>::new(), Vec::new());
        for &index in open {
            match self.view.holder_for_child(now, digest, index, &avoid) {
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

    /// The server's ledger names a first receiver. Unless that node is alive and has the chunks or fetches them, the
    /// server may give them again.
    fn excuse(&mut self, now: Instant, digest: Digest, receiver: &NodeName, runs: &[ChunkRun]) {
        let has_them = self.view.is_live(now, receiver)
            && self.view.member(receiver).and_then(|member| member.packages.get(&digest)).is_some_and(|package| {
                runs.iter()
                    .flat_map(|run| run.range())
                    .all(|index| package.available.contains(index) || package.assigned.contains_key(&index))
            });
        if !has_them {
            self.excused.entry(digest).or_default().insert(receiver.clone());
        }
    }
}

/// Splits assignments so that no message has more runs than allowed.
fn batches(assignments: Vec<Assignment>) -> Vec<Vec<Assignment>> {
    let mut batches: Vec<Vec<Assignment>> = Vec::new();
    let mut room = 0;
    for assignment in assignments {
        for runs in assignment.runs.chunks(RUNS_MAX) {
            if runs.len() > room || batches.is_empty() {
                batches.push(Vec::new());
                room = RUNS_MAX;
            }
            room -= runs.len();
            let part = Assignment { runs: runs.to_vec(), ..assignment.clone() };
            batches.last_mut().expect("a batch was just pushed").push(part);
        }
    }
    batches
}
