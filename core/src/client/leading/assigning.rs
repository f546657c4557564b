//! Which member fetches what from whom, and what becomes of orders that failed.

use std::time::{Duration, Instant};

use super::{AVOID_CORRUPT, AVOID_UNREACHABLE, LOST_AFTER, Leading};
use crate::chunk_set::ChunkRun;
use crate::client::Client;
use crate::client::event::{NOT_RENDEZVOUS_POINT, Refusal};
use crate::digest::Digest;
use crate::message::{Assign, Assignment, Holder, Message, RUNS_MAX, Unserved, UnservedReason};
use crate::names::NodeName;
use crate::office::OfficeType;
use crate::peer::{NodeRef, Peer};
use crate::swarm::assigner::{Job, assign};

/// The server is left alone for so long about chunks that it gave to another node of the office before.
const ASK_SERVER_AGAIN: Duration = Duration::from_millis(500);

impl Client {
    pub(super) fn assign_package(&mut self, now: Instant, digest: Digest) {
        let me = self.config.me.clone();
        let from_server = self.config.central && self.may_bring_in(now, digest);
        let (Some(leading), Some(package)) = (&mut self.leading, self.packages.get(&digest)) else { return };
        if self.config.office_type == OfficeType::Vpn {
            return;
        }
        let excused = leading.excused.get(&digest);
        let job = Job {
            digest,
            lengths: package.lengths.clone(),
            transit: (!package.planned.target).then(|| (me.name.clone(), leading.demand(digest, package.capacity()))),
            from_server,
            lost_holders: excused.map(|names| names.iter().cloned().collect()).unwrap_or_default(),
        };
        let orders = assign(&mut leading.view, now, &job);
        let asks_server = orders.iter().flat_map(|(_, orders)| orders).any(|order| order.holder == Holder::Server);
        if asks_server {
            leading.excused.remove(&digest);
        }
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

    pub(in crate::client) fn take_member_unserved(
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
    pub(in crate::client) fn account_unserved(&mut self, now: Instant, member: &NodeRef, unserved: Unserved) {
        let is_me = *member == self.config.me;
        let Some(leading) = &mut self.leading else { return };
        if let (UnservedReason::Corrupt, Some(holder), true) = (&unserved.reason, &unserved.holder, is_me) {
            leading.view.distrust(holder, now + AVOID_CORRUPT);
        }
        let avoid_until = match unserved.reason {
            UnservedReason::Unreachable | UnservedReason::Refused => Some(now + AVOID_UNREACHABLE),
            UnservedReason::Corrupt => Some(now + AVOID_CORRUPT),
            UnservedReason::AlreadyGiven(_) => Some(now + ASK_SERVER_AGAIN),
            UnservedReason::Missing | UnservedReason::Ended => None,
        };
        if let UnservedReason::AlreadyGiven(receiver) = &unserved.reason {
            leading.excuse(now, unserved.digest, receiver, &unserved.runs);
        }
        if unserved.reason == UnservedReason::Missing
            && let Some(holder) = &unserved.holder
            && let Some(on_holder) = leading.view.known_package(holder, unserved.digest)
        {
            on_holder.lose(&unserved.runs);
        }
        if let Some(on_member) = leading.view.known_package(&member.name, unserved.digest) {
            on_member.unserved(&unserved.holder, &unserved.runs, avoid_until);
        }
    }

    /// The order is void. Whether the member is dead shows in its silence: perhaps only the answer was lost.
    pub(in crate::client) fn assign_failed(&mut self, to: &Peer, order: Assign) {
        let (Some(member), Some(leading)) = (to.node(), &mut self.leading) else { return };
        let Some(on_member) = leading.view.known_package(&member.name, order.digest) else { return };
        for assignment in order.assignments {
            on_member.unserved(&assignment.holder.node_name().cloned(), &assignment.runs, None);
        }
    }
}

impl Leading {
    /// The server's ledger names a first receiver. Unless that node has the chunks or fetches them, the server may give
    /// them again. An order of the rendezvous point before this one may still be under way, so it gets some time.
    fn excuse(&mut self, now: Instant, digest: Digest, receiver: &NodeName, runs: &[ChunkRun]) {
        let live = self.view.is_live(now, receiver);
        let has_them =
            self.view.member(receiver).and_then(|member| member.packages.get(&digest)).is_some_and(|package| {
                runs.iter()
                    .flat_map(|run| run.range())
                    .all(|index| package.available.contains(index) || package.assigned.contains_key(&index))
            });
        if self.since + LOST_AFTER <= now && !(live && has_them) {
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
