//! Plans of a server that is behind what its nodes know.

use jiff::Timestamp;

use super::*;
use crate::message::Hello;
use crate::names::NodeName;
use crate::plan::Plan;
use crate::server::tests::{desired, desired_with_store, distribution, ingested};
use crate::server::{HOUSEKEEPING_INTERVAL, ServerConfig, ServerEvent};

/// Above which the server gives numbers.
const LAST: Revision = 10;
/// What each start of a server reserves.
const RESERVED: Revision = 1 << 32;

struct Fleet {
    server: Server,
    now: Instant,
}

impl Fleet {
    /// A server that gives numbers above [`LAST`], with a package in its library, and the Central Office with two nodes.
    fn new() -> Self {
        let config = ServerConfig { addresses: Vec::new(), last_revision: LAST, retention_seconds: 0 };
        let now = Instant::now();
        let mut fleet = Self { server: Server::new(now, config), now };
        let app = distribution("app", "/app");
        fleet.tell(desired(&[&app]));
        fleet.tell(ingested(&app));
        for name in ["a", "b"] {
            fleet.tell(ServerEvent::Enrolled { node: node(name) });
        }
        fleet.pass(HOUSEKEEPING_INTERVAL);
        fleet
    }

    fn tell(&mut self, event: ServerEvent) {
        self.server.handle(self.now, Timestamp::UNIX_EPOCH, event);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.handle_timeout(self.now, Timestamp::UNIX_EPOCH);
    }

    /// A node has this plan, and has deleted what it does not list.
    fn says(&mut self, name: &str, plan_revision: Revision) {
        self.hears(&node(name), plan_revision);
    }

    fn hears(&mut self, from: &NodeRef, plan_revision: Revision) {
        let hello = Hello { boot_id: 1, plan_revision, term: 0, confirmed_revision: plan_revision };
        self.server.message(self.now, from, Message::Hello(hello)).unwrap();
    }

    fn plan(&self) -> &Plan {
        &self.server.plans[&node("a").office]
    }
}

fn node(name: &str) -> NodeRef {
    NodeRef {
        name: NodeName::new(name).unwrap(),
        office: OfficeName::new("central").unwrap(),
        address: if name == "a" { "127.0.0.1" } else { "127.0.0.2" }.parse().unwrap(),
    }
}

#[test]
fn plan_gets_a_number_above_what_nodes_of_its_office_know_once_a_look() {
    let mut fleet = Fleet::new();
    let before = fleet.plan().clone();
    fleet.says("a", before.revision);
    fleet.pass(HOUSEKEEPING_INTERVAL);
    assert_eq!(*fleet.plan(), before);
    for (name, revision) in [("a", 1_000), ("b", 1_002), ("a", 1_001)] {
        fleet.says(name, revision);
    }
    assert_eq!(fleet.plan().revision, before.revision);
    fleet.pass(HOUSEKEEPING_INTERVAL);
    let anew = fleet.plan().clone();
    assert!(anew.revision > 1_002 && anew.packages == before.packages, "{anew:?}");
    // The plan before the last one may have reached some only, and they may be heard later.
    for revision in [1_003, anew.revision] {
        fleet.says("b", revision);
        fleet.pass(HOUSEKEEPING_INTERVAL);
        assert_eq!(*fleet.plan(), anew);
    }
}

#[test]
fn numbers_cannot_be_used_up_by_a_node_that_lies_and_its_office_is_not_flooded_with_plans() {
    let mut fleet = Fleet::new();
    let before = fleet.plan().revision;
    fleet.says("a", Revision::MAX);
    fleet.pass(HOUSEKEEPING_INTERVAL);
    assert_eq!(fleet.plan().revision, before);
    assert!(fleet.server.is_beyond_belief(Revision::MAX) && !fleet.server.is_beyond_belief(before + 1));
    let mut plans = 0;
    for _ in 0..600 {
        let revision = fleet.plan().revision;
        fleet.says("a", revision + 1);
        fleet.pass(HOUSEKEEPING_INTERVAL);
        plans += u32::from(fleet.plan().revision != revision);
    }
    assert_eq!(plans, 10, "in ten minutes");
}

#[test]
fn numbers_that_a_lie_brought_about_are_believed_by_this_run_and_the_next() {
    let mut fleet = Fleet::new();
    let told = LAST + AHEAD_MAX;
    fleet.says("a", told);
    fleet.pass(HOUSEKEEPING_INTERVAL);
    let after_lie = fleet.plan().revision;
    assert!(after_lie > told && !fleet.server.is_beyond_belief(after_lie));
    for _ in 0..100 {
        // Plans of other offices.
        fleet.server.revision += 10;
        fleet.says("a", fleet.server.revision);
        fleet.pass(PAUSE_FIRST * 1_000);
    }
    let last = fleet.server.revision;
    assert!(last < after_lie + MARGIN, "no lie takes more");
    let config = ServerConfig { addresses: Vec::new(), last_revision: LAST + RESERVED, retention_seconds: 0 };
    assert!(last <= Server::new(fleet.now, config).counts_on_from_max());
}

#[test]
fn office_that_told_nothing_yet_confirms_nothing_by_plans_of_another_server() {
    let mut fleet = Fleet::new();
    let app = distribution("app", "/app");
    let of_store = NodeRef { office: OfficeName::new("store").unwrap(), ..node("c") };
    fleet.tell(desired_with_store(&[&app]));
    fleet.tell(ServerEvent::Enrolled { node: of_store.clone() });
    fleet.tell(desired_with_store(&[]));
    let since = fleet.server.plan_revisions();
    fleet.says("a", 1_000);
    // The plan of the store changes for another reason, and is above what its nodes know from another server.
    fleet.tell(desired_with_store(&[&distribution("other", "/other")]));
    let in_force = fleet.server.plans[&of_store.office].revision;
    let holds = |fleet: &Fleet| fleet.server.holding(&app.key, &since, |_| true).contains(&of_store.name);
    for (confirmed, expected) in [(900, true), (in_force, false)] {
        fleet.hears(&of_store, confirmed);
        assert_eq!(holds(&fleet), expected, "{confirmed}");
    }
}

#[test]
fn deletion_is_confirmed_by_plans_of_this_server_alone() {
    let mut fleet = Fleet::new();
    let key = distribution("app", "/app").key;
    fleet.says("a", fleet.plan().revision);
    fleet.tell(desired(&[]));
    let since = fleet.server.plan_revisions();
    let holding = |fleet: &Fleet| -> Vec<String> {
        fleet.server.holding(&key, &since, |_| true).iter().map(ToString::to_string).collect()
    };
    fleet.says("a", 1_000);
    fleet.says("b", 900);
    assert_eq!(holding(&fleet), ["a", "b"], "it is the plan of another server");
    fleet.pass(HOUSEKEEPING_INTERVAL);
    assert_eq!(holding(&fleet), ["a", "b"]);
    fleet.says("a", fleet.plan().revision);
    assert_eq!(holding(&fleet), ["b"]);
    fleet.says("b", fleet.plan().revision);
    assert!(holding(&fleet).is_empty());
    fleet.says("b", Revision::MAX);
    assert_eq!(holding(&fleet), ["b"], "it takes no plan of this server");
}

#[test]
fn plan_that_changes_before_it_is_numbered_anew_is_no_plan_of_the_server_before_either() {
    let mut fleet = Fleet::new();
    let app = distribution("app", "/app");
    fleet.says("a", fleet.plan().revision);
    fleet.tell(desired(&[]));
    let since = fleet.server.plan_revisions();
    fleet.says("a", 1_000);
    fleet.tell(desired(&[&app]));
    fleet.tell(desired(&[]));
    let anew = fleet.plan().revision;
    fleet.pass(HOUSEKEEPING_INTERVAL);
    assert_eq!(fleet.plan().revision, anew, "it is above what was told");
    let holding = |fleet: &Fleet| fleet.server.holding(&app.key, &since, |_| true).len();
    fleet.says("b", 1_000);
    assert_eq!(holding(&fleet), 2);
    fleet.says("a", anew);
    fleet.says("b", anew);
    assert_eq!(holding(&fleet), 0);
}
