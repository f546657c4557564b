//! Numbers of plans when the fleet knows higher ones than this server gave: its disk was lost or it was moved to an empty
//! one, and the clock of the machine before was ahead. Nodes take no plan with a lower number than they have, so that
//! nobody can bring a withdrawn package back by an old one; the server counts on from what it hears.

use super::Server;
use crate::message::{Message, Revision};
use crate::names::OfficeName;
use crate::peer::NodeRef;

/// How far above the numbers with which this run began the server believes what nodes say. A hostile node that uses it up
/// delays nothing, and what the next run begins with is above it again after the time that this stands for.
const AHEAD_MAX: Revision = 1 << 57;

impl Server {
    /// Notes which plan the sender of a message has. The plan of its office gets a higher number at the next regular look
    /// if that one is later: once for all nodes that say so until then.
    pub(super) fn note_plan_of(&mut self, from: &NodeRef, message: &Message) {
        let Some(revision) = plan_revision_of(message) else { return };
        if let Some(known) = self.nodes.get_mut(&from.name) {
            known.plan_revision = known.plan_revision.max(revision);
        }
        let is_overtaken = self.plans.get(&from.office).is_some_and(|plan| plan.revision < revision);
        if is_overtaken && revision <= self.config.last_revision.saturating_add(AHEAD_MAX) {
            self.revision = self.revision.max(revision);
            self.overtaken.insert(from.office.clone());
            self.newcomers.insert(from.office.clone());
        }
    }

    /// Whether the plan of an office has to get another number although nothing in it has changed.
    pub(super) fn is_overtaken(&mut self, office: &OfficeName) -> bool {
        self.overtaken.remove(office)
    }
}

fn plan_revision_of(message: &Message) -> Option<Revision> {
    match message {
        Message::Hello(hello) => Some(hello.plan_revision),
        Message::RendezvousClaim { plan_revision, .. } => Some(*plan_revision),
        Message::OfficeReport(report) => Some(report.plan_revision),
        Message::Complete { plan_revision, .. } => *plan_revision,
        _ => None,
    }
}
