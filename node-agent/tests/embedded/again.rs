//! Running again: after an interrupt only what is missing is fetched, and when all is done nothing is.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::confined::without_privileges;
use crate::objects::{content, office, package, two_offices};
use crate::place::{DONE, PACKAGE_FAILED, Place};

const BYTES: u64 = 64 << 20;
const FILES: u64 = 8;
/// What a process that ends may have received and not journalled, for each of the three nodes.
const IN_FLIGHT_BYTES: u64 = 3 * (8 << 20);
const STORE: u8 = 2;
const NODES: [&str; 3] = ["central-1", "store-1", "store-2"];

#[test]
fn interrupted_run_resumes_and_a_run_after_the_last_moves_and_writes_nothing() {
    let place = Place::new(105);
    for file in 0..FILES {
        let name = format!("file-{file}");
        place.write(&format!("app/{name}"), &content(&name, (BYTES / FILES) as usize));
    }
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));

    let mut run = place.start();
    run.until("a tenth has arrived", || {
        place.counter(STORE, 1, "peerdist_content_bytes_total", "parent")
            + place.counter(STORE, 2, "peerdist_content_bytes_total", "parent")
            > BYTES / 10
    });
    let interrupted = run.interrupt();
    assert_eq!(interrupted.code, Some(DONE), "{}", interrupted.said);
    let complete = place.current("store-1", "app").exists();
    assert!(!complete, "the interrupt came too late to show anything");

    let resumed = place.once();
    assert_eq!(resumed.code, Some(DONE), "{}", resumed.said);
    resumed.assert_complete("app", "store", 2);
    let received = |office| interrupted.received("app", office) + resumed.received("app", office);
    let (central, store) = (received("central"), received("store"));
    assert!(central <= BYTES + IN_FLIGHT_BYTES, "{central} bytes to the one node of the Central Office");
    assert!(store <= 2 * BYTES + IN_FLIGHT_BYTES, "{store} bytes to the two nodes of the store");
    assert!(resumed.received("app", "store") < 2 * BYTES, "what had arrived was used");

    let before = stamps(&place);
    assert!(before.len() as u64 > 4 * FILES);
    let idle = place.once();
    assert_eq!(idle.code, Some(DONE), "{}", idle.said);
    idle.assert_complete("app", "store", 2);
    assert_eq!(idle.content_bytes(), 0);
    assert_eq!(idle.received("app", "central") + idle.received("app", "store"), 0);
    assert_eq!(stamps(&place), before, "published trees are left alone");
}

/// A place in which a small package is everywhere, and the object of that.
fn distributed(prefix: u8) -> (Place, String) {
    let place = Place::new(prefix);
    place.write("app/data", &content("data", 1 << 20));
    let app = package("app", "1", &place.uri("app"), "");
    place.objects(&(two_offices() + &app));
    place.once().assert_complete("app", "store", 2);
    (place, app)
}

#[test]
fn node_that_is_not_asked_for_any_more_is_not_waited_for() {
    let (place, app) = distributed(113);
    let fewer = office("central", None, 1, "type: Wired") + &office("store", Some("central"), 1, "type: Wired");
    place.objects(&(fewer + &app));
    let again = place.once();
    assert_eq!(again.code, Some(DONE), "{}", again.said);
    again.assert_complete("app", "store", 1);
}

#[test]
fn tree_that_its_owner_may_not_enter_any_more_is_sealed_again_and_not_fetched() {
    let (place, _) = distributed(132);
    let tree = place.node("store-1").join("packages/demo/app/1");
    fs::set_permissions(&tree, Permissions::from_mode(0o000)).unwrap();
    let again = without_privileges(&place).wait();
    assert_eq!(again.code, Some(DONE), "{}", again.said);
    assert_eq!(fs::metadata(&tree).unwrap().mode() & 0o7777, 0o555, "{}", again.said);
    assert_eq!(again.received("app", "store"), 0);
    place.assert_file("store-1", "app", "data", &content("data", 1 << 20));
}

#[test]
fn object_that_is_broken_before_a_start_stays_what_it_was() {
    let (place, app) = distributed(115);
    place.objects(&(two_offices() + &app.replace("file://", "fille://")));
    let broken = place.once();
    assert_eq!(broken.code, Some(PACKAGE_FAILED), "{}", broken.said);
    for node in NODES {
        place.assert_file(node, "app", "data", &content("data", 1 << 20));
    }
    place.objects(&two_offices());
    let mut run = place.start();
    run.until("who deletes the object deletes the package", || !place.current("store-1", "app").exists());
    run.interrupt();
}

#[test]
fn server_that_lost_its_library_takes_nothing_from_the_nodes() {
    let (place, _) = distributed(116);
    let before = stamps_of_nodes(&place);
    for entry in fs::read_dir(place.server()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("identity") {
            fs::remove_dir_all(entry).unwrap();
        } else if entry.is_file() {
            fs::remove_file(entry).unwrap();
        }
    }
    fs::remove_file(place.server().join("identity/revisions")).unwrap();
    let source = place.path("app");
    fs::rename(&source, place.path("elsewhere")).unwrap();
    let without_source = place.once();
    assert_eq!(without_source.code, Some(PACKAGE_FAILED), "{}", without_source.said);
    assert_eq!(stamps_of_nodes(&place), before, "nodes lost what nobody can bring again");

    fs::rename(place.path("elsewhere"), &source).unwrap();
    let again = place.once();
    assert_eq!(again.code, Some(DONE), "{}", again.said);
    again.assert_complete("app", "store", 2);
    assert_eq!(again.content_bytes(), 0);
}

type Stamps = BTreeMap<PathBuf, (u64, i64, i64, i64, i64)>;

/// What changes when anything is written below the published trees of the library and every node: inode and times.
fn stamps(place: &Place) -> Stamps {
    let mut found = stamps_of_nodes(place);
    collect(&place.server().join("packages"), &mut found);
    found
}

fn stamps_of_nodes(place: &Place) -> Stamps {
    let mut found = Stamps::new();
    NODES.iter().for_each(|node| collect(&place.node(node).join("packages"), &mut found));
    found
}

fn collect(path: &Path, found: &mut Stamps) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
    found.insert(path.to_owned(), (metadata.ino(), times.0, times.1, times.2, times.3));
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
    }
}
