//! Offices that are accepted, refused and left alone, and the nodes they get.

mod standing;

use k8s_openapi::jiff::Timestamp;
use peerdist_core::office::OfficeTree;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::names::ASSIGNED_OFFICE_LABEL;
use crate::settings::ServerStorage;

/// An office created in the given second.
pub(crate) fn office(name: &str, second: i64, spec: Value) -> peerdist_crds::Office {
    let created = Timestamp::from_second(1_780_000_000 + second).unwrap().to_string();
    let metadata = json!({"name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": created});
    let object =
        json!({"apiVersion": peerdist_crds::API_VERSION, "kind": "Office", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A fleet of a cluster that has nothing of ours yet.
pub(crate) fn judged(offices: &[peerdist_crds::Office], nodes: &[NodeView]) -> Fleet {
    Fleet::new(offices, nodes, &Grounds::default())
}

/// The spec of an office whose nodes have the label `site`.
pub(crate) fn site(site: &str, parent: Option<&str>) -> Value {
    let selector = json!({"matchLabels": {"site": site}});
    match parent {
        Some(parent) => json!({"parent": parent, "nodeSelector": selector}),
        None => json!({"nodeSelector": selector}),
    }
}

fn subnet(subnet: &str, parent: &str) -> Value {
    json!({"parent": parent, "subnets": [subnet]})
}

fn node(name: &str, labels: &[(&str, &str)], address: Option<&str>) -> NodeView {
    NodeView {
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        addresses: address.iter().map(|address| address.parse().unwrap()).collect(),
        networks: Vec::new(),
    }
}

fn refusals(fleet: &Fleet) -> Vec<(&str, &str, &str)> {
    let refused = fleet.verdicts.iter().filter_map(|(name, verdict)| match verdict {
        Verdict::Accepted(_) => None,
        Verdict::Refused(refusal) => Some((name.as_str(), refusal.field.as_str(), refusal.reason)),
    });
    refused.collect()
}

fn accepted(fleet: &Fleet) -> Vec<&str> {
    fleet.accepted().map(|office| office.office.name.as_str()).collect()
}

#[test]
fn children_may_come_before_their_parents() {
    let offices = [office("store", 1, site("store", Some("hub"))), office("hub", 2, site("hub", None))];
    let fleet = judged(&offices, &[]);
    assert_eq!(accepted(&fleet), ["hub", "store"]);
    assert_eq!(fleet.central(), Some("hub"));
}

#[test]
fn bad_offices_are_refused_with_field_and_reason_and_the_others_stay() {
    let parent = "spec.parent";
    let labels = "spec.nodeSelector.matchLabels";
    for (name, spec, expected) in [
        ("second", site("x", None), vec![("second", parent, "SecondCentralOffice")]),
        ("orphan", site("x", Some("nowhere")), vec![("orphan", parent, "UnknownOffice")]),
        ("selfish", site("x", Some("selfish")), vec![("selfish", parent, "ParentCycle")]),
        ("below-home", site("x", Some("home")), vec![("below-home", parent, "ParentIsVpn")]),
        ("no-nodes", json!({"parent": "hub"}), vec![("no-nodes", "spec.nodeSelector", "NodesNotSelected")]),
        ("empty", json!({"parent": "hub", "nodeSelector": {"matchLabels": {}}}), vec![("empty", labels, "OutOfRange")]),
        (
            "label",
            json!({"parent": "hub", "nodeSelector": {"matchLabels": {"a b": ""}}}),
            vec![("label", labels, "InvalidLabel")],
        ),
        ("bits", subnet("10.0.0.1/8", "hub"), vec![("bits", "spec.subnets[0]", "InvalidSubnet")]),
        ("words", subnet("ten/8", "hub"), vec![("words", "spec.subnets[0]", "InvalidSubnet")]),
        (
            "both",
            json!({"parent": "hub", "subnets": ["10.0.0.0/8"], "nodeSelector": {"matchLabels": {"a": "b"}}}),
            vec![("both", "spec.subnets", "TwoNodeSelections")],
        ),
        (
            "path",
            json!({"parent": "hub", "storage": {"path": "x"}, "subnets": ["10.9.0.0/16"]}),
            vec![("path", "spec.storage.path", "InvalidPath")],
        ),
        (
            "host",
            json!({"parent": "hub", "storage": {"path": "/etc"}, "subnets": ["10.9.0.0/16"]}),
            vec![("host", "spec.storage.path", "StoragePathNotAllowed")],
        ),
        (
            "up",
            json!({"parent": "hub", "storage": {"path": "/var/lib/peerdist/../.."}, "subnets": ["10.9.0.0/16"]}),
            vec![("up", "spec.storage.path", "InvalidPath")],
        ),
        (
            "slow",
            json!({"parent": "hub", "uplink": {"backgroundMaxBitsPerSecond": 0}, "subnets": ["10.9.0.0/16"]}),
            vec![("slow", "spec.uplink.backgroundMaxBitsPerSecond", "OutOfRange")],
        ),
        (
            "vpn-root",
            json!({"type": "VPN", "subnets": ["10.9.0.0/16"]}),
            vec![("vpn-root", "spec.type", "CentralOfficeIsVpn")],
        ),
        ("greedy", site("store", Some("hub")), vec![("greedy", "spec.nodeSelector", "NodeInTwoOffices")]),
        ("overlap", subnet("10.0.0.0/8", "hub"), vec![("overlap", "spec.subnets", "NodeInTwoOffices")]),
    ] {
        let offices = [
            office("hub", 1, site("hub", None)),
            office("store", 2, site("store", Some("hub"))),
            office("home", 3, json!({"type": "VPN", "parent": "store", "subnets": ["10.2.0.0/16"]})),
            office(name, 4, spec),
        ];
        let nodes = [node("till", &[("site", "store")], Some("10.1.0.1")), node("laptop", &[], Some("10.2.0.1"))];
        let fleet = judged(&offices, &nodes);
        assert_eq!(refusals(&fleet), expected, "{name}");
        assert_eq!(accepted(&fleet), ["home", "hub", "store"], "{name}");
    }
}

#[test]
fn an_office_keeps_nothing_where_the_server_publishes_files() {
    let published = serde_json::from_value(json!(["/data/packages"])).unwrap();
    let storage_prefixes = "/var/lib/peerdist,/data".parse::<StoragePrefixes>().unwrap().apart_from(published);
    let grounds = Grounds { storage_prefixes, ..Grounds::default() };
    let refusal = |path: &str| {
        let spec = json!({"nodeSelector": {"matchLabels": {"site": "hub"}}, "storage": {"path": path}});
        match Fleet::new(&[office("hub", 1, spec)], [], &grounds).verdict("hub") {
            Some(Verdict::Refused(refusal)) => Some(refusal.clone()),
            _ => None,
        }
    };
    for path in ["/data/packages", "/data//packages/", "/data/packages/clients", "/data"] {
        let Refusal { field, reason, message, stalled } = refusal(path).unwrap();
        assert_eq!((field.as_str(), reason, stalled), ("spec.storage.path", "StoragePathNotAllowed", true), "{path}");
        assert!(message.contains("/data/packages, a folder of server.fileRoots"), "{message}");
    }
    for path in ["/data/packages2", "/data/clients", "/var/lib/peerdist"] {
        assert_eq!(refusal(path), None, "{path}");
    }
}

#[test]
fn an_office_keeps_nothing_in_the_folder_of_the_server() {
    let refusal = |server: &str, path: &str| {
        let prefixes: StoragePrefixes = "/var/lib/peerdist,/data".parse().unwrap();
        let storage_prefixes = prefixes.apart_from_server(&ServerStorage::HostPath(server.to_owned()));
        let grounds = Grounds { storage_prefixes, ..Grounds::default() };
        let spec = json!({"nodeSelector": {"matchLabels": {"site": "hub"}}, "storage": {"path": path}});
        let fleet = Fleet::new(&[office("hub", 1, spec)], [], &grounds);
        refusals(&fleet).first().map(|(_, field, reason)| format!("{field} {reason}"))
    };
    let refused = Some("spec.storage.path StoragePathNotAllowed".to_owned());
    for (server, path, expected) in [
        ("/var/lib/peerdist", "/var/lib/peerdist", &refused),
        ("/var/lib/peerdist/", "/var/lib/peerdist/clients", &refused),
        ("/var/lib/peerdist/server", "/var/lib/peerdist", &refused),
        ("/var/lib", "/var/lib/peerdist", &refused),
        ("/data/server", "/data", &refused),
        ("/data/server", "/data/clients", &None),
        ("/var/lib/peerdist-server", "/var/lib/peerdist", &None),
        ("/var/lib/peerdist/a", "/var/lib/peerdist/ab", &None),
    ] {
        assert_eq!(refusal(server, path), *expected, "{server} {path}");
    }
}

#[test]
fn a_cycle_is_refused_with_all_below_it() {
    let offices = [
        office("hub", 1, site("hub", None)),
        office("a", 2, site("a", Some("b"))),
        office("b", 3, site("b", Some("a"))),
        office("below", 4, site("c", Some("a"))),
        office("bad", 5, json!({"parent": "hub"})),
        office("below-bad", 6, site("d", Some("bad"))),
    ];
    let field = "spec.parent";
    let expected = [
        ("a", field, "ParentCycle"),
        ("b", field, "ParentCycle"),
        ("bad", "spec.nodeSelector", "NodesNotSelected"),
        ("below", field, "ParentNotAccepted"),
        ("below-bad", field, "ParentNotAccepted"),
    ];
    assert_eq!(refusals(&judged(&offices, &[])), expected);
}

#[test]
fn the_first_central_office_stays_whatever_the_second_is_called() {
    let offices = [office("zoo", 1, site("z", None)), office("ape", 2, site("a", None))];
    let fleet = judged(&offices, &[]);
    assert_eq!(accepted(&fleet), ["zoo"]);
    let fleet = judged(&offices[1..], &[]);
    assert_eq!(accepted(&fleet), ["ape"]);
}

#[test]
fn a_node_that_joins_two_offices_stays_with_the_first_and_its_children_stay_too() {
    let offices = [
        office("hub", 1, site("hub", None)),
        office("a", 2, json!({"parent": "hub", "nodeSelector": {"matchLabels": {"x": "1"}}})),
        office("b", 3, json!({"parent": "hub", "nodeSelector": {"matchLabels": {"y": "1"}}})),
        office("below-b", 4, site("c", Some("b"))),
    ];
    let fleet = judged(&offices, &[node("n", &[("x", "1"), ("y", "1")], None)]);
    assert_eq!(refusals(&fleet), [("b", "spec.nodeSelector", "NodeInTwoOffices")]);
    assert_eq!(accepted(&fleet), ["a", "below-b", "hub"]);
}

#[test]
fn only_nodes_in_subnets_are_labelled_and_labels_without_an_office_go() {
    let offices = [
        office("hub", 1, site("hub", None)),
        office("store", 2, subnet("10.42.0.0/24", "hub")),
        office("resting", 3, json!({"parent": "nowhere", "subnets": ["10.43.0.0/24"]})),
    ];
    let labelled = |value: &'static str| vec![(ASSIGNED_OFFICE_LABEL, value)];
    let nodes = [
        node("central", &[("site", "hub")], Some("10.0.0.1")),
        node("new", &[], Some("10.42.0.7")),
        node("there", &labelled("store"), Some("10.42.0.8")),
        node("moved", &labelled("store"), Some("10.44.0.8")),
        node("silent", &labelled("store"), None),
        node("rests", &labelled("resting"), Some("10.43.0.1")),
        node("left-over", &labelled("gone"), Some("10.45.0.1")),
        node("waits", &[], Some("10.43.0.2")),
    ];
    let fleet = judged(&offices, &nodes);
    let expected = BTreeMap::from([
        ("new".to_owned(), Assignment::Office("store".to_owned())),
        ("moved".to_owned(), Assignment::None),
        ("left-over".to_owned(), Assignment::None),
    ]);
    assert_eq!(*fleet.assignments(), expected);
}

#[test]
fn nodes_of_an_office_are_counted_and_another_number_of_them_is_a_change() {
    let offices = [office("hub", 1, site("hub", None)), office("store", 2, subnet("10.42.0.0/24", "hub"))];
    let till = |name: &str, address: &str| node(name, &[(ASSIGNED_OFFICE_LABEL, "store")], Some(address));
    let nodes = [
        node("central", &[("site", "hub")], Some("10.0.0.1")),
        till("till-1", "10.42.0.1"),
        node("nobody's", &[], Some("10.9.0.1")),
        till("till-2", "10.42.0.2"),
    ];
    let (before, after) = (judged(&offices, &nodes[..3]), judged(&offices, &nodes));
    assert_eq!(["hub", "store", "gone"].map(|office| before.nodes(office)), [1, 1, 0]);
    assert_eq!(["hub", "store", "gone"].map(|office| after.nodes(office)), [1, 2, 0]);
    assert_eq!(after.changed(&before), ["store"]);
}

#[test]
fn only_offices_that_are_judged_differently_count_as_changed() {
    let offices = [office("hub", 1, site("hub", None)), office("store", 2, site("store", Some("hub")))];
    let (before, after) = (judged(&offices[..1], &[]), judged(&offices, &[]));
    assert_eq!(after.changed(&before), ["store"]);
    assert_eq!(before.changed(&after), ["store"]);
    assert!(after.changed(&after.clone()).is_empty());
}

proptest! {
    #[test]
    fn whatever_the_offices_say_the_accepted_ones_are_one_tree(
        offices in proptest::collection::vec((0_i64..5, proptest::option::of(0_usize..12), any::<bool>(), 0_u8..4), 1..12)
    ) {
        let label = |index: usize| format!("office-{index}");
        let objects: Vec<_> = offices.iter().enumerate().map(|(index, (second, parent, vpn, subnet))| {
            let mut spec = json!({"subnets": [format!("10.{subnet}.0.0/16")]});
            if let Some(parent) = parent { spec["parent"] = json!(label(*parent)); }
            if *vpn { spec["type"] = json!("VPN"); }
            office(&label(index), *second, spec)
        }).collect();
        let fleet = judged(&objects, &[]);
        prop_assert_eq!(fleet.verdicts.len(), objects.len());
        let accepted: Vec<_> = fleet.accepted().map(|office| office.office.clone()).collect();
        if !accepted.is_empty() {
            prop_assert!(OfficeTree::new(accepted).is_ok());
        }
    }
}
