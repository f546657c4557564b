//! Everything that can be wrong with one package, in one run: each is said with object, field and what to do, the exit
//! code is 3, and the packages that are right arrive on every node.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::confined::without_privileges;
use crate::objects::{content, office, package, two_offices};
use crate::origin::{Answer, origin};
use crate::place::{Ended, PACKAGE_FAILED, Place};

/// More than a node of the small office may store, beside the right package.
const BIG_BYTES: usize = 4 << 20;
const DATA_BYTES: usize = 1 << 20;

#[test]
fn each_bad_package_is_named_and_the_others_arrive() {
    let place = Place::new(103);
    let web = origin(|asked| match asked.path.as_str() {
        "/forbidden" => Answer::status(403),
        _ => Answer::status(404),
    });
    make_sources(&place);
    place.objects(&objects(&place, &web));

    let ended = without_privileges(&place).wait();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    assert_errors(&place, &web, &ended);
    for (office, nodes) in [("central", 1), ("store", 2), ("small", 1)] {
        ended.assert_complete("right", office, nodes);
    }
    for (office, nodes) in [("central", 1), ("store", 2)] {
        ended.assert_complete("big", office, nodes);
    }
    for node in ["central-1", "store-1", "store-2", "small-1"] {
        place.assert_file(node, "right", "data", &content("data", DATA_BYTES));
        assert_only(
            &place.node(node).join("packages/demo"),
            if node == "small-1" { &["right"] } else { &["big", "right"] },
        );
    }
}

fn make_sources(place: &Place) {
    place.write("right/data", &content("data", DATA_BYTES));
    place.write("big/data", &content("big", BIG_BYTES));
    place.write("secret/readable", b"readable");
    let secret = place.write("secret/key", b"secret");
    fs::set_permissions(secret, Permissions::from_mode(0o000)).unwrap();
    place.write("pipes/file", b"file");
    let pipe = place.path("pipes/pipe");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    place.write("broken.tar.gz", &[b"\x1f\x8b\x08\0", &content("no archive at all", 1000)[..]].concat());
}

fn objects(place: &Place, web: &str) -> String {
    let zeros = format!("source: {{uri: \"{}\", digest: \"sha256:{}\"}}", place.uri("broken.tar.gz"), "0".repeat(64));
    let nobody_listens = "http://127.103.200.200:9/app";
    [
        two_offices(),
        office("small", Some("central"), 1, "type: Wired, storage: {limit: 3Mi}"),
        package("right", "1", &place.uri("right"), ""),
        package("big", "1", &place.uri("big"), ""),
        package("gone", "1", &place.uri("gone"), ""),
        package("other-bytes", "1", "", &zeros),
        package("secret", "1", &place.uri("secret"), ""),
        package("pipes", "1", &place.uri("pipes"), ""),
        package("broken", "1", &place.uri("broken.tar.gz"), "unpack: Auto"),
        package("for-nobody", "1", &place.uri("right"), "offices: {matchLabels: {office: mars}}"),
        package("strange", "1", "gopher://host/app", ""),
        package("no-page", "1", &format!("{web}/missing"), ""),
        package("forbidden", "1", &format!("{web}/forbidden"), ""),
        package("no-server", "1", nobody_listens, ""),
    ]
    .concat()
}

fn assert_errors(place: &Place, web: &str, ended: &Ended) {
    let of = |name: &str, field: &str, reason: &str, words: &[&str]| {
        ended.assert_error(&format!("PackageDistribution demo/{name}"), field, reason, words);
    };
    let uri = "spec.source.uri";
    let path = |name: &str| place.path(name).display().to_string();
    of("gone", uri, "SourceMissing", &[&path("gone"), "does not exist", "correct spec.source.uri (together with"]);
    let corrected = "correct spec.source.digest or the source (together with spec.version";
    let digest = ["has the digest sha256:", "expected sha256:000", corrected];
    of("other-bytes", "spec.source.digest", "DigestMismatch", &digest);
    of(
        "secret",
        uri,
        "SourceUnreadable",
        &[&path("secret/key"), "Permission denied", "let the user of the server read"],
    );
    of("pipes", uri, "EntryRefused", &[&path("pipes"), "named pipe", "remove it"]);
    of("broken", uri, "ArchiveInvalid", &["cannot be unpacked", "broken.tar.gz", "spec.unpack: None"]);
    let labels = "spec.offices.matchLabels";
    of("for-nobody", labels, "NoOfficeSelected", &["no office has the labels office=mars", "correct the labels"]);
    of("strange", uri, "UnsupportedScheme", &["gopher", "expected file://", "change the URI"]);
    of("no-page", uri, "SourceMissing", &[&format!("{web}/missing does not exist"), "status 404"]);
    of("forbidden", uri, "SourceRefused", &["status 403", web]);
    of("no-server", uri, "ConnectionRefused", &["connection refused", "127.103.200.200:9", "start it"]);
    let need = ["not enough space: need", "have", "node small-1", "demo/big 1", "raise spec.storage.limit"];
    ended.assert_error("Office small", "spec.storage", "DiskFull", &need);
    assert_eq!(ended.errors().len(), 11, "{:#?}", ended.errors());
}

fn assert_only(folder: &Path, expected: &[&str]) {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, expected, "{}", folder.display());
}

#[test]
fn nothing_but_bad_packages_is_no_success() {
    let place = Place::new(112);
    let bad = package("elsewhere", "1", "s3://bucket/app", "");
    place.objects(&[two_offices(), bad].concat());
    let ended = place.once();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    assert_eq!(ended.report["errors"].as_array().map(Vec::len), Some(1), "{}", ended.report);
}

#[test]
fn package_that_an_office_above_cannot_take_ends_the_run_and_is_named_in_every_office_below() {
    let place = Place::new(124);
    let central = office("central", None, 1, "type: Wired, storage: {limit: 3Mi}");
    let below = office("store", Some("central"), 2, "type: Wired") + &office("kiosk", Some("store"), 1, "type: Wired");
    place.write("right/data", &content("data", DATA_BYTES));
    place.write("big/data", &content("big", BIG_BYTES));
    place.write("through/data", &content("through", BIG_BYTES));
    // The last one only passes through the Central Office and the store.
    let packages = [
        package("right", "1", &place.uri("right"), ""),
        package("big", "1", &place.uri("big"), ""),
        package("through", "1", &place.uri("through"), "offices: {matchLabels: {office: kiosk}}"),
    ];
    place.objects(&(central + &below + &packages.concat()));

    let ended = place.once();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    let of = |object: &str, field: &str, reason: &str, words: &str| {
        let about = ended.errors().iter().filter(|error| error["object"] == object);
        let alike = about.filter(|error| error["field"] == field && error["reason"] == reason);
        let named = alike.filter(|error| error["message"].as_str().unwrap().contains(words));
        assert_eq!(named.count(), 1, "{object} and {words} in {:#?}", ended.errors());
    };
    of("Office central", "spec.storage", "DiskFull", "demo/big 1");
    of("Office central", "spec.storage", "DiskFull", "demo/through 1");
    of("Office store", "", "WaitsForOffice", "demo/big 1: waits for Office central");
    of("Office kiosk", "", "WaitsForOffice", "demo/big 1: waits for Office central");
    of("Office kiosk", "", "WaitsForOffice", "demo/through 1: waits for Office central");
    assert_eq!(ended.errors().len(), 5, "{:#?}", ended.errors());
    for (office, nodes) in [("central", 1), ("store", 2), ("kiosk", 1)] {
        ended.assert_complete("right", office, nodes);
    }
    let why = "demo/big 1: kiosk 0 %, 0/1 nodes: kiosk-1: waits for Office central";
    assert_eq!(ended.said.matches(why).count(), 1, "once is enough: {}", ended.said);
}

#[test]
fn file_in_the_way_of_a_package_is_no_fault_of_a_field() {
    let place = Place::new(125);
    place.write("app/data", &content("data", DATA_BYTES));
    place.write("state/nodes/store-2/packages/demo/app/1/foreign", b"foreign");
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));
    let ended = place.once();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    let words = ["demo/app/1 is not ours: move it away", "node store-2", "demo/app 1"];
    ended.assert_error("Office store", "", "PathOccupied", &words);
    assert_eq!(ended.errors().len(), 1, "{:#?}", ended.errors());
    ended.assert_complete("app", "central", 1);
    assert_eq!(ended.office("app", "store")["complete"], 1);
}
