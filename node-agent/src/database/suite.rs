//! What every metadata store must do, whatever its database. `run` takes a function that makes an empty store.

use std::collections::BTreeSet;

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::names::{DistributionKey, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};

use super::*;

/// Every check, each on a store of its own. What `make` returns beside the store is kept until the check is over.
pub(crate) async fn run<S: MetadataStore, Guard>(make: impl AsyncFn() -> (S, Guard)) {
    let (store, _guard) = make().await;
    nodes_are_replaced_and_forgotten(store).await;
    let (store, _guard) = make().await;
    offices_keep_their_embedded_index(store).await;
    let (store, _guard) = make().await;
    embedded_indices_end(store).await;
    let (store, _guard) = make().await;
    sequence_numbers_only_rise(store).await;
    let (store, _guard) = make().await;
    packages_come_back_as_they_went(store).await;
    let (store, _guard) = make().await;
    progress_is_recorded_of_what_is_known(store).await;
    let (store, _guard) = make().await;
    other_content_is_on_no_node(store).await;
    let (store, _guard) = make().await;
    chunk_holders_are_bitmaps_by_office(store).await;
    let (store, _guard) = make().await;
    progress_is_kept_where_a_package_is_wanted(store).await;
    let (store, _guard) = make().await;
    node_that_is_put_anew_has_nothing(store).await;
}

async fn nodes_are_replaced_and_forgotten(store: impl MetadataStore) {
    let mut node = node_row("store-1-1");
    store.put_node(&node).await.unwrap();
    node.address = "fd00::1".parse().unwrap();
    store.put_node(&node).await.unwrap();
    store.put_node(&node_row("central-1")).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node_row("central-1"), node.clone()]);
    store.remove_node(&node.name).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node_row("central-1")]);
}

async fn offices_keep_their_embedded_index(store: impl MetadataStore) {
    assert_eq!(indices(&store, &["m", "b"]).await, [("b", 1), ("m", 2)]);
    assert_eq!(indices(&store, &["a", "m"]).await, [("a", 3), ("m", 2)]);
    assert_eq!(indices(&store, &["c", "b"]).await, [("b", 1), ("c", 4)]);
}

async fn embedded_indices_end(store: impl MetadataStore) {
    let offices: BTreeSet<OfficeName> = (0..254).map(|number| office(&format!("office-{number:03}"))).collect();
    let given = store.embedded_indices(&offices).await.unwrap();
    assert_eq!(given.values().copied().collect::<BTreeSet<u8>>(), (1..=254).collect());
    let one_more = BTreeSet::from([office("zz")]);
    let error = store.embedded_indices(&one_more).await.unwrap_err();
    assert!(matches!(error, DatabaseError::TooManyOffices { .. }), "{error}");
    assert_eq!(store.embedded_indices(&offices).await.unwrap(), given);
}

async fn sequence_numbers_only_rise(store: impl MetadataStore) {
    let key = package_key("pos-app", "1");
    assert_eq!(store.next_sequence(&key.distribution).await.unwrap(), 1);
    store.put_package(&package_row(&key, 1)).await.unwrap();
    store.remove_package(&key).await.unwrap();
    assert_eq!(store.next_sequence(&key.distribution).await.unwrap(), 2);
    assert_eq!(store.next_sequence(&package_key("other", "1").distribution).await.unwrap(), 1);
}

async fn packages_come_back_as_they_went(store: impl MetadataStore) {
    let (first, second) = (package_key("pos-app", "9"), package_key("pos-app", "10"));
    let mut row = package_row(&first, 1);
    store.put_package(&row).await.unwrap();
    row.digest = Digest::of(b"another root");
    store.put_package(&row).await.unwrap();
    store.put_package(&package_row(&second, 2)).await.unwrap();
    assert_eq!(store.packages().await.unwrap(), [row.clone(), package_row(&second, 2)]);
    row.sequence = 3;
    store.put_package(&row).await.unwrap();
    assert_eq!(store.packages().await.unwrap(), [package_row(&second, 2), row]);
    store.remove_package(&first).await.unwrap();
    assert_eq!(store.packages().await.unwrap(), [package_row(&second, 2)]);
}

async fn progress_is_recorded_of_what_is_known(store: impl MetadataStore) {
    let key = package_key("pos-app", "1");
    store.put_package(&package_row(&key, 1)).await.unwrap();
    store.put_node(&node_row("central-1")).await.unwrap();
    let mut known = package_node_row(&key, "central-1");
    let unknown = package_key("pos-app", "gone");
    let strangers = [package_node_row(&key, "stranger"), package_node_row(&unknown, "central-1")];
    store.put_package_nodes(&[&strangers[..], &[known.clone()]].concat()).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), [known.clone()]);
    assert_eq!(store.package_nodes(&unknown).await.unwrap(), []);
    (known.complete, known.error) = (true, None);
    store.put_package_nodes(&[known.clone()]).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), [known]);
    store.remove_node(&node_name("central-1")).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), []);
}

async fn other_content_is_on_no_node(store: impl MetadataStore) {
    let key = package_key("pos-app", "1");
    let (mut package, on_node) = (package_row(&key, 1), package_node_row(&key, "central-1"));
    store.put_package(&package).await.unwrap();
    store.put_node(&node_row("central-1")).await.unwrap();
    store.put_package_nodes(std::slice::from_ref(&on_node)).await.unwrap();
    store.put_package(&package).await.unwrap();
    store.put_node(&node_row("central-1")).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), std::slice::from_ref(&on_node), "both are what they were");
    package.digest = Digest::of(b"another root");
    store.put_package(&package).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), []);
    store.put_package_nodes(&[on_node]).await.unwrap();
    store.remove_package(&key).await.unwrap();
    store.put_package(&package).await.unwrap();
    assert_eq!(store.package_nodes(&key).await.unwrap(), []);
}

async fn chunk_holders_are_bitmaps_by_office(store: impl MetadataStore) {
    let key = package_key("pos-app", "1");
    store.put_chunk_holders(&key, &office("central"), &ChunkSet::full(8)).await.unwrap();
    assert!(store.chunk_holders(&key).await.unwrap().is_empty(), "the package is not known");
    store.put_package(&package_row(&key, 1)).await.unwrap();
    let mut some = ChunkSet::new(1000);
    store.put_chunk_holders(&key, &office("central"), &ChunkSet::full(1000)).await.unwrap();
    store.put_chunk_holders(&key, &office("store-1"), &some).await.unwrap();
    some.insert(999);
    store.put_chunk_holders(&key, &office("store-1"), &some).await.unwrap();
    let expected = BTreeMap::from([(office("central"), ChunkSet::full(1000)), (office("store-1"), some)]);
    assert_eq!(store.chunk_holders(&key).await.unwrap(), expected);
    store.remove_package(&key).await.unwrap();
    assert!(store.chunk_holders(&key).await.unwrap().is_empty());
}

async fn progress_is_kept_where_a_package_is_wanted(store: impl MetadataStore) {
    let (first, second) = (package_key("pos-app", "1"), package_key("pos-app", "2"));
    for (node, office_of_node) in [("central-1", "central"), ("store-1-1", "store-1")] {
        store.put_node(&NodeRow { office: office(office_of_node), ..node_row(node) }).await.unwrap();
    }
    for (key, sequence) in [(&first, 1), (&second, 2)] {
        store.put_package(&package_row(key, sequence)).await.unwrap();
        let rows = ["central-1", "store-1-1"].map(|node| package_node_row(key, node));
        store.put_package_nodes(&rows).await.unwrap();
        for name in ["central", "store-1", "store-2"] {
            store.put_chunk_holders(key, &office(name), &ChunkSet::full(8)).await.unwrap();
        }
    }
    let recorded = async |key: &PackageKey| {
        let nodes = store.package_nodes(key).await.unwrap().into_iter().map(|row| row.node.to_string());
        let offices = store.chunk_holders(key).await.unwrap().into_keys().map(|office| office.to_string());
        (nodes.collect::<Vec<_>>(), offices.collect::<Vec<_>>())
    };
    let everything = recorded(&second).await;
    let wanted = BTreeMap::from([(first.clone(), BTreeSet::from([office("store-1"), office("store-3")]))]);
    store.keep_progress(&wanted).await.unwrap();
    assert_eq!(recorded(&first).await, (vec!["store-1-1".to_owned()], vec!["store-1".to_owned()]));
    assert_eq!(recorded(&second).await, everything, "nothing was said of it");
    store.keep_progress(&BTreeMap::from([(second.clone(), BTreeSet::new())])).await.unwrap();
    assert_eq!(recorded(&second).await, (vec![], vec![]));
}

async fn node_that_is_put_anew_has_nothing(store: impl MetadataStore) {
    let key = package_key("pos-app", "1");
    store.put_package(&package_row(&key, 1)).await.unwrap();
    for node in ["central-1", "store-1-1"] {
        store.put_node_anew(&node_row(node)).await.unwrap();
        store.put_package_nodes(&[package_node_row(&key, node)]).await.unwrap();
    }
    let moved = NodeRow { office: office("central"), ..node_row("central-1") };
    store.put_node_anew(&moved).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [moved, node_row("store-1-1")]);
    assert_eq!(store.package_nodes(&key).await.unwrap(), [package_node_row(&key, "store-1-1")]);
}

/// A package key in the namespace `retail`.
pub(crate) fn package_key(name: &str, version: &str) -> PackageKey {
    let distribution =
        DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new(name).unwrap() };
    PackageKey { distribution, version: Version::new(version).unwrap() }
}

fn package_row(key: &PackageKey, sequence: u64) -> PackageRow {
    PackageRow { key: key.clone(), sequence, digest: Digest::of(b"root") }
}

fn package_node_row(key: &PackageKey, node: &str) -> PackageNodeRow {
    let error = Some(("disk_full".to_owned(), "no room: need 5 bytes".to_owned()));
    PackageNodeRow { key: key.clone(), node: node_name(node), bytes: 1 << 40, complete: false, error }
}

fn node_row(name: &str) -> NodeRow {
    NodeRow {
        name: node_name(name),
        office: office("store-1"),
        address: "10.42.0.7".parse().unwrap(),
        enrolled_at: time(1),
    }
}

async fn indices(store: &impl MetadataStore, names: &[&str]) -> Vec<(&'static str, u8)> {
    let offices = names.iter().map(|name| office(name)).collect();
    let given = store.embedded_indices(&offices).await.unwrap();
    let known = |name: &OfficeName| ["a", "b", "c", "m"].into_iter().find(|known| *known == name.as_str()).unwrap();
    given.iter().map(|(name, index)| (known(name), *index)).collect()
}

fn node_name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn office(name: &str) -> OfficeName {
    OfficeName::new(name).unwrap()
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}
