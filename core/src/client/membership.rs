//! The node as a member: greeting the server and reporting to its rendezvous point.

use std::time::Instant;

use super::event::{BUSY, BroadcastRequest, INVENTORY_NEEDED};
use super::{Client, HELLO_INTERVAL, REPORT_INTERVAL};
use crate::message::{Hello, Inventory, Message, PACKAGES_MAX, PackageDelta, PackageInventory, RUNS_MAX};
use crate::peer::{MessageClass, NodeRef, Peer};
use crate::rendezvous;

/// The time between two inventories doubles at most so often while no report is accepted.
const INVENTORY_DOUBLINGS_MAX: u32 = 5;

impl Client {
    pub(super) fn greet(&mut self, now: Instant) {
        if self.hello_at > now {
            return;
        }
        self.hello_at = now + HELLO_INTERVAL;
        let hello = Hello {
            boot_id: self.config.boot_id,
            plan_revision: self.revision(),
            term: self.election.term(),
            confirmed_revision: self.deletions.confirmed,
        };
        self.send(Peer::Server, MessageClass::Small, Message::Hello(hello));
        if self.leading.is_some() {
            self.claim();
        }
        self.announce_completions();
    }

    /// The node is about to end: says what nobody has heard yet, or what it received since would be counted by nobody.
    pub fn report_at_last(&mut self, now: Instant) {
        let now = self.take_in(now);
        if let Some(leading) = &mut self.leading {
            leading.office_report_at = now;
            self.lead(now);
        } else {
            (self.report_at, self.report_sent_at) = (now, None);
            self.report(now);
        }
    }

    pub(super) fn delivered(&mut self, now: Instant, to: &Peer) {
        self.report_sent_at = None;
        self.inventories_unanswered = 0;
        if to.node().is_some() && to.node() == self.election.leader() {
            self.election.handle(now, rendezvous::Event::ReportDelivered, &mut self.rng);
        }
        if std::mem::take(&mut self.report_waits) {
            self.hurry(now);
        }
    }

    pub(super) fn undelivered(&mut self, now: Instant, to: &Peer, message: Message, refused: Option<String>) {
        let to_leader = to.node().is_some() && to.node() == self.election.leader();
        match message {
            Message::MemberReport(report) => {
                self.report_sent_at = None;
                self.unreport(report.packages);
                // Only a living rendezvous point says these, and one of another subnet shows no other sign of life.
                if to_leader && matches!(refused.as_deref(), Some(INVENTORY_NEEDED | BUSY)) {
                    self.election.handle(now, rendezvous::Event::ReportDelivered, &mut self.rng);
                }
                match refused.as_deref() {
                    Some(INVENTORY_NEEDED) => {
                        self.inventory_due = true;
                        self.hurry(now);
                    }
                    Some(BUSY) => {}
                    // Whoever moved to another office does not know what to do with the report.
                    Some(_) if to_leader => self.election.handle(now, rendezvous::Event::Denied, &mut self.rng),
                    None if to_leader => {
                        self.election.handle(now, rendezvous::Event::ReportUndelivered, &mut self.rng);
                    }
                    _ => {}
                }
            }
            Message::Inventory(_) if to_leader => self.inventory_due = true,
            Message::Want(want) => self.want_failed(now, want.transfer, refused),
            Message::Fetch(fetch) => self.fetch_failed(now, to, &fetch, refused.as_deref()),
            Message::Assign(assign) => self.assign_failed(now, to, assign, refused.is_some()),
            Message::Handover { .. } => self.handover_declined(now, to),
            Message::Complete { digest, .. } => {
                if let Some(package) = self.packages.get_mut(&digest) {
                    package.completion_due = true;
                }
            }
            Message::Hello(_) if refused.is_none() => {
                self.hello_at = self.hello_at.min(now + REPORT_INTERVAL * 2);
            }
            _ => {}
        }
    }

    /// What a lost report said has to be said again.
    fn unreport(&mut self, deltas: Vec<PackageDelta>) {
        for delta in deltas {
            if let Some(package) = self.packages.get_mut(&delta.digest) {
                package.touch();
                // An inventory only adds.
                package.lose_again(&delta.lost);
                if !delta.available.is_empty() || !delta.lost.is_empty() {
                    self.inventory_due = true;
                }
            }
        }
    }

    /// Reports to the rendezvous point: everything if it is new to it, otherwise what changed.
    pub(super) fn report(&mut self, now: Instant) {
        let Some(leader) = self.election.leader().cloned() else { return };
        // A large one takes its time over a slow network: sent again and again, it would only take longer.
        let patience = REPORT_INTERVAL * (1 << self.inventories_unanswered.min(INVENTORY_DOUBLINGS_MAX));
        let inventory_waits = self.inventory_sent_at.is_some_and(|at| now < at + patience);
        if self.inventory_due && !inventory_waits {
            self.inventory_due = false;
            if self.inventory_sent_at.replace(now).is_some() {
                self.inventories_unanswered = self.inventories_unanswered.saturating_add(1);
            }
            let inventory = self.inventory();
            self.packages.values_mut().for_each(super::Package::forget_gains);
            self.send(Peer::Node(leader), MessageClass::Foreground, Message::Inventory(inventory));
            self.report_at = now + REPORT_INTERVAL;
            return;
        }
        // Until then what changed would be refused again and again: that the node lives is all that counts.
        if self.inventory_due && self.report_at > now {
            return;
        }
        if self.report_sent_at.is_some_and(|at| now < at + REPORT_INTERVAL) {
            self.report_waits = true;
            return;
        }
        self.packages.values_mut().for_each(|package| package.say_what_it_lacks(now));
        let mut report = self.empty_report();
        let mut runs_left = RUNS_MAX;
        let mut coming = self.coming();
        for (digest, package) in self.packages.iter_mut().filter(|(_, package)| package.is_reported()) {
            if report.packages.len() >= PACKAGES_MAX || runs_left == 0 {
                break;
            }
            if let Some(mut delta) = package.take_delta(&mut self.sequence) {
                delta.coming = coming.remove(digest).unwrap_or_default();
                runs_left = runs_left.saturating_sub(delta.available.len() + delta.lost.len() + delta.coming.len());
                report.packages.push(delta);
            }
        }
        if runs_left == 0 {
            self.hurry(now);
        }
        if report.packages.is_empty() && self.report_at > now {
            return;
        }
        self.report_at = now + REPORT_INTERVAL;
        self.report_sent_at = Some(now);
        self.send_small(&leader, Message::MemberReport(report));
    }

    fn inventory(&mut self) -> Inventory {
        let mut coming = self.coming();
        self.sequence += 1;
        let packages = self
            .packages
            .values_mut()
            .filter(|package| package.is_reported())
            .take(PACKAGES_MAX)
            .map(|package| {
                package.state.sequence = self.sequence;
                PackageInventory {
                    digest: package.planned.digest,
                    available: package.available.to_bytes().into(),
                    coming: coming.remove(&package.planned.digest).unwrap_or_default(),
                    state: package.state.clone(),
                }
            })
            .collect();
        Inventory { boot_id: self.config.boot_id, term: self.election.term(), packages }
    }

    pub(super) fn hear_broadcast(&mut self, now: Instant, from: NodeRef, request: BroadcastRequest) {
        if from.office != self.config.me.office || from.name == self.config.me.name {
            return;
        }
        match request {
            BroadcastRequest::Beacon { term, .. } => {
                self.election.handle(now, rendezvous::Event::Beacon { from, term }, &mut self.rng);
            }
            BroadcastRequest::WhoIsRendezvousPoint => {
                if self.election.is_leading() {
                    let claim = Message::RendezvousClaim { term: self.election.term(), plan_revision: self.revision() };
                    self.send_small(&from, claim);
                }
            }
            BroadcastRequest::WhoHas { question, digests } => self.answer_later(now, from, question, digests),
        }
    }
}

#[cfg(test)]
mod tests;
