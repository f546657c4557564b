//! Whom of the parent office a rendezvous point asks, and what it says when nothing comes: the parent's rendezvous
//! point by its own claim or by the plan, and another one known when that delivers nothing. A child asks the parent
//! office and nobody else, so while the parent office does not elect another one, all that is left is to say why it
//! waits.

use std::time::{Duration, Instant};

use super::Client;
use super::event::Refusal;
use crate::digest::Digest;
use crate::message::Term;
use crate::names::NodeName;
use crate::peer::NodeRef;
use crate::rendezvous::is_later;
use crate::swarm::avoidance::Avoided;

/// A parent that was asked and of which no chunk has come for so long is left alone, if another one is known.
const PARENT_PATIENCE: Duration = Duration::from_secs(60);
/// One that answers all the time, and only that nobody has the chunks yet, is left alone after so long.
const PROMISES_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Manifests that did not come in a row, after which the same holds.
const MANIFEST_FAILURES_MAX: u32 = 10;
/// Reason word: the parent office delivers nothing.
const PARENT_SILENT: &str = "ParentSilent";
/// Reason word: the parent office answers and has got nothing itself.
const PARENT_LACKS: &str = "ParentLacks";

/// What is known of the parent's rendezvous point.
#[derive(Debug, Default)]
pub(super) struct Parent {
    claim: Option<(Term, NodeRef)>,
    /// The turn among the nodes that the plan names.
    turn: usize,
    avoided: Avoided<NodeName>,
    /// Who is asked, and since when.
    asked: Option<(NodeRef, Instant)>,
}

impl Parent {
    /// Who to ask among the claimant and the nodes that the plan names.
    fn node(&self, now: Instant, planned: &[NodeRef]) -> Option<NodeRef> {
        let by_turn = (0..planned.len()).map(|step| &planned[(self.turn + step) % planned.len()]);
        let known: Vec<&NodeRef> = self.claim.iter().map(|(_, node)| node).chain(by_turn).collect();
        let trusted = known.iter().find(|node| !self.avoided.contains(now, &node.name));
        trusted.or(known.first()).map(|&node| node.clone())
    }

    /// The node is no rendezvous point, or not there.
    pub(super) fn does_not_lead(&mut self, node: &NodeRef) {
        if self.claim.as_ref().is_some_and(|(_, claimant)| claimant == node) {
            self.claim = None;
        } else {
            self.turn += 1;
        }
    }

    /// Notes a claim. Returns whether it is news.
    fn hear(&mut self, now: Instant, term: Term, from: NodeRef) -> bool {
        let is_avoided = |node: &NodeRef| self.avoided.contains(now, &node.name);
        let yields = |known_term: Term, node: &NodeRef| {
            let counts = is_later(term, known_term) || (term == known_term && *node == from);
            is_avoided(node) || (counts && !is_avoided(&from))
        };
        let known = self.claim.as_ref();
        if !known.is_none_or(|(known_term, node)| yields(*known_term, node)) {
            return false;
        }
        let is_other = known.is_none_or(|(known_term, node)| *node != from || *known_term != term);
        // Whoever is left alone is not asked because it claims once more.
        let is_new = is_other && !is_avoided(&from);
        self.claim = Some((term, from));
        is_new
    }

    /// Since when this node is asked.
    fn asked_since(&mut self, now: Instant, node: &NodeRef) -> Instant {
        match &self.asked {
            Some((asked, since)) if asked == node => *since,
            _ => self.asked.insert((node.clone(), now)).1,
        }
    }

    /// Who was asked last.
    pub(super) fn last_asked(&self) -> Option<&NodeRef> {
        self.asked.as_ref().map(|(node, _)| node)
    }
}

impl Client {
    /// The parent's rendezvous point as far as it is known, otherwise the next node of the parent that the plan names.
    pub(super) fn parent_node(&self, now: Instant) -> Option<NodeRef> {
        self.parent.node(now, self.plan.as_ref().map_or(&[], |plan| &plan.parent_nodes))
    }

    /// Another plan names other nodes, or another office: nothing is known of that one, and nothing was asked of it.
    pub(super) fn look_for_parent_anew(&mut self, is_other_office: bool) {
        self.parent.turn = 0;
        if !is_other_office {
            return;
        }
        self.give_back_grants();
        self.parent = Parent::default();
        for package in self.packages.values_mut() {
            package.upstream.ask_again();
            package.upstream.wait_anew();
        }
    }

    /// The rendezvous point of the parent office made itself known.
    pub(super) fn hear_parent_claim(&mut self, now: Instant, term: Term, from: NodeRef) -> Result<(), Refusal> {
        let parent = self.plan.as_ref().and_then(|plan| plan.parent.as_ref());
        if parent != Some(&from.office) {
            return Err(Refusal::unexpected());
        }
        if self.parent.hear(now, term, from.clone()) && self.election.is_leading() {
            self.tell_parent_what_came(&from);
            self.packages.values_mut().for_each(|package| package.upstream.ask_again());
            self.hurry(now);
        }
        Ok(())
    }

    /// Says so when the parent was asked and nothing comes, and turns to another one if there is one.
    pub(super) fn look_at_parent(&mut self, now: Instant, digest: Digest) {
        let asked = self.parent_node(now);
        if let Some(asked) = &asked {
            self.parent.asked_since(now, asked);
        }
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let since = package.upstream.waits_since();
        if since.is_none_or(|since| since + PARENT_PATIENCE > now) {
            return package.waits_for_nothing();
        }
        let Some(asked) = asked else { return };
        let seconds = PARENT_PATIENCE.as_secs();
        if package.upstream.promised_at().is_some_and(|at| at + PARENT_PATIENCE > now) {
            package.waits_because(PARENT_LACKS, format!(
                "{asked}, the rendezvous point of the parent office, answers that nobody there has what is lacking, for over \
                 {seconds} s: look at what that office waits for"
            ));
            // Whoever only promises may be no rendezvous point at all, or have lost its office.
            if self.parent.asked_since(now, &asked) + PROMISES_PATIENCE <= now {
                self.leave_parent_alone(now, &asked);
            }
            return;
        }
        package.waits_because(PARENT_SILENT, format!(
            "{asked}, the rendezvous point of the parent office, was asked and has sent nothing of this package for over \
             {seconds} s: look at that node, at its office and at the link"
        ));
        if self.parent.asked_since(now, &asked) + PARENT_PATIENCE <= now {
            self.leave_parent_alone(now, &asked);
        }
    }

    /// The parent did not send the pages of a manifest.
    pub(super) fn manifest_did_not_come(&mut self, now: Instant, digest: Digest, message: String) {
        let asked = self.parent_node(now);
        self.parent.turn += 1;
        let Some(package) = self.packages.get_mut(&digest) else { return };
        if package.prepare_failures() < MANIFEST_FAILURES_MAX {
            return;
        }
        package.waits_because(PARENT_SILENT, message);
        if let Some(asked) = asked {
            self.leave_parent_alone(now, &asked);
        }
    }

    fn leave_parent_alone(&mut self, now: Instant, asked: &NodeRef) {
        self.parent.avoided.failed(now, &asked.name, PARENT_PATIENCE);
        if self.parent_node(now).as_ref() != Some(asked) {
            self.packages.values_mut().for_each(|package| package.upstream.ask_again());
        }
    }
}

#[cfg(test)]
mod tests;
