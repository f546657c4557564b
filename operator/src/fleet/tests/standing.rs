//! What stands in the cluster already: the server of the Central Office, and DaemonSets of offices that are refused.

use peerdist_crds::readable::Readable;
use serde_json::{Value, json};

use super::*;

/// A hub that has the server, and what else is there.
fn with_server(offices: &[peerdist_crds::Office]) -> Fleet {
    let grounds = Grounds { server_owner: Some("uid-hub".to_owned()), ..Grounds::default() };
    Fleet::new(offices, [], &grounds)
}

#[test]
fn a_bad_edit_of_the_central_office_makes_no_other_the_central_one() {
    let outside = json!({"nodeSelector": {"matchLabels": {"site": "hub"}}, "storage": {"path": "/etc"}});
    for (spec, reason) in [
        (outside, "StoragePathNotAllowed"),
        (json!({}), "NodesNotSelected"),
        (site("hub", Some("second")), "CentralOfficeHasParent"),
    ] {
        let offices = [
            office("hub", 1, spec),
            office("second", 2, site("x", None)),
            office("store", 3, site("s", Some("hub"))),
            office("below", 4, site("b", Some("second"))),
        ];
        let fleet = with_server(&offices);
        let of = |name: &str| refusals(&fleet).into_iter().find(|refusal| refusal.0 == name).map(|refusal| refusal.2);
        assert_eq!(of("hub"), Some(reason));
        assert_eq!(of("second"), Some("SecondCentralOffice"));
        assert_eq!((of("store"), of("below")), (Some("ParentNotAccepted"), Some("ParentNotAccepted")));
        assert_eq!(fleet.central(), None, "{reason}");
    }
}

#[test]
fn the_office_with_the_server_stays_central_until_it_is_deleted() {
    let (older, hub) = (office("older", 1, site("o", None)), office("hub", 2, site("h", None)));
    assert_eq!(with_server(&[older.clone(), hub]).central(), Some("hub"));
    assert_eq!(with_server(&[older]).central(), Some("older"));
}

#[test]
fn a_central_office_that_is_refused_for_its_nodes_is_not_told_as_central() {
    let offices = [
        office("hub", 2, json!({"nodeSelector": {"matchLabels": {"y": "1"}}})),
        office("store", 1, json!({"parent": "hub", "nodeSelector": {"matchLabels": {"x": "1"}}})),
    ];
    let fleet = judged(&offices, &[node("n", &[("x", "1"), ("y", "1")], None)]);
    assert_eq!(refusals(&fleet), [("hub", "spec.nodeSelector", "NodeInTwoOffices")]);
    assert_eq!(fleet.central(), None);
}

#[test]
fn an_edit_that_was_not_judged_yet_has_no_verdict() {
    let before = office("hub", 1, site("hub", None));
    let fleet = judged(std::slice::from_ref(&before), &[]);
    let (mut edited, mut made_anew) = (before.clone(), before.clone());
    edited.metadata.generation = Some(2);
    made_anew.metadata.uid = Some("other".to_owned());
    assert!(fleet.verdict_on(&before).is_some());
    assert!(fleet.verdict_on(&edited).is_none() && fleet.verdict_on(&made_anew).is_none());
}

/// Grounds of a cluster with the DaemonSets of these offices, which select by one label each.
fn standing(offices: &[(&str, &str, &str)]) -> Grounds {
    let selector = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let standing = offices.iter().map(|(office, key, value)| ((*office).to_owned(), selector(key, value)));
    Grounds { standing: standing.collect(), ..Grounds::default() }
}

/// Nodes of which an office `a` that came first and an office `b` each want one, and both want the last.
fn contested(spec_of_b: Value) -> ([peerdist_crds::Office; 3], Vec<NodeView>) {
    let label = |key: &str| json!({"parent": "hub", "nodeSelector": {"matchLabels": {key: "1"}}});
    let offices = [office("hub", 1, site("hub", None)), office("a", 2, label("x")), office("b", 3, spec_of_b)];
    let nodes = [("of-a", vec![("x", "1")]), ("of-b", vec![("y", "1")]), ("of-both", vec![("x", "1"), ("y", "1")])];
    (offices, nodes.iter().map(|(name, labels)| node(name, labels, None)).collect())
}

/// Gives a node the label of an office by subnet.
fn assign(node: &mut NodeView, office: &str) {
    let labels = node.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    node.labels = labels.chain([(ASSIGNED_OFFICE_LABEL.to_owned(), office.to_owned())]).collect();
}

#[test]
fn the_daemon_set_of_a_refused_office_loses_the_nodes_of_others_and_keeps_its_own() {
    let label = json!({"parent": "hub", "nodeSelector": {"matchLabels": {"y": "1"}}});
    let unreadable = json!({"parent": "hub", "nodeSelector": {"matchLabels": {"a b": ""}}});
    for (spec, reason) in [(label, "NodeInTwoOffices"), (unreadable, "InvalidLabel")] {
        let (offices, mut nodes) = contested(spec);
        let grounds = standing(&[("a", "x", "1"), ("b", "y", "1")]);
        let fleet = Fleet::new(&offices, &nodes, &grounds);
        assert_eq!(refusals(&fleet)[0].2, reason);
        let expected = BTreeMap::from([("of-both".to_owned(), Assignment::Office("a".to_owned()))]);
        assert_eq!(*fleet.assignments(), expected, "{reason}");
        assert!(fleet.awaits_labels("a") && !fleet.awaits_labels("b"));
        assign(&mut nodes[2], "a");
        let labelled = Fleet::new(&offices, &nodes, &grounds);
        assert!(labelled.assignments().is_empty(), "the label stays while it is needed");
        assert_eq!(labelled.changed(&fleet), ["a"], "who waited for the label is told");
        let without = Fleet::new(&offices, &nodes, &standing(&[("a", "x", "1")]));
        assert_eq!(*without.assignments(), BTreeMap::from([("of-both".to_owned(), Assignment::None)]));
        assert!(!without.awaits_labels("a"), "its own label keeps no node from it");
    }
}

#[test]
fn nodes_on_which_a_refused_office_is_go_to_no_later_one() {
    let (mut offices, nodes) = contested(json!({"parent": "hub"}));
    offices[2].metadata.creation_timestamp = offices[0].metadata.creation_timestamp.clone();
    let fleet = Fleet::new(&offices, &nodes, &standing(&[("b", "y", "1")]));
    let expected = [("a", "spec.nodeSelector", "NodeInTwoOffices"), ("b", "spec.nodeSelector", "NodesNotSelected")];
    assert_eq!(refusals(&fleet), expected);
    let fleet = Fleet::new(&offices, &nodes, &standing(&[("a", "x", "1"), ("b", "y", "1")]));
    let expected = BTreeMap::from([("of-both".to_owned(), Assignment::Office("b".to_owned()))]);
    assert_eq!(*fleet.assignments(), expected);
}

#[test]
fn a_node_leaves_a_refused_office_by_subnet_for_its_holder() {
    let (offices, mut nodes) = contested(json!({"parent": "nowhere", "subnets": ["10.0.0.0/8"]}));
    assign(&mut nodes[2], "b");
    assign(&mut nodes[1], "b");
    let fleet = Fleet::new(&offices, &nodes, &standing(&[("b", ASSIGNED_OFFICE_LABEL, "b")]));
    assert_eq!(*fleet.assignments(), BTreeMap::from([("of-both".to_owned(), Assignment::None)]));
    assert!(fleet.awaits_labels("a"), "its DaemonSet leaves the node out as long as it bears another's label");
}

#[test]
fn an_office_that_a_newer_release_wrote_is_refused_and_keeps_its_nodes() {
    let (mut offices, mut nodes) = contested(json!({"parent": "hub", "nodeSelector": {"matchLabels": {"z": "1"}}}));
    let mut of_newer = serde_json::to_value(&offices[1]).unwrap();
    of_newer["spec"]["type"] = json!("Mesh");
    offices[1] = serde_json::from_value::<Readable<_>>(of_newer).unwrap().0;
    assign(&mut nodes[0], "a");
    let fleet = Fleet::new(&offices, &nodes, &standing(&[("a", ASSIGNED_OFFICE_LABEL, "a")]));
    assert_eq!(refusals(&fleet), [("a", "spec.type", "NotUnderstood")]);
    assert_eq!(accepted(&fleet), ["b", "hub"]);
    assert!(fleet.assignments().is_empty(), "{:?}", fleet.assignments());
}
