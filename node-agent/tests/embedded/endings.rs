//! How a run with `--once` ends: interrupted before everything was done, or with packages that their objects keep back.
//! What fails is for other files.

use std::process::Command;

use crate::objects::{content, office, package, two_offices};
use crate::place::{DONE, Ended, PACKAGE_FAILED, Place, Run, without_settings_of_the_shell};

/// What a link of 1 Mbit/s takes nine minutes for: longer than all the patience of the test that interrupts it twice.
const BYTES: usize = 64 << 20;
const DATA_BYTES: usize = 100_000;

#[test]
fn interrupted_run_that_was_to_end_by_itself_is_no_success_and_resumes() {
    let place = Place::new(126);
    place.write("app/data", &content("app", BYTES));
    place.write("small/data", &content("small", DATA_BYTES));
    let small = package("small", "1", &place.uri("small"), "priority: High");
    let packages = small + &package("app", "1", &place.uri("app"), "");
    // However slow this machine is, the big package is not there before the interrupts.
    let slow = office("store", Some("central"), 2, "type: Wired, uplink: {backgroundMaxBitsPerSecond: 1M}");
    place.objects(&(office("central", None, 1, "type: Wired") + &slow + &packages));

    assert_interrupted(&started(&place).interrupt());
    assert_interrupted(&started(&place).terminate());

    place.objects(&(two_offices() + &packages));
    let resumed = place.once();
    assert_eq!(resumed.code, Some(DONE), "{}", resumed.said);
    assert!(resumed.errors().is_empty());
    resumed.assert_complete("app", "store", 2);
}

/// A run that has nothing left to bring but the big package.
fn started(place: &Place) -> Run {
    let mut run = place.start_once();
    run.until_said("demo/small 1: central 100 %, 1/1 nodes");
    run.until_said("demo/small 1: store 100 %, 2/2 nodes");
    run
}

/// Expects that the big package, and nothing else, is named.
fn assert_interrupted(ended: &Ended) {
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    let words = ["interrupted when", "of 3 nodes had version 1", "run the same command again", "resumes"];
    ended.assert_error("PackageDistribution demo/app", "", "Interrupted", &words);
    assert_eq!(ended.errors().len(), 1, "{:#?}", ended.errors());
}

#[test]
fn packages_that_their_objects_keep_back_are_not_waited_for() {
    let place = Place::new(127);
    place.write("app/data", &content("app", DATA_BYTES));
    let uri = place.uri("app");
    let packages = [
        package("app", "1", &uri, ""),
        package("rest", "1", &uri, "rollout: {paused: true}"),
        package("late", "1", &uri, "schedule: {notBefore: \"2999-01-01T00:00:00Z\"}"),
    ];
    place.objects(&(two_offices() + &packages.concat()));

    let ended = place.once();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    assert!(ended.errors().is_empty(), "{:#?}", ended.errors());
    ended.assert_complete("app", "store", 2);
    let reasons: Vec<(&str, Option<&str>)> = ended.report["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["name"].as_str().unwrap(), package["waits"]["reason"].as_str()))
        .collect();
    assert_eq!(reasons, [("app", None), ("late", Some("WaitsForSchedule")), ("rest", Some("Paused"))]);
    for package in ["late", "rest"] {
        assert!(!place.current("central-1", package).exists(), "{package}");
    }

    let summary = summary(&place);
    for line in [
        "not distributed: demo/late 1: waits until 2999-01-01T00:00:00Z, as spec.schedule.notBefore says",
        "not distributed: demo/rest 1: paused, as spec.rollout.paused says",
    ] {
        assert!(summary.contains(line), "{summary}");
    }
}

/// What people are told at the end of such a run.
fn summary(place: &Place) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerdist"));
    command.args(["up", "--once", "--output", "text", "--prefix", "127.127", "--state"]);
    command.arg(place.path("state")).arg(place.path("manifests"));
    let output = without_settings_of_the_shell(&mut command).output().unwrap();
    assert_eq!(output.status.code(), Some(DONE), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn once_can_be_asked_for_by_the_environment_in_the_usual_forms() {
    let place = Place::new(128);
    place.write("app/data", &content("app", DATA_BYTES));
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));
    for form in ["1", "yes", "true"] {
        let mut command = place.command();
        command.env("PEERDIST_ONCE", form);
        let ended = Run::start(command).wait();
        assert_eq!(ended.code, Some(DONE), "{form}: {}", ended.said);
        ended.assert_complete("app", "store", 2);
    }
    let mut command = place.command();
    command.env("PEERDIST_ONCE", "0");
    let mut run = Run::start(command);
    run.until_said("demo/app 1: store 100 %, 2/2 nodes");
    assert_eq!(run.interrupt().code, Some(DONE));
}
