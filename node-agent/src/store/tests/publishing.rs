//! Places that are not ours, and versions that replace each other.

use std::fs;
use std::os::unix::fs::symlink;

use super::fixture::{Root, TestPackage, content, directory, file, key};
use crate::store::{Publication, StoreError};

#[test]
fn a_foreign_directory_at_the_place_is_left_alone() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    let place = store.published_path(&key("1.0"));
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("mine"), "mine").unwrap();
    package.put_manifest(&store);
    let refused = store.prepare(package.digest()).unwrap_err();
    assert!(matches!(&refused, StoreError::PathOccupied { path, .. } if *path == place), "{refused}");
    fs::remove_dir_all(&place).unwrap();
    package.hold(&store);
    fs::create_dir_all(&place).unwrap();
    assert!(matches!(store.publish(package.digest()), Err(StoreError::PathOccupied { .. })));
    fs::remove_dir(&place).unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
}

#[test]
fn links_and_files_on_the_way_to_the_place_are_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    let occupy: [&dyn Fn(&std::path::Path); 4] = [
        &|packages| symlink(elsewhere.path(), packages.join("retail")).unwrap(),
        &|packages| {
            fs::create_dir(packages.join("retail")).unwrap();
            symlink(elsewhere.path(), packages.join("retail/pos")).unwrap();
        },
        &|packages| fs::write(packages.join("retail"), "file").unwrap(),
        &|packages| fs::create_dir_all(packages.join("retail/pos/current")).unwrap(),
    ];
    for occupy in occupy {
        let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
        let store = root.open();
        occupy(&root.path().join("packages"));
        package.put_manifest(&store);
        assert!(matches!(store.prepare(package.digest()), Err(StoreError::PathOccupied { .. })));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

#[test]
fn another_manifest_of_the_same_version_takes_its_place_at_once() {
    let root = Root::new();
    let old = TestPackage::mixed("1.0");
    let new = TestPackage::with_sequence("1.0", 2, vec![directory("d"), file("d/new", content(5, 90_000))]);
    let store = root.open();
    old.deliver(&store);
    new.deliver(&store);
    new.assert_published_in(&store);
    let inventory = store.inventory();
    assert_eq!(inventory.len(), 1);
    assert!(inventory[0].digest == new.digest() && inventory[0].current);
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn the_link_always_leads_to_a_whole_version_while_versions_change() {
    let root = Root::new();
    let store = root.open();
    let versions: Vec<TestPackage> =
        (1..=6).map(|number| TestPackage::new(&number.to_string(), vec![file("a", content(number, 40_000))])).collect();
    versions[0].deliver(&store);
    let (link, store) = (root.path().join("packages/retail/pos/current/a"), &store);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let seen = fs::read(&link).unwrap();
                assert!(versions.iter().any(|version| version.entries[0].1 == seen));
            }
        });
        versions[1..].iter().for_each(|version| version.deliver(store));
        done.store(true, std::sync::atomic::Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(store.publish(versions[5].digest()).unwrap(), Publication::Unchanged);
}
