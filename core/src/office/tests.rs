//! Trees that are accepted, trees that are refused, and the paths through them.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> OfficeName {
    OfficeName::new(text).unwrap()
}

fn office(text: &str, parent: Option<&str>) -> Office {
    Office {
        name: name(text),
        parent: parent.map(name),
        office_type: OfficeType::Wired,
        labels: BTreeMap::new(),
        storage_limit_bytes: None,
        background_bits_per_second_max: None,
    }
}

fn vpn(text: &str, parent: Option<&str>) -> Office {
    Office { office_type: OfficeType::Vpn, ..office(text, parent) }
}

fn names(texts: &[&str]) -> BTreeSet<OfficeName> {
    texts.iter().map(|text| name(text)).collect()
}

/// central -> (north -> (store-1, store-2), south -> home)
fn example() -> OfficeTree {
    OfficeTree::new([
        office("store-1", Some("north")),
        office("central", None),
        office("north", Some("central")),
        office("south", Some("central")),
        office("store-2", Some("north")),
        vpn("home", Some("south")),
    ])
    .unwrap()
}

fn refused(offices: impl IntoIterator<Item = Office>) -> Vec<(&'static str, String, &'static str)> {
    let errors = OfficeTree::new(offices).unwrap_err();
    errors
        .iter()
        .map(|error| (error.reason(), error.office().map(OfficeName::to_string).unwrap_or_default(), error.field()))
        .collect()
}

#[test]
fn paths_lead_from_the_central_office_to_each_office() {
    let tree = example();
    assert_eq!(tree.path_from_central(&name("store-2")), [&name("central"), &name("north"), &name("store-2")]);
    assert_eq!(tree.path_from_central(&name("central")), [&name("central")]);
    assert!(tree.path_from_central(&name("nowhere")).is_empty());
    assert_eq!(tree.children_of(&name("north")).cloned().collect::<BTreeSet<_>>(), names(&["store-1", "store-2"]));
}

#[test]
fn transit_offices_lie_above_targets_and_are_no_targets() {
    let tree = example();
    assert_eq!(tree.transit_offices(&names(&["store-1", "store-2"])), names(&["central", "north"]));
    assert_eq!(tree.transit_offices(&names(&["store-1", "north"])), names(&["central"]));
    assert_eq!(tree.transit_offices(&names(&["central"])), names(&[]));
    assert_eq!(tree.transit_offices(&names(&["home", "store-1", "central"])), names(&["north", "south"]));
}

#[test]
fn a_target_between_transit_offices_does_not_end_the_path() {
    let tree =
        OfficeTree::new([office("a", None), office("b", Some("a")), office("c", Some("b")), office("d", Some("c"))])
            .unwrap();
    assert_eq!(tree.transit_offices(&names(&["d", "b"])), names(&["a", "c"]));
}

#[test]
fn only_neighbours_in_the_tree_are_related() {
    let tree = example();
    let relation = |a: &str, b: &str| tree.relation(&name(a), &name(b));
    assert_eq!(relation("north", "north"), OfficeRelation::Same);
    assert_eq!(relation("north", "central"), OfficeRelation::Parent);
    assert_eq!(relation("central", "north"), OfficeRelation::Child);
    assert_eq!(relation("store-1", "store-2"), OfficeRelation::Unrelated);
    assert_eq!(relation("store-1", "central"), OfficeRelation::Unrelated);
    assert_eq!(relation("nowhere", "nowhere"), OfficeRelation::Unrelated);
}

#[test]
fn sets_that_are_not_one_tree_are_refused_with_office_and_field() {
    let parent = "spec.parent";
    assert_eq!(refused([]), [("NoCentralOffice", String::new(), "")]);
    assert_eq!(refused([office("a", None), office("b", None)]), [("SecondCentralOffice", "b".into(), parent)]);
    assert_eq!(refused([office("a", None), office("b", Some("x"))]), [("UnknownOffice", "b".into(), parent)]);
    assert_eq!(refused([office("a", Some("a"))]), [("ParentCycle", "a".into(), parent)]);
    assert_eq!(refused([office("a", None), office("a", None)]), [("DuplicateObject", "a".into(), "metadata.name")]);
    assert_eq!(refused([vpn("a", None)]), [("CentralOfficeIsVpn", "a".into(), "spec.type")]);
    assert_eq!(
        refused([office("a", None), vpn("b", Some("a")), office("c", Some("b"))]),
        [("ParentIsVpn", "c".into(), parent)]
    );
}

#[test]
fn a_cycle_is_told_once_with_its_members() {
    let offices = [
        office("z", None),
        office("a", Some("d")),
        office("b", Some("c")),
        office("c", Some("d")),
        office("d", Some("b")),
    ];
    let errors = OfficeTree::new(offices).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("office b is its own ancestor (b -> c -> d -> b)"), "{}", errors[0]);
}

#[test]
fn one_office_too_many_is_refused() {
    let stores = (0..OFFICES_MAX).map(|index| office(&format!("store-{index}"), Some("central")));
    let errors = OfficeTree::new(std::iter::once(office("central", None)).chain(stores)).unwrap_err();
    assert_eq!(errors, [OfficeTreeError::TooMany]);
}

/// A tree in which office n has a parent below n, so that it is always valid.
fn any_tree() -> impl Strategy<Value = (Vec<usize>, Vec<bool>)> {
    (1_usize..40).prop_flat_map(|count| {
        let parents: Vec<_> = (1..count).map(|index| 0..index).collect();
        (parents, proptest::collection::vec(any::<bool>(), count))
    })
}

proptest! {
    #[test]
    fn transit_and_targets_together_are_all_paths((parents, targeted) in any_tree()) {
        let label = |index: usize| format!("office-{index}");
        let mut offices = vec![office(&label(0), None)];
        offices.extend(parents.iter().enumerate().map(|(index, parent)| office(&label(index + 1), Some(&label(*parent)))));
        let tree = OfficeTree::new(offices).unwrap();
        let targets: BTreeSet<OfficeName> =
            targeted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(index, _)| name(&label(index))).collect();
        let transit = tree.transit_offices(&targets);
        prop_assert!(transit.is_disjoint(&targets));
        let on_paths: BTreeSet<OfficeName> =
            targets.iter().flat_map(|target| tree.path_from_central(target)).cloned().collect();
        prop_assert_eq!(transit.union(&targets).cloned().collect::<BTreeSet<_>>(), on_paths);
    }

    #[test]
    fn any_parents_give_a_tree_or_errors_and_every_path_ends(parents in proptest::collection::vec(proptest::option::of(0_usize..12), 0..12)) {
        let label = |index: usize| format!("office-{index}");
        let offices = parents.iter().enumerate().map(|(index, parent)| office(&label(index), parent.map(label).as_deref()));
        match OfficeTree::new(offices) {
            Ok(tree) => {
                for office in tree.offices() {
                    let path = tree.path_from_central(&office.name);
                    prop_assert_eq!(path.first().copied(), Some(tree.central()));
                    prop_assert!(path.len() <= tree.len());
                }
            }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
