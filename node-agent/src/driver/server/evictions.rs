//! Who still holds the packages of deleted objects: from the moment at which no plan lists them any more, the nodes
//! that have not confirmed such a plan. Goes by the identity of the object; after a restart every plan is new, and so
//! is every confirmation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peerdist_core::message::Revision;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName};
use peerdist_core::server::Server;

use crate::desired::ClusterObjects;

/// A node that was not heard for so long is not waited for: six of its greetings. It deletes when it hears the plan.
const SILENCE: Duration = Duration::from_secs(60);

/// The deletions under way: for each object the plans from which on it is not listed.
#[derive(Debug, Default)]
pub(super) struct Evictions(BTreeMap<String, BTreeMap<OfficeName, Revision>>);

impl Evictions {
    /// For each deleted object the nodes that hold its package, of those that were heard lately. The machine must have made
    /// its plans from these objects.
    pub(super) fn look(
        &mut self,
        machine: &Server,
        objects: &ClusterObjects,
        started: Instant,
    ) -> BTreeMap<DistributionKey, Vec<NodeName>> {
        let now = Instant::now();
        let deleted = || objects.packages.iter().filter(|(_, object)| object.is_deleted);
        self.0.retain(|uid, _| deleted().any(|(_, object)| object.uid == *uid));
        let mut holding = BTreeMap::new();
        for (key, object) in deleted() {
            let since = self.0.entry(object.uid.clone()).or_insert_with(|| machine.plan_revisions());
            let nodes = machine.holding(key, since, |known| known.silence(started, now) <= SILENCE);
            holding.insert(key.clone(), nodes);
        }
        holding
    }
}
