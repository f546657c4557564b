//! What did not arrive: whoever named the holder is told.

use std::time::Instant;

use super::Client;
use super::event::{ControlSignal, MISSING, Output};
use crate::chunk_set::{ChunkRun, indices_of, runs_of};
use crate::digest::Digest;
use crate::message::{Grant, Holder, Message, RUNS_MAX, TransferId, Unserved, UnservedReason};
use crate::peer::{ContentClass, NodeRef};

impl Client {
    /// Tells whoever named the holder that it did not deliver.
    pub(super) fn unserved(
        &mut self,
        now: Instant,
        class: ContentClass,
        digest: Digest,
        holder: &Holder,
        runs: Vec<ChunkRun>,
        reason: UnservedReason,
    ) {
        let holder = holder.node_name().cloned();
        if class == ContentClass::Background {
            if let Some(package) = self.packages.get_mut(&digest) {
                match &holder {
                    Some(holder) => package.upstream.not_served(now, holder, &reason, &runs),
                    None => package.upstream.release(&runs),
                }
            }
            if let Some(parent) = self.parent_node(now) {
                self.send_unserved(&parent, Unserved { digest, holder, runs, reason });
            }
        } else if self.leading.is_some() {
            let me = self.config.me.clone();
            self.account_unserved(now, &me, Unserved { digest, holder, runs, reason });
        } else if let Some(leader) = self.election.leader().cloned() {
            self.send_unserved(&leader, Unserved { digest, holder, runs, reason });
        }
        self.hurry(now);
    }

    pub(super) fn send_unserved(&mut self, to: &NodeRef, unserved: Unserved) {
        for runs in unserved.runs.chunks(RUNS_MAX) {
            let part = Unserved { runs: runs.to_vec(), ..unserved.clone() };
            self.send_small(to, Message::Unserved(part));
        }
    }

    /// A holder could not be asked, or refused.
    pub(super) fn want_failed(&mut self, now: Instant, transfer: TransferId, refused: Option<String>) {
        // Only the answer was lost: the holder has begun to send.
        if refused.is_none() && self.transfers.get(&transfer).is_some_and(|incoming| incoming.started) {
            return;
        }
        let reason = match refused.as_deref() {
            None => UnservedReason::Unreachable,
            Some(MISSING) => UnservedReason::Missing,
            Some(_) => UnservedReason::Refused,
        };
        self.transfer_ended(now, transfer, Some(reason));
    }

    /// The server gave some chunks to another node of the Central Office before.
    pub(super) fn server_given_before(&mut self, now: Instant, grant: Grant) {
        for (receiver, runs) in grant.given_before {
            let mut refused = Vec::new();
            for incoming in self.transfers.values_mut() {
                if incoming.holder != Holder::Server || incoming.digest != grant.digest {
                    continue;
                }
                let capacity = incoming.remaining.capacity();
                for index in indices_of(&runs, capacity) {
                    if incoming.remaining.remove(index) {
                        refused.push(index);
                    }
                }
            }
            refused.sort_unstable();
            if let Some(package) = self.packages.get_mut(&grant.digest) {
                for &index in &refused {
                    package.in_flight.remove(index);
                }
            }
            if !refused.is_empty() {
                let runs = runs_of(refused);
                let reason = UnservedReason::AlreadyGiven(receiver);
                self.unserved(now, ContentClass::Foreground, grant.digest, &Holder::Server, runs, reason);
            }
        }
        let done: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, incoming)| incoming.remaining.is_empty() && !incoming.started)
            .map(|(&transfer, _)| transfer)
            .collect();
        self.pace_due |= !done.is_empty();
        for transfer in done {
            self.transfers.remove(&transfer);
            self.outputs.push_back(Output::Steer { transfer, signal: ControlSignal::Cancel });
        }
    }
}
