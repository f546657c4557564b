//! How far the packages of a node are, for its status and metrics.

use super::Client;
use crate::message::NodeState;
use crate::plan::PlannedPackage;

/// See [`Client::progress`].
#[derive(Debug)]
pub struct PackageProgress<'a> {
    /// The package as planned.
    pub planned: &'a PlannedPackage,
    /// Bytes and completion.
    pub state: &'a NodeState,
    /// A stable word for where it is in its life: the `state` label of `peerdist_packages`.
    pub phase: &'static str,
}

impl Client {
    /// Progress of every planned package on this node.
    pub fn progress(&self) -> impl Iterator<Item = PackageProgress<'_>> {
        self.packages.values().filter(|package| !package.superseded).map(|package| PackageProgress {
            planned: &package.planned,
            state: &package.state,
            phase: package.phase.as_str(),
        })
    }
}
