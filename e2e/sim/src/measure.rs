//! What is counted in a run: payload by link, server bytes, actions.

use std::collections::BTreeMap;

use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName};

/// Most actions at one moment: beyond it, something turns in circles.
const ACTIONS_AT_ONCE_MAX: u64 = 2_000_000;

/// Counters of a run.
#[derive(Debug, Default, Clone)]
pub struct Measures {
    wan_bytes: BTreeMap<(OfficeName, NodeName, Digest), u64>,
    lan_bytes: u64,
    server_bytes: BTreeMap<(NodeName, Digest), u64>,
    chunks_since_look: u64,
    actions_since_look: u64,
    idle_looks: u64,
    most_idle_actions: u64,
    most_outputs: usize,
    most_transfers: usize,
    messages: u64,
    rejected_chunks: u64,
    rubbish_bytes: u64,
}

impl Measures {
    /// Payload that came over the link from the parent, by office and package.
    pub fn wan_bytes_of(&self, office: &OfficeName, digest: Digest) -> u64 {
        let of = self.wan_bytes.iter().filter(|((into, _, package), _)| into == office && *package == digest);
        of.map(|(_, bytes)| bytes).sum()
    }

    /// Payload that came over the link from the parent to one node.
    pub fn wan_bytes_of_node(&self, office: &OfficeName, node: &NodeName, digest: Digest) -> u64 {
        self.wan_bytes.get(&(office.clone(), node.clone(), digest)).copied().unwrap_or(0)
    }

    /// Payload that the server sent of a package to some nodes.
    pub fn server_bytes_of(&self, digest: Digest, to: impl Fn(&NodeName) -> bool) -> u64 {
        let of = self.server_bytes.iter().filter(|((node, package), _)| *package == digest && to(node));
        of.map(|(_, bytes)| bytes).sum()
    }

    /// All payload.
    pub fn content_bytes(&self) -> u64 {
        self.wan_bytes.values().sum::<u64>() + self.server_bytes.values().sum::<u64>() + self.lan_bytes
    }

    /// Most actions a node in a second without content after another such second.
    pub fn most_idle_actions(&self) -> u64 {
        self.most_idle_actions
    }

    /// Most outputs that one event caused.
    pub fn most_outputs(&self) -> usize {
        self.most_outputs
    }

    /// Most transfers that one node expected at once.
    pub fn most_transfers(&self) -> usize {
        self.most_transfers
    }

    /// Messages sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Chunks that arrived and had not been asked for.
    pub fn rejected_chunks(&self) -> u64 {
        self.rejected_chunks
    }

    /// Payload of chunks that were not what they should be.
    pub fn rubbish_bytes(&self) -> u64 {
        self.rubbish_bytes
    }

    pub(crate) fn rubbish(&mut self, bytes: u64) {
        self.rubbish_bytes += bytes;
    }

    pub(crate) fn wan(&mut self, office: &OfficeName, node: &NodeName, digest: Digest, bytes: u64) {
        *self.wan_bytes.entry((office.clone(), node.clone(), digest)).or_default() += bytes;
        self.chunks_since_look += 1;
    }

    pub(crate) fn lan(&mut self, bytes: u64) {
        self.lan_bytes += bytes;
        self.chunks_since_look += 1;
    }

    pub(crate) fn server(&mut self, node: &NodeName, digest: Digest, bytes: u64) {
        *self.server_bytes.entry((node.clone(), digest)).or_default() += bytes;
        self.chunks_since_look += 1;
    }

    pub(crate) fn outputs(&mut self, count: usize) {
        self.most_outputs = self.most_outputs.max(count);
    }

    pub(crate) fn transfers(&mut self, count: usize) {
        self.most_transfers = self.most_transfers.max(count);
    }

    pub(crate) fn message(&mut self) {
        self.messages += 1;
    }

    pub(crate) fn rejected(&mut self) {
        self.rejected_chunks += 1;
    }

    pub(crate) fn action(&mut self, at_this_moment: u64) {
        self.actions_since_look += 1;
        assert!(at_this_moment < ACTIONS_AT_ONCE_MAX, "the machines turn in circles without time passing");
    }

    pub(crate) fn look(&mut self, nodes: u64) {
        self.idle_looks = if self.chunks_since_look == 0 { self.idle_looks + 1 } else { 0 };
        // In the first idle second the last streams come to their end.
        if self.idle_looks > 1 {
            self.most_idle_actions = self.most_idle_actions.max(self.actions_since_look / nodes.max(1));
        }
        (self.chunks_since_look, self.actions_since_look) = (0, 0);
    }
}
