//! What leaves: distributions that were deleted, and nodes that left for good or that another one replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::{KnownNode, Server};
use crate::digest::Digest;
use crate::message::Revision;
use crate::names::{DistributionKey, NodeName, OfficeName};
use crate::peer::NodeRef;

impl Server {
    /// The plans in force.
    pub fn plan_revisions(&self) -> BTreeMap<OfficeName, Revision> {
        self.plans.iter().map(|(office, plan)| (office.clone(), plan.revision)).collect()
    }

    /// Nodes that may still hold something of a distribution that no plan lists from these revisions on: those that have
    /// not confirmed that they deleted what such a plan does not list. Only offices whose plans listed it earlier in this
    /// run are looked at, and those that spoke of it, or all if no plan did.
    pub fn holding(
        &self,
        key: &DistributionKey,
        since: &BTreeMap<OfficeName, Revision>,
        counts: impl Fn(&KnownNode) -> bool,
    ) -> Vec<NodeName> {
        let packages = self.library.values().filter(|package| package.key.distribution == *key);
        let digests: BTreeSet<Digest> = packages.map(|package| package.digest).collect();
        let listed = self.listings.offices_of(&digests);
        let spoke = self.progress.keys().filter(|(_, digest)| digests.contains(digest)).map(|(office, _)| office);
        let offices: BTreeSet<&OfficeName> = listed.iter().copied().chain(spoke).collect();
        let concerned = |known: &&KnownNode| listed.is_empty() || offices.contains(&known.node.office);
        let behind = |known: &&KnownNode| {
            let office = &known.node.office;
            since.get(office).is_some_and(|&plan| !self.has_confirmed(office, known.confirmed_revision, plan))
        };
        let holding = self.nodes.values().filter(concerned).filter(behind).filter(|known| counts(known));
        holding.map(|known| known.node.name.clone()).collect()
    }

    /// Nodes that this one takes the place of: they had its address.
    pub fn replaced_by(&self, node: &NodeRef) -> BTreeSet<NodeName> {
        let others = self.nodes.values().filter(|known| known.node.name != node.name);
        others.filter(|known| known.node.address == node.address).map(|known| known.node.name.clone()).collect()
    }

    /// A node that is known enrolled anew: its disk may be another one. What an earlier run knew of it is told before it
    /// is known, and counts.
    pub(super) fn forget_what_it_had(&mut self, node: &NodeName) {
        if self.nodes.contains_key(node) {
            self.progress.values_mut().for_each(|progress| progress.begin_anew_on(node));
            self.settling.forget_nodes(&BTreeSet::from([node.clone()]));
        }
    }

    /// Forgets whom this node takes the place of, and what it had and was itself in another office.
    pub(super) fn forget_replaced(&mut self, node: &NodeRef) {
        for ((office, _), progress) in &mut self.progress {
            if *office != node.office {
                progress.forget(&node.name);
            }
        }
        self.rendezvous_points.retain(|office, point| *office == node.office || point.node.name != node.name);
        self.forget_nodes(&self.replaced_by(node));
    }

    /// Forgets nodes. Who is left of their offices may be complete without them, although nothing new is heard of it, and
    /// their names stand in plans.
    pub(super) fn forget_nodes(&mut self, nodes: &BTreeSet<NodeName>) {
        if nodes.is_empty() {
            return;
        }
        let known = nodes.iter().filter_map(|name| self.nodes.remove(name));
        let offices: BTreeSet<OfficeName> = known.map(|known| known.node.office).collect();
        for ((office, _), progress) in &mut self.progress {
            if offices.contains(office) {
                progress.forget_all(nodes);
            }
        }
        self.settling.forget_nodes(nodes);
        for package in self.library.values() {
            offices.iter().for_each(|office| self.settling.hear(package.digest, office));
        }
        let led = self.rendezvous_points.iter().filter(|(_, point)| nodes.contains(&point.node.name));
        for office in led.map(|(office, _)| office.clone()).collect::<Vec<_>>() {
            self.rendezvous_points.remove(&office);
            self.plan_neighbours_soon(&office);
        }
        self.newcomers.extend(offices);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::message::{Hello, Message, NodeState, OfficePackage, OfficeReport};
    use crate::server::ServerConfig;
    use crate::server::ServerEvent;
    use crate::server::tests::{desired, desired_with_store, distribution, ingested, selecting};
    use jiff::Timestamp;

    fn node(name: &str, address: &str) -> NodeRef {
        let office = OfficeName::new("central").unwrap();
        NodeRef { name: NodeName::new(name).unwrap(), office, address: address.parse().unwrap() }
    }

    fn server() -> Server {
        let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
        let mut server = Server::new(Instant::now(), config);
        let app = distribution("app", "/app");
        tell(&mut server, desired(&[&app]));
        tell(&mut server, ingested(&app));
        for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            tell(&mut server, ServerEvent::Enrolled { node: node(name, address) });
        }
        server
    }

    fn tell(server: &mut Server, event: ServerEvent) {
        server.handle(Instant::now(), Timestamp::UNIX_EPOCH, event);
    }

    fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeName>) -> Vec<&'a str> {
        nodes.into_iter().map(NodeName::as_str).collect()
    }

    /// The first node reports about itself and the second.
    fn office_speaks_of_both(server: &mut Server) {
        let states = ["a", "b"].map(|name| (NodeName::new(name).unwrap(), NodeState::default()));
        let digest = Digest::of(b"root");
        let packages = vec![OfficePackage { digest, available: bytes::Bytes::new(), nodes: states.into() }];
        let report = Message::OfficeReport(OfficeReport { term: 1, plan_revision: 2, packages });
        server.message(Instant::now(), &node("a", "10.0.0.1"), report).unwrap();
    }

    /// Who is known, and of whom the office is known to have said something.
    fn known(server: &Server) -> [Vec<&str>; 2] {
        let office = OfficeName::new("central").unwrap();
        let reported = server.progress(&office, Digest::of(b"root")).unwrap().nodes.keys();
        [names(server.nodes().map(|known| &known.node.name)), names(reported)]
    }

    fn says_hello(server: &mut Server, name: &str, address: &str) {
        let plan_revision = server.plan_revisions().into_values().max().unwrap();
        says_hello_having_deleted(server, name, address, plan_revision);
    }

    fn says_hello_having_deleted(server: &mut Server, name: &str, address: &str, confirmed_revision: Revision) {
        let plan_revision = server.plan_revisions().into_values().max().unwrap();
        let hello = Message::Hello(Hello { boot_id: 1, plan_revision, term: 1, confirmed_revision });
        server.message(Instant::now(), &node(name, address), hello).unwrap();
    }

    #[test]
    fn deleted_distribution_is_held_until_each_node_has_deleted_it() {
        let mut server = server();
        says_hello(&mut server, "a", "10.0.0.1");
        let key = distribution("app", "/app").key;
        tell(&mut server, desired(&[]));
        let since = server.plan_revisions();
        let holding = |server: &Server| server.holding(&key, &since, |_| true);
        assert_eq!(names(&holding(&server)), ["a", "b"]);
        let before = since.values().max().unwrap() - 1;
        says_hello_having_deleted(&mut server, "a", "10.0.0.1", before);
        assert_eq!(names(&holding(&server)), ["a", "b"], "a has the plan and still deletes");
        says_hello(&mut server, "a", "10.0.0.1");
        assert_eq!(names(&holding(&server)), ["b"]);
        assert!(server.holding(&key, &since, |known| known.last_seen.is_some()).is_empty(), "b was never heard");
        says_hello(&mut server, "b", "10.0.0.2");
        assert!(holding(&server).is_empty());
    }

    #[test]
    fn deleted_distribution_is_held_in_every_office_that_was_to_have_it_or_speaks_of_it() {
        let app = distribution("app", "/app");
        let of_store = NodeRef { office: OfficeName::new("store").unwrap(), ..node("c", "10.0.0.3") };
        let report = |server: &mut Server, from: &NodeRef| {
            let digest = Digest::of(b"root");
            let packages = vec![OfficePackage { digest, available: bytes::Bytes::new(), nodes: Vec::new() }];
            let report = OfficeReport { term: 1, plan_revision: 0, packages };
            server.message(Instant::now(), from, Message::OfficeReport(report)).unwrap();
        };
        // Those that hold it after the deletion, before and after the store speaks of it.
        let holding = |wanted: &crate::distribution::Distribution| {
            let mut server = server();
            tell(&mut server, desired_with_store(&[wanted]));
            tell(&mut server, ServerEvent::Enrolled { node: of_store.clone() });
            report(&mut server, &node("a", "10.0.0.1"));
            tell(&mut server, desired_with_store(&[]));
            let since = server.plan_revisions();
            let before = server.holding(&app.key, &since, |_| true);
            report(&mut server, &of_store);
            [before, server.holding(&app.key, &since, |_| true)].map(|nodes| nodes.len())
        };
        assert_eq!(holding(&app), [3, 3], "the store had not spoken yet");
        assert_eq!(holding(&selecting("central", &app)), [2, 3], "it was to have it in an earlier run");
    }

    #[test]
    fn distribution_that_no_plan_of_this_run_listed_may_be_held_everywhere() {
        let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
        let (mut server, app) = (Server::new(Instant::now(), config), distribution("app", "/app"));
        tell(&mut server, ingested(&app));
        tell(&mut server, desired_with_store(&[]));
        for (name, address, office) in [("a", "10.0.0.1", "central"), ("c", "10.0.0.3", "store")] {
            let node = NodeRef { office: OfficeName::new(office).unwrap(), ..node(name, address) };
            tell(&mut server, ServerEvent::Enrolled { node });
        }
        let since = server.plan_revisions();
        office_speaks_of_both(&mut server);
        assert_eq!(names(&server.holding(&app.key, &since, |_| true)), ["a", "c"]);
    }

    #[test]
    fn node_that_enrols_anew_has_nothing_until_it_says_so() {
        let mut server = server();
        let (a, digest) = (node("a", "10.0.0.1"), Digest::of(b"root"));
        let complete = Message::Complete { digest, bytes: 1, plan_revision: None };
        server.message(Instant::now(), &a, complete.clone()).unwrap();
        let is_complete = |server: &Server| server.progress(&a.office, digest).unwrap().nodes[&a.name].complete;
        tell(&mut server, ServerEvent::Renewed { node: a.clone() });
        assert!(is_complete(&server));
        tell(&mut server, ServerEvent::Enrolled { node: a.clone() });
        assert!(!is_complete(&server), "its disk may be another one");
        server.message(Instant::now(), &a, complete).unwrap();
        assert!(is_complete(&server));
    }

    #[test]
    fn node_that_moved_leads_its_former_office_no_more() {
        let mut server = server();
        let mut moving = node("b", "10.0.0.2");
        let claim = Message::RendezvousClaim { term: 1, plan_revision: 1 };
        server.message(Instant::now(), &moving, claim).unwrap();
        tell(&mut server, ServerEvent::Enrolled { node: moving.clone() });
        let former = std::mem::replace(&mut moving.office, OfficeName::new("store").unwrap());
        assert!(server.rendezvous_point(&former).is_some(), "it was started anew");
        tell(&mut server, ServerEvent::Enrolled { node: moving });
        assert!(server.rendezvous_point(&former).is_none());
    }

    #[test]
    fn replaced_node_is_forgotten_although_its_office_still_speaks_of_it() {
        let mut server = server();
        assert_eq!(names(&server.replaced_by(&node("c", "10.0.0.2"))), ["b"]);
        tell(&mut server, ServerEvent::Enrolled { node: node("c", "10.0.0.2") });
        office_speaks_of_both(&mut server);
        assert_eq!(known(&server), [vec!["a", "c"], vec!["a"]]);
    }

    #[test]
    fn node_that_left_is_forgotten_although_its_office_still_speaks_of_it_and_known_again_when_it_speaks() {
        let mut server = server();
        let b = NodeName::new("b").unwrap();
        let claim = Message::RendezvousClaim { term: 1, plan_revision: 1 };
        server.message(Instant::now(), &node("b", "10.0.0.2"), claim).unwrap();
        office_speaks_of_both(&mut server);
        assert_eq!(known(&server), [["a", "b"]; 2]);
        tell(&mut server, ServerEvent::Left([b.clone()].into()));
        assert_eq!(known(&server), [["a"]; 2]);
        assert!(!server.knows(&b) && server.rendezvous_point(&OfficeName::new("central").unwrap()).is_none());
        office_speaks_of_both(&mut server);
        assert_eq!(known(&server), [["a"]; 2]);
        says_hello(&mut server, "b", "10.0.0.2");
        assert!(server.knows(&b));
    }
}
