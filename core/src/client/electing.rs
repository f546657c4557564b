//! Whom the node follows, or that it leads: the election's word is put into practice. Election itself is
//! [`crate::rendezvous`]'s.

use std::time::Instant;

use super::event::{BroadcastRequest, NOT_FOLLOWING, Output, Refusal};
use super::{Client, Package};
use crate::message::{Message, PlanChanged, Term};
use crate::peer::{MessageClass, NodeRef, Peer};
use crate::rendezvous;

impl Client {
    pub(super) fn drive_election(&mut self, now: Instant) {
        while let Some(output) = self.election.poll() {
            match output {
                rendezvous::Output::Beacon(term) => {
                    let plan_revision = self.revision();
                    self.outputs.push_back(Output::Broadcast(BroadcastRequest::Beacon { term, plan_revision }));
                }
                rendezvous::Output::Ask => {
                    self.outputs.push_back(Output::Broadcast(BroadcastRequest::WhoIsRendezvousPoint));
                }
                rendezvous::Output::Lead(_) => self.begin_leading(now),
                rendezvous::Output::Follow { .. } => self.begin_following(now),
                rendezvous::Output::ReportLost(term) => {
                    self.send(Peer::Server, MessageClass::Small, Message::RendezvousLost { term });
                }
            }
        }
    }

    pub(super) fn hear_server(&mut self, now: Instant, changed: PlanChanged) {
        let says = rendezvous::Event::ServerSays { term: changed.term, rendezvous_point: changed.rendezvous_point };
        self.election.handle(now, says, &mut self.rng);
    }

    pub(super) fn begin_following(&mut self, now: Instant) {
        // A transit copy stays here and is served from here: a change of the rendezvous point moves no content.
        if self.leading.take().is_some() {
            self.give_back_grants();
        }
        self.report_sent_at = None;
        self.packages.values_mut().for_each(Package::waits_for_nothing);
        self.inventory_due = true;
        self.inventory_sent_at = None;
        self.inventories_unanswered = 0;
        self.hurry(now);
        self.drop_what_others_replace();
        self.retry_packages(now);
    }

    /// The rendezvous point cannot take a package that this node can: the role is this node's.
    pub(super) fn take_handover(&mut self, now: Instant, from: &NodeRef, term: Term) -> Result<(), Refusal> {
        if self.election.leader() != Some(from) || self.election.term() != term {
            return Err(Refusal::new(NOT_FOLLOWING, "this node follows another rendezvous point"));
        }
        self.election.handle(now, rendezvous::Event::HandedOver { term }, &mut self.rng);
        Ok(())
    }
}
