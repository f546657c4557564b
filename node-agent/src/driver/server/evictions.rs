//! Who still holds the packages of deleted objects: from the moment at which no plan lists them any more, the nodes
//! that have not confirmed such a plan. Goes by the identity of the object; after a restart every plan is new, and so
//! is every confirmation. A server that begins anew on an empty disk knows no nodes, and says nothing until it has heard
//! those that there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peerdist_core::message::Revision;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName};
use peerdist_core::server::Server;

use crate::desired::ClusterObjects;

/// A node that was not heard for so long is not waited for: six of its greetings. It deletes when it hears the plan.
const SILENCE: Duration = Duration::from_secs(60);

/// The deletions under way.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// For each object the plans from which on it is not listed.
    since: BTreeMap<String, BTreeMap<OfficeName, Revision>>,
    /// Nodes of an earlier run are known.
    knows_nodes: bool,
}

impl Evictions {
    /// An earlier run has left which nodes there are.
    pub(super) fn know_nodes(&mut self) {
        self.knows_nodes = true;
    }

    /// For each deleted object the nodes that hold its package, of those that were heard lately; nothing while nobody can
    /// tell. The machine must have made its plans from these objects.
    pub(super) fn look(
        &mut self,
        machine: &Server,
        objects: &ClusterObjects,
        started: Instant,
        now: Instant,
    ) -> BTreeMap<DistributionKey, Vec<NodeName>> {
        let deleted = || objects.packages.iter().filter(|(_, object)| object.is_deleted);
        self.since.retain(|uid, _| deleted().any(|(_, object)| object.uid == *uid));
        let mut holding = BTreeMap::new();
        if !self.knows_nodes && now.saturating_duration_since(started) <= SILENCE {
            return holding;
        }
        for (key, object) in deleted() {
            let since = self.since.entry(object.uid.clone()).or_insert_with(|| machine.plan_revisions());
            let nodes = machine.holding(key, since, |known| known.silence(started, now) <= SILENCE);
            holding.insert(key.clone(), nodes);
        }
        holding
    }
}

#[cfg(test)]
mod tests {
    use peerdist_core::server::ServerConfig;

    use super::*;
    use crate::desired::PackageObject;

    #[test]
    fn server_without_nodes_of_an_earlier_run_lets_no_object_go_before_it_could_hear_those_that_there_are() {
        let started = Instant::now();
        let config = ServerConfig { addresses: Vec::new(), retention_seconds: 0, last_revision: 0 };
        let machine = Server::new(started, config);
        let key = DistributionKey { namespace: "retail".parse().unwrap(), name: "app".parse().unwrap() };
        let object = PackageObject { uid: "1".to_owned(), generation: 1, is_deleted: true, refusal: None };
        let packages = BTreeMap::from([(key.clone(), object)]);
        let objects = ClusterObjects { packages, ..ClusterObjects::default() };
        let is_let_go = |evictions: &mut Evictions, now| {
            evictions.look(&machine, &objects, started, now).get(&key).is_some_and(Vec::is_empty)
        };
        let mut evictions = Evictions::default();
        assert!(!is_let_go(&mut evictions, started));
        assert!(!is_let_go(&mut evictions, started + SILENCE));
        assert!(is_let_go(&mut evictions, started + SILENCE * 2));
        let mut evictions = Evictions::default();
        evictions.know_nodes();
        assert!(is_let_go(&mut evictions, started));
    }
}
