//! Incoming transfers: asking a holder and accounting for what arrives. What does not arrive is in [`super::unserved`]
//! and [`super::silence`]; how fast holders send is the business of [`super::steering`].

use std::collections::BTreeMap;
use std::time::Instant;

use super::Client;
use super::event::{ControlSignal, NOT_FOLLOWING, NOT_READY, Output, Refusal};
use super::steering::Pace;
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, indices_of, runs_of};
use crate::digest::Digest;
use crate::message::{Assign, Holder, Message, RUNS_MAX, TransferId, UnservedReason, Want};
use crate::names::NodeName;
use crate::peer::{ContentClass, MessageClass, NodeRef, Peer};

/// Most transfers that a node expects at once: a rendezvous point that names a holder for each chunk must not have it
/// remember one transfer a chunk.
const TRANSFERS_MAX: usize = 1024;

/// A transfer that this node asked for.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) holder: Holder,
    pub(super) digest: Digest,
    pub(super) class: ContentClass,
    pub(super) remaining: ChunkSet,
    pub(super) started: bool,
    /// Whether it brought a chunk.
    brought: bool,
    pub(super) pace: Pace,
    pub(super) last_progress: Instant,
    /// What the holder sent was rubbish.
    corrupt: bool,
}

impl Incoming {
    fn is_from_outside(&self) -> bool {
        self.class == ContentClass::Background || self.holder == Holder::Server
    }
}

impl Client {
    /// The rendezvous point says what to fetch from whom.
    pub(super) fn take_assignments(&mut self, now: Instant, from: &NodeRef, assign: Assign) -> Result<(), Refusal> {
        if self.election.leader() != Some(from) {
            return Err(Refusal::new(NOT_FOLLOWING, "this node follows another rendezvous point"));
        }
        if !self.packages.get(&assign.digest).is_some_and(|package| package.is_prepared() && !package.planned.paused) {
            return Err(Refusal::new(NOT_READY, "this node is not ready for the package"));
        }
        self.follow_assignments(now, assign);
        Ok(())
    }

    pub(super) fn follow_assignments(&mut self, now: Instant, assign: Assign) {
        for order in assign.assignments {
            let allowed = match &order.holder {
                Holder::Server => self.config.central,
                Holder::Node(node) => node.office == self.config.me.office,
            };
            if allowed {
                self.start(now, order.holder, ContentClass::Foreground, assign.digest, &order.runs, order.lost_holders);
            }
        }
    }

    /// Asks the holder for chunks: more on a running transfer, or a new one. Returns those that are on their way now.
    pub(super) fn start(
        &mut self,
        now: Instant,
        holder: Holder,
        class: ContentClass,
        digest: Digest,
        runs: &[ChunkRun],
        lost_holders: Vec<NodeName>,
    ) -> ChunkSet {
        let Some(package) = self.packages.get_mut(&digest) else { return ChunkSet::default() };
        if !package.is_prepared() || package.planned.paused {
            return ChunkSet::default();
        }
        let mut wanted: Vec<ChunkIndex> = Vec::new();
        let capacity = package.capacity();
        for index in indices_of(runs, capacity) {
            if package.available.contains(index) {
                package.report_again(index);
            } else if package.in_flight.insert(index) {
                wanted.push(index);
            }
        }
        let runs = runs_of(wanted);
        package.touch();
        let mut remaining = ChunkSet::new(capacity);
        remaining.insert_runs(&runs);
        if remaining.is_empty() {
            self.hurry(now);
            return remaining;
        }
        let from = match &holder {
            Holder::Server => Peer::Server,
            Holder::Node(node) => Peer::Node(node.clone()),
        };
        // The server decides on each request by its ledger, so a running transfer is only extended between clients.
        let running = self
            .transfers
            .iter_mut()
            .find(|(_, transfer)| transfer.holder == holder && transfer.digest == digest && holder != Holder::Server);
        if let Some((&transfer, incoming)) = running {
            incoming.remaining.union_with(&remaining);
            self.outputs.push_back(Output::Expect { transfer, from, class, digest, runs: runs.clone() });
            self.outputs.push_back(Output::Steer { transfer, signal: ControlSignal::Want(runs) });
            return remaining;
        }
        // No holder is to blame: a rendezvous point orders again what did not come in an order's time.
        if self.transfers.len() >= TRANSFERS_MAX {
            package.in_flight.subtract(&remaining);
            return ChunkSet::default();
        }
        let transfer = self.next_transfer;
        self.next_transfer += 1;
        let incoming = Incoming {
            holder,
            digest,
            class,
            remaining: remaining.clone(),
            started: false,
            brought: false,
            pace: Pace::default(),
            last_progress: now,
            corrupt: false,
        };
        self.transfers.insert(transfer, incoming);
        self.pace_due = true;
        let pace = self.begin_at_pace(transfer);
        self.outputs.push_back(Output::Expect { transfer, from: from.clone(), class, digest, runs: runs.clone() });
        self.send(from, MessageClass::Small, Message::Want(Want { transfer, digest, runs, lost_holders, pace }));
        remaining
    }

    /// What is on its way here from outside the office, by package; of each no more than a message takes.
    pub(super) fn coming(&self) -> BTreeMap<Digest, Vec<ChunkRun>> {
        let mut coming: BTreeMap<Digest, ChunkSet> = BTreeMap::new();
        for incoming in self.transfers.values().filter(|incoming| incoming.is_from_outside()) {
            let set = coming.entry(incoming.digest).or_insert_with(|| ChunkSet::new(incoming.remaining.capacity()));
            set.union_with(&incoming.remaining);
        }
        let runs = |set: ChunkSet| set.iter_runs().take(RUNS_MAX).collect();
        coming.into_iter().map(|(digest, set)| (digest, runs(set))).collect()
    }

    pub(super) fn transfer_started(&mut self, now: Instant, transfer: TransferId) {
        if let Some(incoming) = self.transfers.get_mut(&transfer) {
            incoming.started = true;
            incoming.last_progress = now;
        }
    }

    pub(super) fn chunk_stored(&mut self, now: Instant, transfer: TransferId, index: ChunkIndex) {
        let me = self.config.me.name.clone();
        let Some(incoming) = self.transfers.get_mut(&transfer) else { return };
        incoming.remaining.remove(index);
        (incoming.brought, incoming.last_progress) = (true, now);
        let (digest, class) = (incoming.digest, incoming.class);
        let from_server = incoming.holder == Holder::Server;
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let bytes = package.bytes_of(index);
        package.in_flight.remove(index);
        if let (ContentClass::Background, Holder::Node(holder)) = (class, &incoming.holder) {
            package.upstream.delivered(now, index, &holder.name);
        }
        if !package.available.contains(index) {
            match class {
                ContentClass::Background => package.state.bytes_from_parent += bytes,
                ContentClass::Foreground if from_server => package.state.bytes_from_origin += bytes,
                ContentClass::Foreground => package.state.bytes_from_office += bytes,
            }
        }
        match class {
            ContentClass::Background => package.state.wan_bytes_received += bytes,
            ContentClass::Foreground => package.state.lan_bytes_received += bytes,
        }
        package.gain(index);
        let whole = package.available.is_full();
        let capacity = package.capacity();
        if let Some(leading) = &mut self.leading
            && let Some(own) = leading.view.package(&me, digest, capacity)
        {
            own.gain(now, &[ChunkRun { first: index, count: 1 }]);
        }
        if whole {
            self.pace_due = true;
            self.outputs.push_back(Output::Flush);
            self.publish_if_whole(digest);
            self.hurry(now);
        }
        if class == ContentClass::Background || from_server {
            self.gathering.gained_from_outside(now, bytes, self.members_led());
        } else {
            self.gained(now, bytes);
        }
    }

    pub(super) fn chunk_rejected(&mut self, now: Instant, transfer: TransferId, bytes: u64) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else { return };
        incoming.corrupt = true;
        if let Some(package) = self.packages.get_mut(&incoming.digest) {
            match incoming.class {
                ContentClass::Background => package.state.wan_bytes_received += bytes,
                ContentClass::Foreground => package.state.lan_bytes_received += bytes,
            }
        }
        self.transfer_ended(now, transfer, Some(UnservedReason::Corrupt));
    }

    pub(super) fn transfer_ended(&mut self, now: Instant, transfer: TransferId, failure: Option<UnservedReason>) {
        let Some(incoming) = self.transfers.remove(&transfer) else { return };
        // More may have been expected of it while the word of its end was on its way: nothing stays expected.
        self.outputs.push_back(Output::Steer { transfer, signal: ControlSignal::Cancel });
        self.pace_due = true;
        // A holder that ends in good order and brought nothing has nothing, whatever it said.
        let end = if incoming.brought { UnservedReason::Ended } else { UnservedReason::Missing };
        let reason = if incoming.corrupt { UnservedReason::Corrupt } else { failure.unwrap_or(end) };
        if let Some(package) = self.packages.get_mut(&incoming.digest) {
            package.in_flight.subtract(&incoming.remaining);
            package.touch();
        }
        let runs = incoming.remaining.runs();
        if runs.is_empty() {
            return;
        }
        self.unserved(now, incoming.class, incoming.digest, &incoming.holder, runs, reason);
    }

    /// Cancels what is on its way for a package, without complaint to anybody.
    pub(super) fn cancel_transfers(&mut self, digest: Digest) {
        self.pace_due = true;
        let transfers: Vec<TransferId> = self.transfers_of(digest);
        for transfer in transfers {
            self.outputs.push_back(Output::Steer { transfer, signal: ControlSignal::Cancel });
            if let Some(incoming) = self.transfers.remove(&transfer)
                && let Some(package) = self.packages.get_mut(&digest)
            {
                package.in_flight.subtract(&incoming.remaining);
                package.touch();
                package.upstream.release(&incoming.remaining.runs());
            }
        }
    }

    pub(super) fn transfers_of(&self, digest: Digest) -> Vec<TransferId> {
        self.transfers.iter().filter(|(_, incoming)| incoming.digest == digest).map(|(&transfer, _)| transfer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Event;
    use crate::client::fixture::{
        client, drain, node, plan, planned, prepare, prepare_chunks, start, steered, take_plan,
    };
    use crate::distribution::Priority;
    use crate::message::{ASSIGNMENTS_MAX, Assignment};
    use crate::office::OfficeType;

    #[test]
    fn rendezvous_point_that_names_a_holder_for_each_chunk_makes_no_more_transfers_than_are_allowed() {
        const CHUNKS: u32 = 2 * TRANSFERS_MAX as u32;
        let (mut client, now) = client(OfficeType::Wired);
        let packages = vec![planned("package", Priority::Normal)];
        let digest = packages[0].digest;
        take_plan(&mut client, now, &mut plan(OfficeType::Wired, packages));
        prepare_chunks(&mut client, now, digest, &[1_000; CHUNKS as usize], 0);
        let (leader, term) = (Peer::Node(node("store", "store-2")), 4);
        client.message(now, leader.clone(), Message::RendezvousClaim { term, plan_revision: 2 }).unwrap();
        drain(&mut client);
        let order = |first| Assignment {
            holder: Holder::Node(node("store", &format!("store-{}", first + 3))),
            runs: vec![ChunkRun { first, count: 1 }],
            lost_holders: Vec::new(),
        };
        let orders: Vec<Assignment> = (0..CHUNKS).map(order).collect();
        for assignments in orders.chunks(ASSIGNMENTS_MAX) {
            let assign = Assign { term, digest, assignments: assignments.to_vec() };
            client.message(now, leader.clone(), Message::Assign(assign)).unwrap();
        }
        let expected =
            |client: &mut Client| drain(client).iter().filter(|one| matches!(one, Output::Expect { .. })).count();
        assert_eq!(expected(&mut client), TRANSFERS_MAX);
        // A transfer that runs takes more all the same.
        let Assignment { holder, .. } = order(0);
        let more =
            Assignment { holder, runs: vec![ChunkRun { first: CHUNKS - 1, count: 1 }], lost_holders: Vec::new() };
        client.message(now, leader, Message::Assign(Assign { term, digest, assignments: vec![more] })).unwrap();
        assert_eq!(expected(&mut client), 1);
    }

    #[test]
    fn transfer_that_ended_is_expected_no_more_although_more_was_wanted_of_it_meanwhile() {
        let (mut client, now) = client(OfficeType::Wired);
        let packages = vec![planned("package", Priority::Normal)];
        let digest = packages[0].digest;
        take_plan(&mut client, now, &mut plan(OfficeType::Wired, packages));
        prepare(&mut client, now, digest, 0);
        for event in [
            |transfer| Event::TransferEnded { transfer, failure: None },
            |transfer| Event::ChunkRejected { transfer, bytes: 1 },
        ] {
            let transfer = start(&mut client, now, node("store", "store-2"), ContentClass::Foreground, digest);
            steered(&mut client);
            client.handle(now, event(transfer));
            assert_eq!(steered(&mut client), [(transfer, ControlSignal::Cancel)]);
        }
    }
}
