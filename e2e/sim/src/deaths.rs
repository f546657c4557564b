//! Who died in a run, or did not go on as before because its disk was full or because it lies: what that may cost a
//! link is credited to the links of those who died, and to no others.

use std::collections::BTreeMap;

use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::NodeRef;

/// Deaths in a run.
#[derive(Debug, Default, Clone)]
pub struct Deaths {
    nodes: BTreeMap<(OfficeName, NodeName), u64>,
    lost: BTreeMap<(OfficeName, Digest), u64>,
    server: u64,
    of_everything: u64,
}

impl Deaths {
    /// Of nodes of an office, one by one.
    pub fn in_office(&self, office: &OfficeName) -> u64 {
        self.nodes.iter().filter(|((of, _), _)| of == office).map(|(_, count)| count).sum()
    }

    /// Of one node alone.
    pub fn of_node(&self, node: &NodeRef) -> u64 {
        self.nodes.get(&(node.office.clone(), node.name.clone())).copied().unwrap_or(0)
    }

    /// Bytes of a package passing through an office that were lost with the one node that had them.
    pub fn lost_in_office(&self, office: &OfficeName, digest: Digest) -> u64 {
        self.lost.get(&(office.clone(), digest)).copied().unwrap_or(0)
    }

    /// Of the server alone.
    pub fn of_server(&self) -> u64 {
        self.server
    }

    /// Of everything at once.
    pub fn of_everything(&self) -> u64 {
        self.of_everything
    }

    pub(crate) fn node(&mut self, node: &NodeRef) {
        *self.nodes.entry((node.office.clone(), node.name.clone())).or_default() += 1;
    }

    pub(crate) fn lost(&mut self, office: &OfficeName, digest: Digest, bytes: u64) {
        *self.lost.entry((office.clone(), digest)).or_default() += bytes;
    }

    pub(crate) fn server(&mut self) {
        self.server += 1;
    }

    pub(crate) fn everything(&mut self) {
        self.of_everything += 1;
    }
}
