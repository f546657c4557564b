//! Numbers of plans when the fleet knows higher ones than this server gave: its disk was lost or it was moved to an empty
//! one, and the clock of the machine before was ahead. Nodes take no plan with a lower number than they have, so that
//! nobody can bring a withdrawn package back by an old one; the server counts on from what it hears. What it heard is not
//! kept: a run that begins below it again hears it again.

use std::time::{Duration, Instant};

use super::Server;
use crate::message::{Message, Revision};
use crate::names::OfficeName;
use crate::peer::NodeRef;

/// How far above the numbers with which this run began the server counts on from what nodes say: what the clock gives in a
/// year.
const AHEAD_MAX: Revision = 1 << 57;
/// How far above what a node says the server counts on: the plan before may have reached other nodes only. It is half of
/// what a start of the server reserves, so that the next run counts on from all that this one gives.
const MARGIN: Revision = 1 << 31;
/// So long the plan of an office keeps its number at least, twice as long each time: a node that lies has the plan of its
/// office sent a few times, and no more.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The pause doubles at most so often.
const PAUSE_DOUBLINGS_MAX: u32 = 12;

/// An office whose nodes know a plan with a higher number than this server had given.
#[derive(Debug)]
pub(super) struct Overtaken {
    /// The highest number that they told.
    told: Revision,
    /// How often its plan got another number for that.
    times: u32,
    again_at: Instant,
}

impl Server {
    /// Notes which plan the sender of a message has, and whether that one is later than the plan of its office.
    pub(super) fn note_plan_of(&mut self, now: Instant, from: &NodeRef, message: &Message) {
        let Some(revision) = plan_revision_of(message) else { return };
        if let Some(known) = self.nodes.get_mut(&from.name) {
            known.plan_revision = known.plan_revision.max(revision);
        }
        let is_later = self.plans.get(&from.office).is_some_and(|plan| plan.revision < revision);
        if is_later && !self.is_beyond_belief(revision) {
            // A node that lies would else use up what the next run believes, little by little.
            if revision <= self.counts_on_from_max() {
                self.revision = self.revision.max(revision.saturating_add(MARGIN));
            }
            self.told_until = self.revision;
            let first = || Overtaken { told: revision, times: 0, again_at: now };
            let overtaken = self.overtaken.entry(from.office.clone()).or_insert_with(first);
            overtaken.told = overtaken.told.max(revision);
        }
    }

    fn counts_on_from_max(&self) -> Revision {
        self.config.last_revision.saturating_add(AHEAD_MAX)
    }

    /// Whether no server with these keys can have given a plan this number, this one included, as far as it knows. Nodes
    /// that have such a plan take none of this server.
    pub fn is_beyond_belief(&self, revision: Revision) -> bool {
        revision > self.counts_on_from_max().max(self.revision)
    }

    /// The plan of an office gets a number, for whatever reason. What its nodes confirm of lower numbers than the first
    /// above what was told may be plans of another server, also where they were silent and others told.
    pub(super) fn note_number(&mut self, office: &OfficeName, revision: Revision) {
        let before = self.plans.get(office).map_or(0, |plan| plan.revision);
        if before <= self.told_until {
            self.first_above_told.insert(office.clone(), revision);
        }
    }

    /// The plans of offices that are overtaken are made anew, once for all nodes that said so until then.
    pub(super) fn number_anew(&mut self, now: Instant) {
        for (office, overtaken) in &mut self.overtaken {
            let is_behind = self.plans.get(office).is_some_and(|plan| plan.revision <= overtaken.told);
            if is_behind && overtaken.again_at <= now {
                overtaken.again_at = now + PAUSE_FIRST * (1 << overtaken.times.min(PAUSE_DOUBLINGS_MAX));
                overtaken.times += 1;
                self.renumbered.insert(office.clone());
                self.newcomers.insert(office.clone());
            }
        }
    }

    /// Whether a node of the office that confirms plans up to this number has confirmed one of this server that is as new
    /// as that.
    pub(super) fn has_confirmed(&self, office: &OfficeName, confirmed: Revision, plan: Revision) -> bool {
        let first_above_told = self.first_above_told.get(office).copied().unwrap_or(0);
        let in_force = self.plans.get(office).map_or(0, |plan| plan.revision);
        (plan.max(first_above_told)..=in_force).contains(&confirmed)
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
