//! What each office should hold, over distributions that come, wait, pause, change and go.

use proptest::prelude::*;

use super::*;
use crate::distribution::{OfficeSelector, PackageSource, SourceUri, Unpack};
use crate::names::{Namespace, PackageName, SecretName};
use crate::office::{Office, OfficeType};

pub(super) fn office_name(text: &str) -> OfficeName {
    OfficeName::new(text).unwrap()
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

pub(super) fn key(name: &str) -> DistributionKey {
    DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new(name).unwrap() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn distribution(name: &str, version_text: &str) -> Distribution {
    Distribution {
        key: key(name),
        version: version(version_text),
        source: PackageSource { uri: SourceUri::File("/source".into()), digest: None, secret: None },
        unpack: Unpack::None,
        offices: OfficeSelector::default(),
        priority: Priority::Normal,
        not_before: None,
        paused: false,
        retention_versions: 2,
        generation: 1,
    }
}

pub(super) fn for_region(region: &str, distribution: Distribution) -> Distribution {
    let match_labels = BTreeMap::from([("region".to_owned(), region.to_owned())]);
    Distribution { offices: OfficeSelector { match_labels }, ..distribution }
}

fn office(name: &str, parent: Option<&str>, region: &str) -> Office {
    Office {
        name: office_name(name),
        parent: parent.map(office_name),
        office_type: OfficeType::Wired,
        labels: BTreeMap::from([("region".to_owned(), region.to_owned())]),
        storage_limit_bytes: None,
        background_bits_per_second_max: None,
    }
}

/// central -> store (eu) -> kiosk (eu-kiosk), central -> depot (us)
pub(super) fn tree() -> OfficeTree {
    OfficeTree::new([
        office("central", None, "hq"),
        office("store", Some("central"), "eu"),
        office("kiosk", Some("store"), "eu-kiosk"),
        office("depot", Some("central"), "us"),
    ])
    .unwrap()
}

pub(super) fn decide(distributions: Vec<Distribution>, ingested: &[(&str, &[&str])], now_second: i64) -> Rollout {
    decide_settled(distributions, ingested, now_second, &Settled::new())
}

pub(super) fn decide_settled(
    distributions: Vec<Distribution>,
    ingested: &[(&str, &[&str])],
    now_second: i64,
    settled: &Settled,
) -> Rollout {
    let distributions = distributions.into_iter().map(|one| (one.key.clone(), one)).collect();
    let ingested = ingested
        .iter()
        .map(|(name, versions)| (key(name), versions.iter().map(|text| version(text)).collect()))
        .collect();
    decide_rollout(RolloutInput {
        distributions: &distributions,
        ingested: &ingested,
        tree: &tree(),
        settled,
        now: at(now_second),
    })
}

/// `name version holding -> children` for every package of an office.
fn plan_of(rollout: &Rollout, office: &str) -> Vec<String> {
    let (tree, office) = (tree(), office_name(office));
    let line = |package: &OfficePackage| {
        let children =
            (0..).zip(tree.children_of(&office)).filter(|(place, _)| package.granted_children.contains(*place));
        let children: Vec<&str> = children.map(|(_, child)| child.as_str()).collect();
        let paused = if package.paused { " paused" } else { "" };
        let PackageKey { distribution, version } = &package.package;
        format!("{} {version} {:?}{paused} -> {}", distribution.name, package.holding, children.join(","))
    };
    rollout.offices[&office].iter().map(line).collect()
}

#[test]
fn targets_publish_and_offices_on_the_way_pass_on() {
    let rollout = decide(vec![for_region("eu-kiosk", distribution("app", "1"))], &[("app", &["1"])], 0);
    assert_eq!(plan_of(&rollout, "central"), ["app 1 Transit -> store"]);
    assert_eq!(plan_of(&rollout, "store"), ["app 1 Transit -> kiosk"]);
    assert_eq!(plan_of(&rollout, "kiosk"), ["app 1 Target -> "]);
    assert!(plan_of(&rollout, "depot").is_empty());
    assert_eq!(rollout.report[&key("app")].decision, RolloutDecision::Distributes);
}

#[test]
fn a_version_is_ingested_before_any_office_hears_of_it() {
    let rollout = decide(vec![distribution("app", "2")], &[("app", &["1"])], 0);
    assert_eq!(rollout.ingest, [distribution("app", "2").package()]);
    assert_eq!(plan_of(&rollout, "depot"), ["app 1 Target -> "]);
    assert_eq!(rollout.report[&key("app")].decision, RolloutDecision::WaitsForIngest);
    let first = decide(vec![distribution("app", "2")], &[], 0);
    assert!(plan_of(&first, "depot").is_empty());
}

#[test]
fn nothing_moves_before_the_schedule_and_the_version_before_stays() {
    let scheduled = Distribution { not_before: Some(at(100)), ..distribution("app", "2") };
    let later = Distribution { not_before: Some(at(200)), ..distribution("tool", "1") };
    let early = decide(vec![scheduled.clone(), later], &[("app", &["1"])], 99);
    assert!(early.ingest.is_empty());
    assert_eq!(early.look_again_at, Some(at(100)));
    assert_eq!(plan_of(&early, "store"), ["app 1 Target -> kiosk"]);
    let due = decide(vec![scheduled.clone()], &[("app", &["1"])], 100);
    assert_eq!(due.ingest, [scheduled.package()]);
    assert_eq!(due.look_again_at, None);
}

#[test]
fn a_version_in_force_stays_when_its_schedule_moves_into_the_future() {
    let rescheduled = Distribution { not_before: Some(at(100)), ..distribution("app", "2") };
    let rollout = decide(vec![rescheduled], &[("app", &["1", "2"])], 0);
    assert_eq!(plan_of(&rollout, "depot"), ["app 2 Target -> "]);
}

#[test]
fn paused_distributions_keep_their_place_and_ingest_nothing() {
    let paused = Distribution { paused: true, ..distribution("app", "1") };
    assert!(decide(vec![paused.clone()], &[], 0).ingest.is_empty());
    let rollout = decide(vec![paused], &[("app", &["1"])], 0);
    assert_eq!(plan_of(&rollout, "depot"), ["app 1 Target paused -> "]);
    assert_eq!(rollout.report[&key("app")].decision, RolloutDecision::Paused);
}

#[test]
fn urgent_packages_come_first_and_equals_by_name() {
    let with = |name, priority| Distribution { priority, ..distribution(name, "1") };
    let wanted = vec![
        with("a", Priority::Low),
        with("b", Priority::Normal),
        with("c", Priority::High),
        with("d", Priority::Normal),
    ];
    let order = |packages: &[PackageKey]| -> Vec<String> {
        packages.iter().map(|package| package.distribution.name.to_string()).collect()
    };
    assert_eq!(order(&decide(wanted.clone(), &[], 0).ingest), ["c", "b", "d", "a"]);
    let all: [(&str, &[&str]); 4] = [("a", &["1"]), ("b", &["1"]), ("c", &["1"]), ("d", &["1"])];
    let rollout = decide(wanted, &all, 0);
    let planned: Vec<PackageKey> =
        rollout.offices[&office_name("depot")].iter().map(|planned| planned.package.clone()).collect();
    assert_eq!(order(&planned), ["c", "b", "d", "a"]);
}

#[test]
fn a_rollback_distributes_the_older_version_again_without_ingest() {
    let rollout = decide(vec![distribution("app", "1")], &[("app", &["1", "2"])], 0);
    assert!(rollout.ingest.is_empty());
    assert_eq!(plan_of(&rollout, "depot"), ["app 1 Target -> "]);
}

#[test]
fn a_selector_without_office_fetches_nothing() {
    let rollout = decide(vec![for_region("mars", distribution("app", "1"))], &[], 0);
    assert!(rollout.ingest.is_empty());
    assert_eq!(rollout.report[&key("app")].decision, RolloutDecision::NoOfficeSelected);
}

#[test]
fn a_deleted_distribution_leaves_every_plan() {
    let rollout = decide(vec![], &[("app", &["1"])], 0);
    assert!(rollout.offices.values().all(Vec::is_empty));
    assert_eq!(rollout.offices.len(), tree().len());
}

#[test]
fn content_of_a_version_changes_only_with_the_version() {
    let older = distribution("app", "1");
    let other = PackageSource { uri: SourceUri::File("/other".into()), digest: None, secret: None };
    let moved = Distribution { source: other, ..older.clone() };
    let error = moved.check_replaces(&older).unwrap_err();
    assert_eq!(error.field, "spec.source.uri");
    assert!(Distribution { version: version("2"), ..moved }.check_replaces(&older).is_ok());
    assert!(Distribution { paused: true, priority: Priority::High, ..older.clone() }.check_replaces(&older).is_ok());
    let secret = Some(SecretName::new("credentials").unwrap());
    let asked_otherwise = PackageSource { secret, ..older.source.clone() };
    assert!(Distribution { source: asked_otherwise, ..older.clone() }.check_replaces(&older).is_ok());
    assert_eq!(
        Distribution { unpack: Unpack::Auto, ..older.clone() }.check_replaces(&older).unwrap_err().field,
        "spec.unpack"
    );
}

fn any_distribution(name: &'static str) -> impl Strategy<Value = Distribution> {
    let region = proptest::option::of(proptest::sample::select(vec!["hq", "eu", "eu-kiosk", "us", "mars"]));
    let not_before = proptest::option::of((0_i64..100).prop_map(at));
    (region, not_before, any::<bool>(), 1_u32..4).prop_map(move |(region, not_before, paused, wanted)| {
        let one = Distribution { not_before, paused, ..distribution(name, &wanted.to_string()) };
        match region {
            Some(region) => for_region(region, one),
            None => one,
        }
    })
}

proptest! {
    #[test]
    fn plans_hold_together(
        first in any_distribution("a"),
        second in any_distribution("b"),
        versions in proptest::collection::vec(1_u32..4, 0..3),
        now in 0_i64..100,
    ) {
        let mut texts: Vec<String> = versions.iter().map(u32::to_string).collect();
        texts.dedup();
        let ingested: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rollout = decide(vec![first.clone(), second.clone()], &[("a", &ingested), ("b", &ingested)], now);
        let tree = tree();
        for (office, packages) in &rollout.offices {
            for package in packages {
                // Whoever holds a package may ask its parent for it, up to the Central Office.
                if let Some(parent) = tree.parent_of(office) {
                    let place = tree.children_of(parent).position(|child| child == office).unwrap();
                    let granted = rollout.offices[parent]
                        .iter()
                        .any(|above| above.package == package.package && above.granted_children.contains(place));
                    prop_assert!(granted, "{office} is not granted {}", package.package);
                }
                // Only what the server has whole is planned.
                prop_assert!(ingested.contains(&package.package.version.as_str()));
            }
        }
        // An office holds or awaits whatever selects it: nothing that is meant for it is evicted.
        for (key, report) in &rollout.report {
            for office in report.targets.iter().chain(&report.transit) {
                let holds = rollout.offices[office].iter().any(|package| package.package.distribution == *key);
                let awaits = rollout.awaited.get(office).into_iter().flatten().any(|package| package.distribution == *key);
                prop_assert!(holds != awaits, "{office} holds {holds}, awaits {awaits}: {key}");
            }
        }
        prop_assert!(rollout.look_again_at.is_none_or(|moment| moment > at(now)));
        for wanted in [&first, &second] {
            let early = wanted.not_before.is_some_and(|moment| at(now) < moment);
            prop_assert!(!(early || wanted.paused) || !rollout.ingest.contains(&wanted.package()));
        }
    }
}
