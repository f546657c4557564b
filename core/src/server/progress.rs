//! Progress of one package in one office, as its nodes report it. Nodes count what they receive in one run of theirs; here
//! the runs are added up, as far as this server saw them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::message::NodeState;
use crate::names::NodeName;

/// Progress of one package in one office.
#[derive(Debug, Clone, Default)]
pub struct OfficeProgress {
    /// Bitmap of chunks that some node has, as reported.
    pub available: Bytes,
    /// Progress by node; what was received is the sum over its runs.
    pub nodes: BTreeMap<NodeName, NodeState>,
    runs: BTreeMap<NodeName, Runs>,
}

/// What a node received.
#[derive(Debug, Clone, Copy, Default)]
struct Runs {
    earlier: Received,
    latest: Received,
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
        runs.take(Received::of(state));
        let known = self.nodes.entry(node.clone()).or_default();
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

    /// The node is gone.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.nodes.remove(node);
        self.runs.remove(node);
    }
}

impl Runs {
    /// Counters only rise within a run. Nothing at all may also be a rendezvous point that knows nothing of the node yet.
    fn take(&mut self, now: Received) {
        if now.is_nothing() {
            return;
        }
        if now.wan_bytes < self.latest.wan_bytes || now.lan_bytes < self.latest.lan_bytes {
            self.earlier = self.sum();
        }
        self.latest = now;
    }

    fn sum(&self) -> Received {
        let Self { earlier, latest } = self;
        Received {
            wan_bytes: earlier.wan_bytes.saturating_add(latest.wan_bytes),
            lan_bytes: earlier.lan_bytes.saturating_add(latest.lan_bytes),
            origin_bytes: earlier.origin_bytes.saturating_add(latest.origin_bytes),
        }
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

    fn is_nothing(&self) -> bool {
        self.wan_bytes == 0 && self.lan_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_received_is_added_up_over_its_runs() {
        let (mut progress, node) = (OfficeProgress::default(), NodeName::new("till-1").unwrap());
        let mut after = |wan: u64, lan: u64| {
            let state = NodeState { wan_bytes_received: wan, lan_bytes_received: lan, ..NodeState::default() };
            progress.report(&node, &state);
            let known = &progress.nodes[&node];
            (known.wan_bytes_received, known.lan_bytes_received)
        };
        assert_eq!(after(10, 5), (10, 5));
        assert_eq!(after(30, 5), (30, 5), "the same run");
        assert_eq!(after(0, 0), (30, 5), "nothing is known of it yet, or it has begun anew");
        assert_eq!(after(4, 1), (34, 6), "begun anew");
        assert_eq!(after(4, 9), (34, 14));
        assert_eq!(after(1, 12), (35, 26), "begun anew again");
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
}
