//! Edits of the objects while `peerdist up` runs: a bad one is printed and changes nothing, good ones take effect, and
//! bytes that are there are kept.

use std::net::UdpSocket;

use serde_json::Value;

use crate::objects::{content, office, package, two_offices};
use crate::place::{DONE, Ended, PACKAGE_FAILED, Place};

const BYTES: usize = 4 << 20;

/// The second version: the same but for its end.
fn second() -> Vec<u8> {
    let mut bytes = content("app", BYTES);
    bytes[BYTES - 1000..].fill(7);
    bytes
}

#[test]
fn edits_take_effect_and_keep_the_bytes_that_are_there() {
    let place = Place::new(106);
    place.write("app-1/data", &content("app", BYTES));
    place.write("app-2/data", &second());
    place.write("old/data", &content("old", 100_000));
    place.write("rest/data", &content("rest", 100_000));
    place.write("late/data", &content("late", 100_000));
    let app = |version: &str, more: &str| package("app", version, &place.uri(&format!("app-{version}")), more);
    let old = package("old", "1", &place.uri("old"), "");
    let rest = |paused: bool| package("rest", "1", &place.uri("rest"), &format!("rollout: {{paused: {paused}}}"));
    let late = |when: &str| package("late", "1", &place.uri("late"), &format!("schedule: {{notBefore: \"{when}\"}}"));
    let waiting = [rest(true), late("2999-01-01T00:00:00Z")].concat();
    place.objects(&[two_offices(), app("1", ""), old.clone(), waiting.clone()].concat());
    let nodes = ["central-1", "store-1", "store-2"];
    let have = |package: &'static str| {
        let current = nodes.map(|node| place.current(node, package).join("data"));
        move || current.iter().all(|path| path.exists())
    };

    let mut run = place.start();
    run.until("the first version and the old package are everywhere", || have("app")() && have("old")());
    assert!(!have("rest")() && !have("late")());
    run.until_said("demo/late 1: read 0 B: waits until 2999-01-01T00:00:00Z, as spec.schedule.notBefore says");
    run.until_said("demo/rest 1: read 0 B: paused, as spec.rollout.paused says");

    place.objects(&[two_offices().replace("type: Wired", "typo: Wired"), app("1", "")].concat());
    run.until_said("spec.typo");
    assert!(run.said().contains("UnknownField"), "{}", run.said());
    assert!(have("app")() && have("old")(), "the last good objects stay in force");

    // A package goes, an office comes, a version follows with a higher priority, and one version is enough.
    let kiosk = office("kiosk", Some("store"), 1, "type: WiFi");
    let newer = app("2", "priority: High, retention: {versions: 1}");
    place.objects(&[two_offices(), kiosk.clone(), newer.clone(), waiting].concat());
    let link = |node: &str| std::fs::read_link(place.current(node, "app")).unwrap_or_default();
    run.until("the second version is current everywhere", || {
        ["central-1", "store-1", "store-2", "kiosk-1"].iter().all(|node| link(node).ends_with("2"))
    });
    run.until("the removed package is gone", || {
        nodes.iter().all(|node| !place.node(node).join("packages/demo/old").exists())
    });
    assert!(!have("rest")() && !have("late")());
    assert!(!place.current("kiosk-1", "old").exists());

    place.objects(&[two_offices(), kiosk, newer, rest(false), late("2001-01-01T00:00:00Z")].concat());
    run.until("what waited is everywhere", || have("rest")() && have("late")());

    let ended = run.interrupt();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    assert_eq!(ended.report["packages"].as_array().unwrap().len(), 3, "{:#}", ended.report["packages"]);
    ended.assert_complete("app", "kiosk", 1);
    for node in nodes {
        place.assert_file(node, "app", "data", &second());
    }
    // The end of the file is new, at most a few chunks of 64 KiB; the rest is copied from the version before.
    let fetched = ended.received("app", "central");
    assert!(fetched > 0 && fetched < (BYTES / 8) as u64, "{fetched} bytes of the second version were fetched");
    let whole = ended.received("app", "kiosk");
    assert!(whole >= BYTES as u64 && whole < (BYTES + BYTES / 8) as u64, "{whole} bytes to the new office");
    assert_says_where_the_time_went(&ended);
    assert_says_what_crossed_each_link(&ended);
}

fn assert_says_where_the_time_went(ended: &Ended) {
    let time = &ended.report["time"];
    for part in ["sourceSeconds", "hashSeconds", "networkSeconds", "diskSeconds", "runSeconds"] {
        assert!(time[part].as_f64().is_some_and(|seconds| seconds > 0.0), "{part}: {time:#}");
    }
}

fn assert_says_what_crossed_each_link(ended: &Ended) {
    let links = &ended.report["links"];
    for (from, to) in [("origin", "server"), ("server", "central"), ("central", "store"), ("store", "kiosk")] {
        let carried = |link: &Value| link["from"] == from && link["to"] == to && link["bytes"].as_u64() > Some(0);
        assert!(links.as_array().unwrap().iter().any(carried), "{from} to {to}: {links:#}");
    }
}

#[test]
fn node_that_could_not_be_started_is_tried_again() {
    let place = Place::new(121);
    place.write("app-1/data", &content("app", 100_000));
    let app = package("app", "1", &place.uri("app-1"), "");
    place.objects(&(two_offices() + &app));
    let mut run = place.start();
    run.until("the package is everywhere", || place.current("store-2", "app").join("data").exists());

    let holder = UdpSocket::bind("127.121.3.1:34750").unwrap();
    place.objects(&[two_offices(), office("kiosk", Some("store"), 1, "type: Wired"), app].concat());
    run.until_said("UDP port 34750 on 127.121.3.1 is in use by");
    assert!(!place.current("kiosk-1", "app").exists());
    drop(holder);
    run.until_said("demo/app 1: kiosk 100 %, 1/1 nodes");

    let ended = run.interrupt();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    ended.assert_complete("app", "kiosk", 1);
    assert_eq!(ended.said.matches("is in use by").count(), 1, "once is enough: {}", ended.said);
}

#[test]
fn package_that_was_removed_and_is_named_again_arrives_again() {
    let place = Place::new(145);
    place.write("app/data", &content("app", 100_000));
    let app = package("app", "1", &place.uri("app"), "");
    let other = package("other", "1", &place.uri("app"), "");
    place.objects(&[two_offices(), app.clone(), other.clone()].concat());
    let mut run = place.start();
    let arrived = || place.current("store-2", "app").join("data").exists();
    run.until("the package is everywhere", arrived);
    place.objects(&[two_offices(), other.clone()].concat());
    run.until("the library has given it up", || !place.server().join("packages/demo/app/1").exists());
    place.objects(&[two_offices(), app, other].concat());
    run.until("it is everywhere again", arrived);
    assert_eq!(run.interrupt().code, Some(DONE));
}

#[test]
fn version_that_comes_back_with_another_source_is_compared_with_what_was_published() {
    let place = Place::new(144);
    let (first, second) = (content("first", 100_000), content("second", 100_000));
    for (folder, bytes) in [("app-1", &first), ("app-2", &second), ("copy-2", &second)] {
        place.write(&format!("{folder}/data"), bytes);
    }
    let app = |version: &str, source: &str| two_offices() + &package("app", version, &place.uri(source), "");
    let is_current = |version: &'static str| {
        let link = place.current("store-2", "app");
        move || std::fs::read_link(&link).is_ok_and(|target| target.ends_with(version))
    };
    place.objects(&app("1", "app-1"));
    let mut run = place.start();
    run.until("version 1 is current", is_current("1"));
    for (version, source) in [("2", "app-2"), ("1", "app-1"), ("2", "copy-2")] {
        place.objects(&app(version, source));
        run.until(&format!("version {version} of {source} is current"), is_current(version));
    }
    let record = place.server().join("journal/sources/demo/app/2.json");
    run.until("the same content from elsewhere is accepted and remembered", || {
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("copy-2"))
    });

    for (version, source) in [("1", "app-1"), ("2", "app-1")] {
        place.objects(&app(version, source));
        run.until(&format!("version {version} is current again"), is_current(version));
    }
    run.until_said("version 2 was published with other content than");
    let ended = run.interrupt();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    let words = ["version 2 was published with other content than", "app-1", "set a new spec.version"];
    ended.assert_error("PackageDistribution demo/app", "spec.version", "VersionReused", &words);
    place.assert_file("store-2", "app", "data", &second);
}
