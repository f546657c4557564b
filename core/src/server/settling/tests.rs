//! Whose plans list a package while the nodes of the offices below complete it, lose it and come.

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::distribution::{Distribution, OfficeSelector};
use crate::message::{Message, NodeState, OfficePackage, OfficeReport};
use crate::office::{Office, OfficeTree};
use crate::peer::NodeRef;
use crate::server::tests::{distribution, ingested};
use crate::server::{HOUSEKEEPING_INTERVAL, ServerConfig, ServerEvent};

const EVERYONE: [&str; 3] = ["between", "central", "leafs"];

fn office_name(text: &str) -> OfficeName {
    OfficeName::new(text).unwrap()
}

fn node(office: &str, number: u8) -> NodeRef {
    let name = NodeName::new(&format!("{office}-{number}")).unwrap();
    NodeRef { name, office: office_name(office), address: format!("10.{}.0.{number}", office.len()).parse().unwrap() }
}

fn office(name: &str, parent: Option<&str>, office_type: OfficeType) -> Office {
    let is_target = !["central", "between"].contains(&name);
    Office {
        name: office_name(name),
        parent: parent.map(office_name),
        office_type,
        labels: [("target".to_owned(), is_target.to_string())].into(),
        storage_limit_bytes: None,
        background_bits_per_second_max: None,
    }
}

/// Only offices below `between` are to publish the package, which has one chunk.
fn package() -> Distribution {
    let match_labels = [("target".to_owned(), true.to_string())].into();
    Distribution { offices: OfficeSelector { match_labels }, ..distribution("app", "/app") }
}

/// A server with `central`, `between` below it, and `leafs` below that.
struct Fleet {
    server: Server,
    now: Instant,
    below_type: OfficeType,
}

impl Fleet {
    fn new(below_type: OfficeType) -> Self {
        Self::started(below_type, 0, &[])
    }

    /// The server starts with so many nodes of `leafs` enrolled, some of which were complete when it was last up.
    #[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
    fn started(below_type: OfficeType, nodes: u8, complete: &[u8]) -> Self {
        let now = Instant::now();
        let config = ServerConfig { addresses: Vec::new(), retention_seconds: 0, last_revision: 0 };
        let mut fleet = Self { server: Server::new(now, config), now, below_type };
        fleet.tell(ingested(&package()));
        let complete = complete.iter().map(|&number| node("leafs", number).name).collect();
        fleet.tell(ServerEvent::Remembered { package: package().package(), complete });
        (1..=nodes).for_each(|number| fleet.enrol("leafs", number));
        fleet.desire(&[]);
        fleet
    }

    fn tell(&mut self, event: ServerEvent) {
        self.server.handle(self.now, Timestamp::UNIX_EPOCH, event);
    }

    /// The objects as they are, with further offices below `between`.
    fn desire(&mut self, others: &[&str]) {
        let above = [("central", None), ("between", Some("central"))];
        let above = above.map(|(name, parent)| office(name, parent, OfficeType::WiFi));
        let below = office("leafs", Some("between"), self.below_type);
        let others = others.iter().map(|name| office(name, Some("between"), OfficeType::WiFi));
        let tree = OfficeTree::new(above.into_iter().chain([below]).chain(others)).unwrap();
        let distributions = [(package().key, package())].into();
        self.tell(ServerEvent::Desired { tree, distributions });
    }

    fn enrol(&mut self, office: &str, number: u8) {
        self.tell(ServerEvent::Enrolled { node: node(office, number) });
    }

    /// The first node of `leafs` says whether nodes are complete, and whether anybody has the chunk.
    fn report(&mut self, available: bool, nodes: &[(u8, bool)]) {
        let state = |&(number, complete): &(u8, bool)| {
            let bytes_held = u64::from(complete);
            (node("leafs", number).name, NodeState { complete, bytes_held, ..NodeState::default() })
        };
        let (available, nodes) = (Bytes::from(vec![u8::from(available)]), nodes.iter().map(state).collect());
        let packages = vec![OfficePackage { digest: Digest::of(b"root"), available, nodes }];
        let report = OfficeReport { term: 1, plan_revision: 0, packages };
        self.server.message(self.now, &node("leafs", 1), Message::OfficeReport(report)).unwrap();
    }

    /// The server has its regular looks for so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += HOUSEKEEPING_INTERVAL;
            self.server.handle_timeout(self.now, Timestamp::UNIX_EPOCH);
        }
    }

    fn look(&mut self) {
        self.pass(HOUSEKEEPING_INTERVAL);
    }

    /// The offices whose plans list the package.
    fn planned(&self) -> Vec<&str> {
        let plans = self.server.plans.iter().filter(|(_, plan)| !plan.packages.is_empty());
        plans.map(|(office, _)| office.as_str()).collect()
    }
}

/// An office with two nodes that has settled.
fn settled() -> Fleet {
    let mut fleet = Fleet::new(OfficeType::WiFi);
    (1..=2).for_each(|number| fleet.enrol("leafs", number));
    fleet.report(true, &[(1, true), (2, true)]);
    fleet.look();
    fleet
}

#[test]
fn offices_on_the_way_are_needed_until_every_known_node_below_is_complete() {
    let mut fleet = Fleet::new(OfficeType::WiFi);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), EVERYONE, "nobody is known there");
    (1..=2).for_each(|number| fleet.enrol("leafs", number));
    fleet.report(true, &[(1, true), (2, false)]);
    fleet.look();
    assert_eq!(fleet.planned(), EVERYONE);
    let before = fleet.server.plan_revisions();
    fleet.report(true, &[(1, true), (2, true)]);
    fleet.look();
    assert_eq!(fleet.planned(), ["leafs"]);
    let after = fleet.server.plan_revisions();
    let changed: Vec<&str> =
        after.iter().filter(|(office, plan)| before[*office] != **plan).map(|(office, _)| office.as_str()).collect();
    assert_eq!(changed, ["between", "central"]);
    for _ in 0..5 {
        fleet.report(true, &[(1, true), (2, true)]);
        fleet.pass(LACKS_PATIENCE);
    }
    assert_eq!(fleet.server.plan_revisions(), after, "no plan changes without need");
}

#[test]
fn own_word_of_the_last_node_that_it_is_complete_counts() {
    let mut fleet = Fleet::new(OfficeType::WiFi);
    fleet.enrol("leafs", 1);
    let complete = Message::Complete { digest: Digest::of(b"root"), bytes: 1, plan_revision: None };
    fleet.server.message(fleet.now, &node("leafs", 1), complete).unwrap();
    fleet.look();
    assert_eq!(fleet.planned(), ["leafs"]);
}

#[test]
fn newcomer_is_served_inside_an_office_that_has_everything() {
    let mut fleet = settled();
    fleet.enrol("leafs", 3);
    for _ in 0..5 {
        fleet.report(true, &[(1, true), (2, true), (3, false)]);
        fleet.pass(LACKS_PATIENCE);
    }
    assert_eq!(fleet.planned(), ["leafs"]);
}

#[test]
fn office_that_lost_everything_gets_it_again_and_one_that_begins_anew_is_waited_for() {
    let mut fleet = settled();
    fleet.report(false, &[(1, false), (2, false)]);
    fleet.pass(LACKS_PATIENCE / 2);
    assert_eq!(fleet.planned(), ["leafs"]);
    fleet.report(true, &[(1, true), (2, false)]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), ["leafs"], "it had only begun anew");
    fleet.report(false, &[(1, false), (2, false)]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), EVERYONE);
    fleet.report(true, &[(1, true), (2, true)]);
    fleet.look();
    assert_eq!(fleet.planned(), ["leafs"]);
}

#[test]
fn office_that_shares_nothing_needs_the_way_for_the_next_newcomer() {
    let mut fleet = Fleet::new(OfficeType::Vpn);
    fleet.enrol("leafs", 1);
    fleet.report(true, &[(1, true)]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), EVERYONE, "the next one has nobody else");
}

#[test]
fn office_of_which_no_node_has_published_a_package_without_chunks_lacks_it() {
    let mut fleet = settled();
    fleet.report(true, &[(1, false), (2, false)]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), EVERYONE);
}

#[test]
fn another_target_below_needs_the_way_at_once() {
    let mut fleet = settled();
    fleet.desire(&["others"]);
    assert_eq!(fleet.planned(), ["between", "central", "leafs", "others"]);
    fleet.desire(&[]);
    assert_eq!(fleet.planned(), ["leafs"]);
}

#[test]
fn restart_of_the_server_brings_nothing_back_and_drops_nothing_early() {
    let mut fleet = Fleet::started(OfficeType::WiFi, 2, &[1, 2]);
    assert_eq!(fleet.planned(), ["leafs"]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), ["leafs"], "nobody has said anything");
    fleet.report(false, &[(1, false), (2, false)]);
    fleet.pass(LACKS_PATIENCE * 2);
    assert_eq!(fleet.planned(), EVERYONE);
    for complete in [&[] as &[u8], &[1]] {
        let mut fleet = Fleet::started(OfficeType::WiFi, 2, complete);
        fleet.pass(LACKS_PATIENCE * 2);
        assert_eq!(fleet.planned(), EVERYONE);
    }
}

#[test]
fn node_that_another_one_replaced_is_not_waited_for() {
    let mut fleet = Fleet::new(OfficeType::WiFi);
    (1..=2).for_each(|number| fleet.enrol("leafs", number));
    fleet.report(true, &[(1, true), (2, false)]);
    fleet.look();
    assert_eq!(fleet.planned(), EVERYONE);
    let replacing = NodeRef { address: node("leafs", 2).address, ..node("leafs", 1) };
    fleet.tell(ServerEvent::Enrolled { node: replacing });
    fleet.report(true, &[(1, true)]);
    fleet.look();
    assert_eq!(fleet.planned(), ["leafs"]);
}

#[test]
fn node_that_left_is_not_waited_for_although_nothing_more_is_heard_of_its_office() {
    let mut reported = Fleet::new(OfficeType::WiFi);
    (1..=2).for_each(|number| reported.enrol("leafs", number));
    reported.report(true, &[(1, true), (2, false)]);
    reported.look();
    let restarted = Fleet::started(OfficeType::WiFi, 2, &[1]);
    for mut fleet in [reported, restarted] {
        assert_eq!(fleet.planned(), EVERYONE);
        fleet.tell(ServerEvent::Left([node("leafs", 2).name].into()));
        fleet.look();
        assert_eq!(fleet.planned(), ["leafs"]);
    }
}

#[test]
fn server_gives_the_central_office_again_what_it_passed_on() {
    let mut fleet = Fleet::new(OfficeType::WiFi);
    fleet.enrol("leafs", 1);
    fleet.server.central_ledger.give(Digest::of(b"root"), &node("central", 1).name, 0, 1);
    fleet.desire(&[]);
    assert!(!fleet.server.central_ledger.is_empty());
    fleet.report(true, &[(1, true)]);
    fleet.look();
    assert!(fleet.server.central_ledger.is_empty());
}
