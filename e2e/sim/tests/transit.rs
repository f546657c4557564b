//! Offices that only pass a package on: how long they hold it, and what it costs when somebody needs it from them again.

use std::time::Duration;

use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::office::OfficeType;
use peerdist_e2e_sim::check::run_and_check;
use peerdist_e2e_sim::scenario::{Operation, Scenario, office};
use peerdist_e2e_sim::world::World;

const SEEDS: std::ops::Range<u64> = 0..8;
/// After so long everything that was going to be deleted is.
const SETTLE: Duration = Duration::from_secs(40);
/// Bytes over a link for each byte of a package, in thousandths.
const WAN_MILLI_MAX: u64 = 1_005;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn name(text: &str) -> OfficeName {
    OfficeName::new(text).expect("office names written here are valid")
}

fn holds(scenario: &Scenario) -> World {
    run_and_check(scenario).unwrap_or_else(|faults| panic!("seed {}: {faults}", scenario.seed))
}

/// Digest and size of the only package.
fn package(scenario: &Scenario) -> (Digest, u64) {
    let content = scenario.catalog.all().next().expect("there is a package");
    (content.digest, content.bytes())
}

/// A fleet in which everything is complete and what is not needed is deleted.
fn settled(scenario: &Scenario) -> World {
    let mut world = World::new(scenario);
    complete(&mut world, scenario);
    world
}

fn complete(world: &mut World, scenario: &Scenario) {
    let done = world.run_until_complete(world.now() + scenario.deadline);
    assert!(done, "seed {}: {:#?}", scenario.seed, world.incomplete());
    world.run_for(SETTLE);
}

fn assert_nothing_is_left(world: &World, scenario: &Scenario) {
    for office in ["central", "between"] {
        let holders = world.holders(&name(office), package(scenario).0);
        assert_eq!(holders, Vec::<NodeName>::new(), "{office}, seed {}", scenario.seed);
    }
}

#[test]
fn transit_copies_go_when_everything_below_is_complete() {
    for seed in SEEDS {
        let scenario = Scenario::with_transit(seed);
        let (digest, bytes) = package(&scenario);
        let mut world = World::new(&scenario);
        world.run_for(seconds(4));
        assert!(!world.holders(&name("between"), digest).is_empty(), "it is on its way");
        complete(&mut world, &scenario);
        assert_nothing_is_left(&world, &scenario);
        assert_eq!(world.measures().wan_bytes_of(&name("between"), digest), bytes);
        holds(&scenario);
    }
}

#[test]
fn node_that_comes_after_the_transit_copies_went_is_served_inside_its_office() {
    for seed in SEEDS {
        let scenario = Scenario::with_transit(seed);
        let digest = package(&scenario).0;
        let mut world = settled(&scenario);
        let over_links =
            |world: &World| ["between", "leafs"].map(|to| world.measures().wan_bytes_of(&name(to), digest));
        let before = over_links(&world);
        world.operate(Operation::AddNode(name("leafs")));
        complete(&mut world, &scenario);
        assert_eq!(world.holders(&name("leafs"), digest).len(), 4);
        assert_eq!(over_links(&world), before, "seed {seed}");
        assert_nothing_is_left(&world, &scenario);
    }
}

#[test]
fn office_that_comes_after_the_transit_copies_went_gets_the_package_over_the_same_way() {
    for seed in SEEDS {
        let scenario = Scenario::with_transit(seed);
        let (digest, bytes) = package(&scenario);
        let mut world = settled(&scenario);
        let came = |world: &World, to: &str| world.measures().wan_bytes_of(&name(to), digest);
        let before = came(&world, "leafs");
        let later = office("later", Some("between"), OfficeType::Wired, 2);
        assert_eq!(later.office.labels, scenario.offices[2].office.labels, "it is a target");
        world.operate(Operation::AddOffice(later.clone()));
        complete(&mut world, &scenario);
        assert_eq!(came(&world, "leafs"), before, "seed {seed}");
        assert_nothing_is_left(&world, &scenario);
        let most = bytes * WAN_MILLI_MAX / 1000;
        let (to_later, to_between) = (came(&world, "later"), came(&world, "between"));
        assert!(to_later <= most && to_between <= 2 * most, "seed {seed}: {to_later}, {to_between} of {bytes}");
        holds(&scenario.then(seconds(60), Operation::AddOffice(later)));
    }
}

#[test]
fn next_node_of_a_vpn_office_gets_the_package_from_what_was_kept_for_it() {
    for seed in SEEDS {
        let mut scenario = Scenario::with_transit(seed);
        scenario.offices[2].office.office_type = OfficeType::Vpn;
        let (digest, bytes) = package(&scenario);
        let mut world = settled(&scenario);
        world.operate(Operation::AddNode(name("leafs")));
        complete(&mut world, &scenario);
        assert_eq!(world.measures().wan_bytes_of(&name("between"), digest), bytes, "seed {seed}");
    }
}

#[test]
fn next_version_takes_the_same_way_and_leaves_nothing_on_it() {
    for seed in SEEDS {
        let scenario = Scenario::with_transit(seed).then_new_version(seconds(60), "2", 0.3);
        let world = holds(&scenario);
        for content in scenario.catalog.all() {
            for office in ["central", "between"] {
                let holders = world.holders(&name(office), content.digest);
                assert_eq!(holders, Vec::<NodeName>::new(), "{} in {office}, seed {seed}", content.key);
            }
        }
    }
}

#[test]
fn transit_copies_are_not_fetched_again_after_a_restart() {
    for seed in SEEDS {
        // A full disk keeps one node of the leafs waiting, so what passed through is needed when everything restarts.
        let last_leaf = 8;
        let scenario = Scenario::with_transit(seed)
            .then(Duration::from_millis(1), Operation::FillNode(last_leaf, Some(seconds(150))))
            .then(seconds(60), Operation::KillAll(seconds(1)));
        let (digest, bytes) = package(&scenario);
        let mut world = World::new(&scenario);
        world.run_for(seconds(120));
        assert!(!world.holders(&name("between"), digest).is_empty(), "seed {seed}: it is needed");
        let world = holds(&scenario);
        assert_eq!(world.measures().wan_bytes_of(&name("between"), digest), bytes, "seed {seed}");
        assert_nothing_is_left(&world, &scenario);
    }
}
