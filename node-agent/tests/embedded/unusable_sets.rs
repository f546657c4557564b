//! Sets of objects, ports and addresses that are unusable as a whole: exit code 2, an error that names object and field
//! and says what to do, and nothing is started.

use std::net::UdpSocket;

use crate::confined::with_one_address;
use crate::objects::{content, office, package, two_offices};
use crate::place::{Place, Run, UNUSABLE};

/// Expects that the objects are refused with this error, and that nothing was made.
fn check(place: &Place, objects: &str, object: &str, field: &str, reason: &str, words: &[&str]) {
    place.objects(objects);
    let ended = place.once();
    assert_eq!(ended.code, Some(UNUSABLE), "{reason}: {}", ended.said);
    ended.assert_error(object, field, reason, words);
    assert!(ended.report["packages"].as_array().unwrap().is_empty());
    assert!(!place.path("state").exists(), "{reason}: nothing starts");
}

#[test]
fn unusable_sets_start_nothing_and_say_what_to_do() {
    let place = Place::new(101);
    let objects = two_offices();
    let more = |text: &str| format!("{objects}{text}");
    let app = package("app", "1", "file:///app", "");
    check(&place, &more("---\nkind: [\n"), "objects.yaml", "", "MalformedYaml", &["line"]);
    let misspelt = app.replace("version:", "versoin:");
    let unknown = &["unknown field: expected one of", "version", "correct or remove it"];
    check(&place, &more(&misspelt), "PackageDistribution demo/app", "spec.versoin", "UnknownField", unknown);
    let wireless = office("kiosk", Some("store"), 1, "type: Wireless");
    let values = &["Wireless", "Wired"];
    check(&place, &more(&wireless), "Office kiosk", "spec.type", "InvalidValue", values);
    let orphan = office("kiosk", Some("nowhere"), 1, "");
    check(&place, &more(&orphan), "Office kiosk", "spec.parent", "UnknownOffice", &["nowhere", "correct the name"]);
    let circle = office("one", Some("two"), 1, "") + &office("two", Some("one"), 1, "");
    let change = &["one -> two -> one", "change spec.parent"];
    check(&place, &more(&circle), "Office one", "spec.parent", "ParentCycle", change);
    let second = office("head", None, 1, "");
    let set = &["central", "set spec.parent on one"];
    check(&place, &more(&second), "Office head", "spec.parent", "SecondCentralOffice", set);
    let nobody = place.path("manifests").display().to_string();
    check(&place, &app, &nobody, "", "NoCentralOffice", &["there is no office", "add it"]);
}

#[test]
fn held_port_is_named_with_its_holder_and_nothing_is_distributed() {
    let place = Place::new(102);
    place.write("app", &content("app", 10_000));
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));
    let holder = UdpSocket::bind("127.102.2.2:34750").unwrap();
    let ended = place.once();
    assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.said);
    let process = format!("process {}", std::process::id());
    let words = ["UDP port 34750 on 127.102.2.2 is in use by", &process, "store-2", "stop it"];
    ended.assert_error("peerdist up", "", "PortInUse", &words);
    assert_eq!(ended.content_bytes(), 0);

    drop(holder);
    assert_eq!(place.once().code, Some(0), "what the first try made does not stand in the way");
}

#[test]
fn address_that_this_host_lacks_is_named_and_nothing_is_distributed() {
    let place = Place::new(131);
    place.write("app", &content("app", 10_000));
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));
    let cases = [
        ("127.131.200.200", "server: this host has no address 127.131.0.1"),
        ("127.131.0.1", "node central-1: this host has no address 127.131.1.1"),
    ];
    for (only_address, words) in cases {
        let Some(mut command) = with_one_address(&place, only_address) else { return };
        command.arg("--once");
        let ended = Run::start(command).wait();
        assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.said);
        ended.assert_error("peerdist up", "", "NoSuchAddress", &[words]);
        assert_eq!(ended.content_bytes(), 0);
    }
}
