//! Who may say what: each message goes to the part that it concerns, or is refused.

use std::time::Instant;

use super::Client;
use super::event::Refusal;
use crate::digest::Digest;
use crate::message::Message;
use crate::peer::{NodeRef, Peer};
use crate::rendezvous;

impl Client {
    /// Takes in a message of a peer whose identity is proven.
    ///
    /// # Errors
    /// [`Refusal`] is the reply to the peer when the message is not honoured.
    pub fn message(&mut self, now: Instant, from: Peer, message: Message) -> Result<(), Refusal> {
        let now = self.take_in(now);
        let answer = match (from, message) {
            (Peer::Server, Message::PlanChanged(changed)) => {
                self.hear_server(now, changed);
                Ok(())
            }
            (Peer::Server, Message::Grant(grant)) => {
                self.server_given_before(now, grant);
                Ok(())
            }
            (Peer::Node(from), message) => self.message_of_node(now, from, message),
            (Peer::Server, _) => Err(Refusal::unexpected()),
        };
        self.drive_election(now);
        self.steer_paces();
        answer
    }

    /// Whether a peer may read the manifest of a package: members of the office, and child offices with a grant.
    /// That a child asks is noted.
    pub fn may_read_manifest(&mut self, now: Instant, peer: &NodeRef, digest: Digest) -> bool {
        let now = self.take_in(now);
        let to_child = self.is_granted(&peer.office, digest);
        if to_child {
            self.child_asks(now, digest);
        }
        to_child || (peer.office == self.config.me.office && self.packages.contains_key(&digest))
    }

    fn message_of_node(&mut self, now: Instant, from: NodeRef, message: Message) -> Result<(), Refusal> {
        let same_office = from.office == self.config.me.office;
        match message {
            Message::RendezvousClaim { term, .. } if same_office => {
                self.election.handle(now, rendezvous::Event::Beacon { from, term }, &mut self.rng);
                Ok(())
            }
            Message::RendezvousClaim { term, .. } => self.hear_parent_claim(now, term, from),
            Message::MemberReport(report) if same_office => self.take_member_report(now, &from, report),
            Message::Inventory(inventory) if same_office => self.take_member_inventory(now, &from, inventory),
            Message::Inventory(inventory) => self.take_child_inventory(&from, inventory),
            Message::Handover { term } if same_office => self.take_handover(now, &from, term),
            Message::Assign(assign) if same_office => self.take_assignments(now, &from, assign),
            Message::Unserved(unserved) if same_office => self.take_member_unserved(now, &from, unserved),
            Message::Unserved(unserved) => self.take_child_unserved(now, &from, unserved),
            Message::Want(want) => self.take_want(&from, want),
            Message::Fetch(fetch) => self.take_fetch(now, &from, fetch),
            Message::Grant(grant) => self.take_grant(now, &from, grant),
            Message::HoldersFound(found) if same_office => {
                self.take_holders_found(now, &from, found);
                Ok(())
            }
            _ => Err(Refusal::unexpected()),
        }
    }
}
