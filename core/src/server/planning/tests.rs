//! Plans that change when they must and not otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::{HOUSEKEEPING_INTERVAL, ServerConfig, ServerEvent};
use super::*;
use crate::message::Message;
use crate::office::{Office, OfficeTree};

fn name(text: &str) -> OfficeName {
    OfficeName::new(text).unwrap()
}

fn office(text: &str, parent: Option<&str>, office_type: OfficeType) -> Office {
    Office {
        name: name(text),
        parent: parent.map(name),
        office_type,
        labels: BTreeMap::new(),
        storage_limit_bytes: None,
        background_bits_per_second_max: parent.map(|_| 50_000_000),
    }
}

struct Fleet {
    server: Server,
    now: Instant,
}

impl Fleet {
    #[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
    fn new() -> Self {
        let now = Instant::now();
        let config = ServerConfig { addresses: Vec::new(), retention_seconds: 0, last_revision: 0 };
        Self { server: Server::new(now, config), now }
    }

    fn desire(&mut self, store: Office) {
        let tree = OfficeTree::new([office("central", None, OfficeType::Wired), store]).unwrap();
        let desired = ServerEvent::Desired { tree, distributions: BTreeMap::new() };
        self.server.handle(self.now, Timestamp::UNIX_EPOCH, desired);
    }

    /// Nodes with these numbers enrol, and the server has its regular look.
    fn enrol(&mut self, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            let node = NodeRef {
                name: NodeName::new(&format!("store-{number:02}")).unwrap(),
                office: name("store"),
                address: format!("127.0.0.{number}").parse().unwrap(),
            };
            self.server.handle(self.now, Timestamp::UNIX_EPOCH, ServerEvent::Enrolled { node });
        }
        self.pass();
    }

    /// The server has its regular look.
    fn pass(&mut self) {
        self.now += HOUSEKEEPING_INTERVAL;
        self.server.handle_timeout(self.now, Timestamp::UNIX_EPOCH);
    }

    fn plan(&self) -> &Plan {
        &self.server.plans[&name("store")]
    }
}

#[test]
fn newcomers_are_named_until_there_are_enough() {
    let mut fleet = Fleet::new();
    fleet.desire(office("store", Some("central"), OfficeType::Wired));
    assert!(fleet.plan().answerers.is_empty());
    fleet.enrol(1..=3);
    assert_eq!(fleet.plan().answerers.len(), 3);
    fleet.enrol(4..=20);
    let enough = fleet.plan().clone();
    let named: BTreeSet<&NodeName> = enough.answerers.iter().collect();
    assert_eq!(named.len(), ANSWERERS_MAX);
    fleet.enrol(21..=30);
    assert_eq!(*fleet.plan(), enough, "a plan with enough answerers does not change");
}

#[test]
fn same_objects_give_the_same_plan_and_other_revisions_other_answerers() {
    let mut fleet = Fleet::new();
    fleet.enrol(1..=20);
    let mut store = office("store", Some("central"), OfficeType::Wired);
    let mut answered = BTreeSet::new();
    for bytes in 1..=20 {
        store.storage_limit_bytes = Some(bytes);
        fleet.desire(store.clone());
        let plan = fleet.plan().clone();
        fleet.desire(store.clone());
        assert_eq!(*fleet.plan(), plan);
        answered.extend(plan.answerers);
    }
    assert_eq!(answered.len(), 20, "every node has its turn");
}

#[test]
fn nobody_is_named_where_nobody_broadcasts() {
    let mut fleet = Fleet::new();
    fleet.desire(office("store", Some("central"), OfficeType::WiFi));
    let before = fleet.plan().revision;
    fleet.enrol(1..=3);
    assert!(fleet.plan().answerers.is_empty());
    assert_eq!(fleet.plan().revision, before);
}

#[test]
fn ceiling_of_the_uplink_is_part_of_the_plan() {
    let mut fleet = Fleet::new();
    let mut store = office("store", Some("central"), OfficeType::Wired);
    fleet.desire(store.clone());
    assert_eq!(fleet.plan().background_bits_per_second_max, 50_000_000);
    store.background_bits_per_second_max = None;
    fleet.desire(store);
    assert_eq!(fleet.plan().background_bits_per_second_max, 0);
}

#[test]
fn every_office_gets_its_plan_anew_when_another_key_signs() {
    let mut fleet = Fleet::new();
    fleet.desire(office("store", Some("central"), OfficeType::Wired));
    let plans = |fleet: &Fleet| fleet.server.plans.clone();
    let before = plans(&fleet);
    fleet.server.handle(fleet.now, Timestamp::UNIX_EPOCH, ServerEvent::SignedAnew(BTreeMap::new()));
    let after = plans(&fleet);
    assert_eq!(after.len(), 2);
    for (office, plan) in before {
        assert!(after[&office].revision > plan.revision, "{office}");
    }
}

#[test]
fn plan_of_the_parent_goes_out_once_however_many_children_have_another_rendezvous_point() {
    const STORES: u32 = 20;
    let mut fleet = Fleet::new();
    let stores = (1..=STORES).map(|number| office(&format!("store-{number}"), Some("central"), OfficeType::Wired));
    let tree = OfficeTree::new(std::iter::once(office("central", None, OfficeType::Wired)).chain(stores)).unwrap();
    let desired = ServerEvent::Desired { tree, distributions: BTreeMap::new() };
    fleet.server.handle(fleet.now, Timestamp::UNIX_EPOCH, desired);
    let node = |text: &str| NodeRef {
        name: NodeName::new(&format!("{text}-1")).unwrap(),
        office: name(text),
        address: "127.0.0.1".parse().unwrap(),
    };
    let claim = Message::RendezvousClaim { term: 1, plan_revision: 0 };
    fleet.server.message(fleet.now, &node("central"), claim.clone()).unwrap();
    fleet.pass();
    let sent = |fleet: &mut Fleet| {
        let outputs = std::iter::from_fn(|| fleet.server.poll());
        outputs.filter(|output| matches!(output, ServerOutput::SendPlan { plan, .. } if plan.central)).count()
    };
    sent(&mut fleet);
    for number in 1..=STORES {
        fleet.server.message(fleet.now, &node(&format!("store-{number}")), claim.clone()).unwrap();
    }
    assert_eq!(sent(&mut fleet), 0);
    fleet.pass();
    assert_eq!(sent(&mut fleet), 1);
    let children = &fleet.server.plans[&name("central")].children;
    assert!(children.iter().all(|child| child.nodes == [node(child.name.as_str())]));
}

#[test]
fn another_rendezvous_point_changes_the_plans_beside_it_and_no_others() {
    let mut fleet = Fleet::new();
    let wired = |text: &str, parent| office(text, parent, OfficeType::Wired);
    let offices = [("store", "central"), ("kiosk", "store"), ("depot", "central"), ("ramp", "depot")];
    let offices = offices.map(|(text, parent)| wired(text, Some(parent)));
    let tree = OfficeTree::new(std::iter::once(wired("central", None)).chain(offices)).unwrap();
    let desired = ServerEvent::Desired { tree, distributions: BTreeMap::new() };
    fleet.server.handle(fleet.now, Timestamp::UNIX_EPOCH, desired);
    let point = NodeRef {
        name: NodeName::new("store-1").unwrap(),
        office: name("store"),
        address: "127.0.0.1".parse().unwrap(),
    };
    fleet.server.handle(fleet.now, Timestamp::UNIX_EPOCH, ServerEvent::Enrolled { node: point.clone() });
    fleet.pass();
    let before = fleet.server.plans.clone();
    let claim = Message::RendezvousClaim { term: 1, plan_revision: 0 };
    fleet.server.message(fleet.now, &point, claim).unwrap();
    assert_eq!(fleet.server.plans, before, "not before the next regular look");
    fleet.pass();
    let plans = &fleet.server.plans;
    let changed: Vec<&str> =
        plans.iter().filter(|(office, plan)| before[*office] != **plan).map(|(office, _)| office.as_str()).collect();
    assert_eq!(changed, ["central", "kiosk"]);
    assert_eq!(plans[&name("kiosk")].parent_nodes, std::slice::from_ref(&point));
    let below_central = &plans[&name("central")].children;
    assert_eq!(below_central.iter().find(|child| child.name == point.office).unwrap().nodes, [point]);
}

#[test]
fn node_that_left_is_named_in_no_plan() {
    let mut fleet = Fleet::new();
    fleet.desire(office("store", Some("central"), OfficeType::Wired));
    fleet.enrol(1..=3);
    let second = NodeName::new("store-02").unwrap();
    let point = NodeRef { name: second.clone(), office: name("store"), address: "127.0.0.2".parse().unwrap() };
    let claim = Message::RendezvousClaim { term: 1, plan_revision: 0 };
    fleet.server.message(fleet.now, &point, claim).unwrap();
    fleet.pass();
    let below_central = |fleet: &Fleet| fleet.server.plans[&name("central")].children[0].nodes.clone();
    assert_eq!(below_central(&fleet), std::slice::from_ref(&point));
    fleet.server.handle(fleet.now, Timestamp::UNIX_EPOCH, ServerEvent::Left([second].into()));
    fleet.pass();
    assert!(below_central(&fleet).is_empty());
    let mut answerers: Vec<&str> = fleet.plan().answerers.iter().map(NodeName::as_str).collect();
    answerers.sort_unstable();
    assert_eq!(answerers, ["store-01", "store-03"]);

    // It was only taken for one that left, and speaks again.
    fleet.server.message(fleet.now, &point, Message::RendezvousClaim { term: 2, plan_revision: 0 }).unwrap();
    fleet.pass();
    assert!(fleet.plan().answerers.contains(&point.name));
}
