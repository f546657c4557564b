//! What a crash at any point leaves, and what the next start makes of it. Dropping a store without a flush, or after
//! one internal step, is what kill -9 does to it.

use std::fs;

use super::fixture::{Root, TestPackage, content, directory, file, held, key};
use crate::store::{NodeStore, Publication, StoreError, StoreLimits};

#[test]
fn flushed_chunks_survive_and_unflushed_ones_are_hashed_again() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    package.write(&store, 0..5);
    store.flush().unwrap();
    package.write(&store, 5..9);
    drop(store);

    let store = root.open();
    assert_eq!(held(&store, package.digest()).len(), 5);
    let prepared = store.prepare(package.digest()).unwrap();
    assert_eq!((prepared.held.len(), prepared.available.len(), prepared.bytes_from_local), (5, 9, 0));
    store.flush().unwrap();
    assert_eq!(held(&store, package.digest()).len(), 9);
    package.write(&store, 9..package.count());
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
}

#[test]
fn a_half_written_chunk_is_not_believed() {
    let (root, package) = (Root::new(), TestPackage::new("1.0", vec![file("a", content(1, 200_000))]));
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    let staged = root.path().join("staging").join(package.digest().to_hex()).join("a");
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(staged).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &package.chunks[0][..100], 0).unwrap();
    let store = root.open();
    assert!(store.prepare(package.digest()).unwrap().available.is_empty());
}

#[test]
fn a_tree_that_was_half_made_is_made_again() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    drop(store);
    let half = root.path().join("staging").join(package.digest().to_hex());
    fs::create_dir_all(half.join("bin/more")).unwrap();
    fs::create_dir_all(root.path().join("staging/ingest-7/tree")).unwrap();
    let store = root.open();
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    package.deliver(&store);
    package.assert_published_in(&store);
}

/// Publishes up to a step, crashes, opens, and publishes.
fn crash_after(steps: usize, before: Option<&TestPackage>) {
    let (root, package) = (Root::new(), TestPackage::mixed("2.0"));
    let store = root.open();
    before.inspect(|old| old.deliver(&store));
    package.hold(&store);
    let inner = store.package(package.digest()).unwrap();
    let all: [&dyn Fn(); 4] = [
        &|| store.seal(&inner).unwrap(),
        &|| store.record_intent(&inner).unwrap(),
        &|| store.move_into_place(&inner).unwrap(),
        &|| store.finish_publication(&inner).unwrap(),
    ];
    all[..steps].iter().for_each(|step| step());
    let visible = store.published_path(&key("2.0")).exists();
    let replaces = before.is_some_and(|old| old.root.package() == package.root.package());
    assert_eq!(visible, steps >= 3 || replaces);
    drop(inner);
    drop(store);

    let store = root.open();
    let stored = store.inventory().into_iter().find(|stored| stored.digest == package.digest()).unwrap();
    assert_eq!((stored.published, stored.current), (steps >= 3, steps >= 3), "after {steps} steps");
    assert!(stored.held.is_full());
    if let Some(old) = before.filter(|_| steps < 3) {
        old.assert_published_in(&store);
    }
    assert!(store.prepare(package.digest()).unwrap().held.is_full());
    let expected = if steps >= 3 { Publication::Unchanged } else { Publication::Published };
    assert_eq!(store.publish(package.digest()).unwrap(), expected);
    package.assert_published_in(&store);
    assert_eq!(fs::read_link(root.path().join("packages/retail/pos/current")).unwrap().to_str(), Some("2.0"));
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    if let Some(old) = before.filter(|_| !replaces) {
        old.assert_published_in(&store);
        let old = store.inventory().into_iter().find(|stored| stored.digest == old.digest()).unwrap();
        assert!(!old.current && old.superseded_at_seconds.is_some());
    }
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_crash_at_any_step_of_the_first_publication_leaves_all_or_nothing() {
    (0..=4).for_each(|steps| crash_after(steps, None));
}

#[test]
fn a_crash_at_any_step_of_the_next_version_leaves_the_old_or_the_new() {
    let old = TestPackage::new("1.0", vec![file("old", content(7, 60_000))]);
    (0..=4).for_each(|steps| crash_after(steps, Some(&old)));
}

#[test]
fn a_crash_while_a_version_is_replaced_by_another_manifest_leaves_one_of_them() {
    let old = TestPackage::with_sequence("2.0", 7, vec![directory("d"), file("d/old", content(7, 60_000))]);
    (0..=4).for_each(|steps| crash_after(steps, Some(&old)));
}

#[test]
fn a_crash_while_deleting_is_finished_by_the_next_start() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let inner = store.package(package.digest()).unwrap();
    store.mark_removing(&inner).unwrap();
    drop(inner);
    drop(store);
    let store = root.open();
    assert!(store.inventory().is_empty());
    assert!(!root.path().join("packages/retail").exists());
    package.deliver(&store);
    package.assert_published_in(&store);
}

#[test]
fn a_second_process_is_told_who_has_the_root() {
    let root = Root::new();
    let _store = root.open();
    let refused = NodeStore::open(&root.path(), StoreLimits::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
}

#[test]
fn a_root_that_was_copied_to_another_disk_keeps_its_packages() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    drop(store);
    let copy = root.0.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(root.path()).arg(&copy).status().unwrap();
    assert!(copied.success());
    let store = NodeStore::open(&copy, StoreLimits::default()).unwrap();
    assert!(store.inventory()[0].published && store.inventory()[0].held.is_full());
    assert_eq!(store.publish(package.digest()).unwrap(), Publication::Unchanged);
    assert!(store.verify().unwrap().is_clean());
}
