//! Progress of one package in one office, as its nodes report it. Nodes count what they receive in one run of theirs; here
//! the runs are added up, as far as this server saw them.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::NodeState;
use crate::names::NodeName;

/// Runs of a node that are told apart; a report of an older one is taken for one that began.
const RUNS_MAX: usize = 8;

/// Progress of one package in one office.
#[derive(Debug, Clone, Default)]
pub struct OfficeProgress {
    /// How many chunks some node has; `None` before the first report of the office.
    pub available_chunks: Option<u32>,
    /// Progress by node; what was received is the sum over its runs.
    pub nodes: BTreeMap<NodeName, NodeState>,
    runs: BTreeMap<NodeName, Runs>,
}

/// What a node received, by its latest runs and in those before.
#[derive(Debug, Clone, Default)]
struct Runs {
    before: Received,
    latest: Vec<(u64, Received)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Received {
    wan_bytes: u64,
    lan_bytes: u64,
    origin_bytes: u64,
}

impl OfficeProgress {
    /// Takes in what the office's rendezvous point says of a node.
    pub(super) fn report(&mut self, node: &NodeName, state: &NodeState) {
        let runs = self.runs.entry(node.clone()).or_default();
        runs.take(state.run, Received::of(state));
        let known = self.nodes.entry(node.clone()).or_default();
        if state.is_before(known) {
            return;
        }
        // A node's own word that it is complete may overtake the report of its rendezvous point.
        let complete = known.complete && state.bytes_held >= known.bytes_held && state.error.is_none();
        *known = state.clone();
        known.complete |= complete;
        let Received { wan_bytes, lan_bytes, origin_bytes } = runs.sum();
        (known.wan_bytes_received, known.lan_bytes_received, known.bytes_from_origin) =
            (wan_bytes, lan_bytes, origin_bytes);
    }

    /// Takes a node's own word that it has everything.
    pub(super) fn complete(&mut self, node: &NodeName, bytes: u64) {
        let state = self.nodes.entry(node.clone()).or_default();
        (state.complete, state.bytes_held, state.error) = (true, bytes, None);
    }

    /// Another node tells of the office: what it heard of the nodes need not be what the one before heard.
    pub(super) fn forget_order(&mut self) {
        self.nodes.values_mut().for_each(|state| state.sequence = 0);
    }

    /// The office gets the package again: nobody there has anything of it, and what came before came.
    pub(super) fn begin_anew(&mut self) {
        self.available_chunks = None;
        self.nodes.values_mut().for_each(has_nothing);
    }

    /// The node has nothing of the package, and what it received it received.
    pub(super) fn begin_anew_on(&mut self, node: &NodeName) {
        self.nodes.get_mut(node).into_iter().for_each(has_nothing);
    }

    /// The node is gone.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.nodes.remove(node);
        self.runs.remove(node);
    }

    /// These nodes are gone.
    pub(super) fn forget_all(&mut self, nodes: &BTreeSet<NodeName>) {
        self.nodes.retain(|node, _| !nodes.contains(node));
        self.runs.retain(|node, _| !nodes.contains(node));
    }
}

fn has_nothing(state: &mut NodeState) {
    (state.complete, state.bytes_held, state.error, state.sequence) = (false, 0, None, 0);
}

impl Runs {
    /// Counters only rise within a run, and reports may overtake each other.
    fn take(&mut self, run: u64, now: Received) {
        if let Some((_, known)) = self.latest.iter_mut().find(|(known, _)| *known == run) {
            *known = known.max(now);
            return;
        }
        if self.latest.len() == RUNS_MAX {
            let (_, oldest) = self.latest.remove(0);
            self.before = self.before.plus(oldest);
        }
        self.latest.push((run, now));
    }

    fn sum(&self) -> Received {
        self.latest.iter().fold(self.before, |sum, (_, received)| sum.plus(*received))
    }
}

impl Received {
    fn of(state: &NodeState) -> Self {
        Self {
            wan_bytes: state.wan_bytes_received,
            lan_bytes: state.lan_bytes_received,
            origin_bytes: state.bytes_from_origin,
        }
    }

    fn max(self, other: Self) -> Self {
        self.combine(other, u64::max)
    }

    fn plus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    fn combine(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            wan_bytes: combine(self.wan_bytes, other.wan_bytes),
            lan_bytes: combine(self.lan_bytes, other.lan_bytes),
            origin_bytes: combine(self.origin_bytes, other.origin_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_received_is_added_up_over_its_runs() {
        let (mut progress, node) = (OfficeProgress::default(), NodeName::new("till-1").unwrap());
        let mut after = |run: u64, wan: u64, lan: u64| {
            let state = NodeState { run, wan_bytes_received: wan, lan_bytes_received: lan, ..NodeState::default() };
            progress.report(&node, &state);
            let known = &progress.nodes[&node];
            (known.wan_bytes_received, known.lan_bytes_received)
        };
        assert_eq!(after(0, 0, 0), (0, 0), "nothing is known of it yet");
        assert_eq!(after(7, 10, 5), (10, 5));
        assert_eq!(after(7, 30, 5), (30, 5));
        assert_eq!(after(7, 25, 5), (30, 5), "an older report came later");
        assert_eq!(after(9, 40, 1), (70, 6), "begun anew");
        assert_eq!(after(7, 30, 5), (70, 6), "the last report of the run before");
        for run in 10..100 {
            after(run, 1, 0);
        }
        assert_eq!(after(99, 2, 0), (161, 6));
    }

    #[test]
    fn own_word_of_a_node_that_it_is_complete_outlives_an_older_report() {
        let (mut progress, node) = (OfficeProgress::default(), NodeName::new("till-1").unwrap());
        progress.complete(&node, 100);
        progress.report(&node, &NodeState { bytes_held: 100, ..NodeState::default() });
        assert!(progress.nodes[&node].complete);
        progress.report(&node, &NodeState { bytes_held: 10, ..NodeState::default() });
        assert!(!progress.nodes[&node].complete, "it lost something");
        progress.forget(&node);
        assert!(progress.nodes.is_empty());
    }

    #[test]
    fn word_that_was_overtaken_by_a_later_one_does_not_count() {
        let (mut progress, node) = (OfficeProgress::default(), NodeName::new("till-1").unwrap());
        let said = |sequence, bytes_held, complete| NodeState {
            run: 1,
            sequence,
            bytes_held,
            complete,
            ..NodeState::default()
        };
        progress.report(&node, &said(2, 100, true));
        progress.report(&node, &said(1, 90, false));
        assert!(progress.nodes[&node].complete);
        progress.forget_order();
        progress.report(&node, &said(1, 90, false));
        assert!(!progress.nodes[&node].complete, "another node tells of it");
        progress.report(&node, &said(2, 100, true));
        progress.report(&node, &NodeState { run: 2, ..said(1, 90, false) });
        assert!(!progress.nodes[&node].complete, "it is another run");
        progress.report(&node, &said(2, 100, true));
        progress.report(&node, &said(0, 90, false));
        assert!(!progress.nodes[&node].complete, "an earlier release does not say in which order");
    }
}
