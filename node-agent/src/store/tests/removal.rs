//! Deleting: all of ours, nothing of others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::fixture::{Root, TestPackage, content, file, key};
use crate::store::{NodeStore, StoreError};

#[test]
fn deleting_removes_tree_link_manifest_and_journal() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    store.delete(package.digest()).unwrap();
    store.delete(package.digest()).unwrap();
    for folder in ["packages", "staging", "journal/manifests"] {
        assert_eq!(fs::read_dir(root.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert!(store.inventory().is_empty());
    assert!(matches!(store.publish(package.digest()), Err(StoreError::UnknownPackage(_))));
    drop(store);
    assert!(root.open().inventory().is_empty());
}

#[test]
fn deleting_one_version_leaves_the_other_and_its_link() {
    let (root, first) = (Root::new(), TestPackage::mixed("1.0"));
    let second = TestPackage::new("2.0", vec![file("a", content(1, 1000))]);
    let store = root.open();
    first.deliver(&store);
    second.deliver(&store);
    store.delete(first.digest()).unwrap();
    assert!(!store.published_path(&key("1.0")).exists());
    second.assert_published_in(&store);
    assert!(root.path().join("packages/retail/pos/current/a").exists());
}

#[test]
fn deleting_what_still_arrives_frees_it_and_stops_writers() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    package.write(&store, 0..3);
    store.delete(package.digest()).unwrap();
    assert!(store.write_chunk(package.digest(), 4, &package.chunks[4]).is_err());
    assert!(store.flush().unwrap().is_empty());
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    package.deliver(&store);
    package.assert_published_in(&store);
}

#[test]
fn links_in_a_tree_are_removed_and_not_followed() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let outside = root.0.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "keep").unwrap();
    let top = store.published_path(&key("1.0"));
    fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&outside, top.join("trap")).unwrap();
    store.delete(package.digest()).unwrap();
    assert_eq!(fs::read(outside.join("keep")).unwrap(), b"keep");
}

#[test]
fn a_directory_that_someone_put_in_place_of_ours_is_not_deleted() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let top = store.published_path(&key("1.0"));
    fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&top, root.0.path().join("moved")).unwrap();
    fs::create_dir(&top).unwrap();
    fs::write(top.join("mine"), "mine").unwrap();
    store.delete(package.digest()).unwrap();
    assert_eq!(fs::read(top.join("mine")).unwrap(), b"mine");
}

#[test]
fn uninstalling_leaves_what_others_put_there_and_follows_no_link() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    assert!(matches!(NodeStore::remove_root(&root.path()), Err(StoreError::Locked { .. })), "a role runs there");
    drop(store);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("kept"), "x").unwrap();
    fs::create_dir(root.path().join("identity")).unwrap();
    symlink(elsewhere.path(), root.path().join("identity/link")).unwrap();
    fs::create_dir_all(root.path().join("packages/retail/theirs")).unwrap();
    fs::write(root.path().join("theirs"), "x").unwrap();
    let mut left = NodeStore::remove_root(&root.path()).unwrap();
    left.sort();
    assert_eq!(left, ["packages", "theirs"]);
    assert_eq!(fs::read_dir(root.path().join("packages/retail")).unwrap().count(), 1);
    assert!(elsewhere.path().join("kept").exists());
}

#[test]
fn uninstalling_leaves_nothing_where_all_is_ours() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    package.deliver(&root.open());
    let path = root.path();
    assert!(NodeStore::remove_root(&path).unwrap().is_empty());
    assert!(!path.exists());
    assert!(NodeStore::remove_root(&path).unwrap().is_empty(), "nothing there is fine");
}
