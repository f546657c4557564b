//! Which member fetches what from whom, and what becomes of orders that failed.

use std::time::{Duration, Instant};

use super::{FAILURES_TO_BRING_IN, FAILURES_TO_BRING_IN_AGAIN, LOST_AFTER, Leading};
use crate::chunk_set::ChunkRun;
use crate::client::Client;
use crate::client::event::{NOT_RENDEZVOUS_POINT, Refusal};
use crate::digest::Digest;
use crate::message::{Assign, Assignment, Holder, Message, RUNS_MAX, Unserved, UnservedReason};
use crate::names::NodeName;
use crate::office::OfficeType;
use crate::peer::{NodeRef, Peer};
use crate::plan::PlannedPackage;
use crate::swarm::assigner::{Job, assign};
use crate::swarm::avoidance::{AVOID_CORRUPT, AVOID_UNREACHABLE};
use crate::swarm::member_package::UNANSWERED_LIFETIME;

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
            doubted: leading.doubted(now, &me.name, &package.planned, FAILURES_TO_BRING_IN),
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

    /// A member was not served: its assignment is void, and the holder is left out for it for a while. What it says
    /// concerns itself; others believe it only together with a second one ([`OfficeView::doubted`]).
    ///
    /// [`OfficeView::doubted`]: crate::swarm::office_view::OfficeView::doubted
    pub(in crate::client) fn account_unserved(&mut self, now: Instant, member: &NodeRef, unserved: Unserved) {
        let me = &self.config.me;
        let Some(leading) = &mut self.leading else { return };
        let Unserved { digest, holder, runs, reason } = unserved;
        if let (UnservedReason::Corrupt, Some(holder), true) = (&reason, &holder, member == me) {
            leading.view.distrust(holder, now + AVOID_CORRUPT);
        }
        if let (UnservedReason::AlreadyGiven(receiver), Some(package)) = (&reason, self.packages.get(&digest)) {
            leading.excuse(now, &me.name, &package.planned, receiver, &runs);
        }
        let is_known = holder.as_ref().is_none_or(|holder| leading.view.member(holder).is_some());
        let Some(on_member) = leading.view.known_package(&member.name, digest) else { return };
        let voided = on_member.unserved(&holder, &runs);
        match (&holder, &reason) {
            (None, UnservedReason::AlreadyGiven(_)) => on_member.avoided.pause(now, &None, ASK_SERVER_AGAIN),
            (None, UnservedReason::Unreachable | UnservedReason::Refused) => {
                on_member.avoided.pause(now, &None, AVOID_UNREACHABLE);
            }
            _ if is_known => on_member.avoided.unserved(now, &holder, &reason),
            _ => {}
        }
        if let (UnservedReason::Missing, Some(holder)) = (reason, holder.filter(|holder| *holder != me.name)) {
            leading.take_for_missing(&holder, digest, &voided);
        }
    }

    /// An order that was refused is void. One without an answer may have arrived: given to somebody else at once, its
    /// chunks would come twice, and the server would take the first receiver for lost.
    pub(in crate::client) fn assign_failed(&mut self, now: Instant, to: &Peer, order: Assign, refused: bool) {
        let (Some(member), Some(leading)) = (to.node(), &mut self.leading) else { return };
        let Some(on_member) = leading.view.known_package(&member.name, order.digest) else { return };
        for assignment in order.assignments {
            let holder = assignment.holder.node_name().cloned();
            if refused {
                on_member.unserved(&holder, &assignment.runs);
            } else {
                on_member.unanswered(now, &holder, &assignment.runs);
            }
        }
        self.wake_at(now + UNANSWERED_LIFETIME);
    }
}

impl Leading {
    /// A holder had not got what was assigned from it: it is not reckoned with for that until it says so again.
    fn take_for_missing(&mut self, holder: &NodeName, digest: Digest, runs: &[ChunkRun]) {
        if runs.is_empty() {
            return;
        }
        if let Some(on_holder) = self.view.known_package(holder, digest) {
            on_holder.lose(runs);
        }
        self.view.ask_for_inventory(holder);
    }

    /// The server's ledger names a first receiver. Unless that node has the chunks or fetches them, the server may give
    /// them again. An order of the rendezvous point before this one may still be under way, so it gets some time.
    fn excuse(
        &mut self,
        now: Instant,
        me: &NodeName,
        planned: &PlannedPackage,
        receiver: &NodeName,
        runs: &[ChunkRun],
    ) {
        let digest = planned.digest;
        let live = self.view.is_live(now, receiver);
        let has_them =
            self.view.member(receiver).and_then(|member| member.packages.get(&digest)).is_some_and(|package| {
                runs.iter()
                    .flat_map(|run| run.range())
                    .all(|index| self.view.has_or_expects(now, package, index) || package.assigned.contains_key(&index))
            });
        let doubted = self.doubted(now, me, planned, FAILURES_TO_BRING_IN_AGAIN).contains(receiver);
        if self.since + LOST_AFTER <= now && (!live || !has_them || doubted) {
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
