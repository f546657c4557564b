//! Places that are not ours, places that stay ours, and versions that replace each other.

use std::fs;
use std::os::unix::fs::{lchown, symlink};

use super::fixture::{
    OTHER_USER, Root, TestPackage, content, directory, file, give_away, held, key, make_writable, mode, move_out,
    set_mode,
};
use crate::store::{NodeStore, Publication, StoreError, StoreLimits};

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

/// A root with one published package, and the place of its tree.
fn published() -> (Root, TestPackage, std::path::PathBuf) {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let top = store.published_path(&key("1.0"));
    (root, package, top)
}

fn assert_still_published(store: &NodeStore, package: &TestPackage) {
    let inventory = store.inventory();
    assert!(inventory[0].published && inventory[0].current && inventory[0].held.is_full());
    assert_eq!(store.publish(package.digest()).unwrap(), Publication::Unchanged);
}

#[test]
fn a_published_tree_stays_ours_whatever_its_mode_is() {
    for other in [0o755, 0o700, 0o000] {
        let (root, package, top) = published();
        set_mode(&top, other);
        drop(NodeStore::open_to_verify(&root.path()).unwrap());
        assert_eq!(mode(&top), other, "to look changes nothing");
        let store = root.open();
        assert_still_published(&store, &package);
        package.assert_published_in(&store);
    }
}

#[test]
fn something_else_with_the_inode_of_a_tree_is_not_ours() {
    let (root, package, top) = published();
    // A file system may give the inode of a tree that somebody removed to the folder that is made next.
    make_writable(&top);
    for item in fs::read_dir(&top).unwrap().map(|item| item.unwrap().path()) {
        if item.is_dir() { fs::remove_dir_all(item).unwrap() } else { fs::remove_file(item).unwrap() }
    }
    fs::write(top.join("theirs"), b"x").unwrap();
    let store = root.open();
    assert!(held(&store, package.digest()).is_empty());
    store.delete(package.digest()).unwrap();
    assert_eq!(fs::read(top.join("theirs")).unwrap(), b"x");
}

#[test]
fn a_published_tree_stays_ours_whoever_its_owner_is() {
    let (root, package, top) = published();
    if give_away(&top) {
        assert!(NodeStore::open_to_verify(&root.path()).unwrap().verify().unwrap().is_clean());
        assert_still_published(&root.open(), &package);
    }
}

#[test]
fn a_root_folder_of_another_user_is_no_hindrance() {
    let (root, package, _) = published();
    if give_away(&root.path()) {
        assert_still_published(&root.open(), &package);
    }
}

#[test]
fn a_journal_of_another_user_is_refused_and_nothing_is_changed() {
    for name in ["journal", "journal/journal.redb"] {
        let (root, package, top) = published();
        let (given, journal) = (root.path().join(name), root.path().join("journal/journal.redb"));
        if !give_away(&given) {
            return;
        }
        set_mode(&top, 0o755);
        let before = fs::read(&journal).unwrap();
        let us = rustix::process::geteuid().as_raw();
        let refusals = [
            NodeStore::open(&root.path(), StoreLimits::default()).unwrap_err(),
            NodeStore::open_to_verify(&root.path()).unwrap_err(),
            NodeStore::remove_root(&root.path()).unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.reason(), "StoreOwnedByAnother");
            let words = [
                format!("{} belongs to user {OTHER_USER} and this is user {us}", given.display()),
                format!("chown -R {us} {}", root.path().display()),
            ];
            assert!(words.iter().all(|words| refused.to_string().contains(words)), "{refused}");
        }
        assert_eq!(fs::read(&journal).unwrap(), before);
        lchown(&given, Some(us), None).unwrap();
        set_mode(&top, 0o555);
        assert_still_published(&root.open(), &package);
    }
}

#[test]
fn a_tree_that_is_gone_is_told_and_found_again_when_it_comes_back() {
    let (root, package, top) = published();
    let elsewhere = root.0.path().join("elsewhere");
    move_out(&top, &elsewhere);
    for _ in 0..2 {
        let report = NodeStore::open_to_verify(&root.path()).unwrap().verify().unwrap();
        assert!(!report.is_clean() && report.packages[0].gone);
        let problem = "its tree is not at its place any more: the next run fetches it again, if it is still wanted";
        assert_eq!((report.packages[0].faults[0].path.as_str(), report.packages[0].faults[0].problem), (".", problem));
    }
    move_out(&elsewhere, &top);
    let store = root.open();
    assert_still_published(&store, &package);
    package.assert_published_in(&store);
}

#[test]
fn a_tree_that_is_gone_is_fetched_again() {
    let (root, package, top) = published();
    move_out(&top, &root.0.path().join("elsewhere"));
    let store = root.open();
    assert!(held(&store, package.digest()).is_empty());
    assert!(!store.verify().unwrap().is_clean(), "the run that lost it says so, too");
    package.deliver(&store);
    package.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn verification_tells_of_something_else_at_the_place_and_of_a_tree_that_left_staging() {
    let (root, _package, top) = published();
    move_out(&top, &root.0.path().join("elsewhere"));
    fs::create_dir(&top).unwrap();
    let problem = |root: &Root| {
        let report = NodeStore::open_to_verify(&root.path()).unwrap().verify().unwrap();
        assert!(report.packages[0].gone && report.packages[0].fault_count == 1);
        report.packages[0].faults[0].problem
    };
    assert!(problem(&root).starts_with("something else lies at its place"));
    assert!(top.exists());

    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    package.hold(&root.open());
    fs::remove_dir_all(root.path().join("staging").join(package.digest().to_hex())).unwrap();
    assert!(problem(&root).starts_with("its tree is gone from staging"));
    assert!(problem(&root).starts_with("its tree is gone from staging"), "looking does not make it forgotten");
}
