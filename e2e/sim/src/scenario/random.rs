//! Runs at random, each from its seed.

use std::collections::BTreeSet;
use std::time::Duration;

use peerdist_core::distribution::Priority;
use peerdist_core::names::OfficeName;
use peerdist_core::office::OfficeType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Operation, Scenario, SimulatedOffice, distribution, office, package_key};
use crate::content::Content;
use crate::hostile::Lie;
use crate::network::NetworkSettings;
use crate::stalls::Slowness;

impl Scenario {
    /// One package for one office of several nodes below a Central Office of one, all on slow machines; nobody dies.
    pub fn slow_office(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x510);
        let offices = vec![
            office("central", None, OfficeType::Wired, 1),
            office("store", Some("central"), OfficeType::Wired, rng.random_range(4..=12)),
        ];
        let mut scenario = Self::quiet(seed, offices).with_package("package", 32 << 20, 64 << 10);
        let run_max = Duration::from_millis(rng.random_range(50..300));
        let stall_max = Duration::from_millis(rng.random_range(1_000..5_000));
        scenario.slowness = Some(Slowness { run_max, stall_max });
        scenario
    }

    /// The random run of the same seed, and disks that fill up in it.
    pub fn random_with_full_disks(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xd15c);
        let scenario = Self::random(seed);
        let operations = random_full_disks(&scenario, &mut rng);
        operations.into_iter().fold(scenario, |scenario, (at, operation)| scenario.then(at, operation))
    }

    /// The random run of the same seed, and members that lie about what they have.
    pub fn random_with_liars(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x11a5);
        let scenario = Self::random(seed);
        let of_several = scenario.offices.iter().filter(|simulated| simulated.nodes > 1);
        let shared = of_several.filter(|simulated| simulated.office.office_type.shares());
        let offices: Vec<OfficeName> = shared.map(|simulated| simulated.office.name.clone()).collect();
        offices.into_iter().fold(scenario, |scenario, office| {
            let at = Duration::from_millis(rng.random_range(100..10_000));
            let lie = Lie::OF_HOLDERS[rng.random_range(0..Lie::OF_HOLDERS.len())];
            scenario.then(at, Operation::MemberLies(office, lie))
        })
    }

    /// A run at random: one to four levels, offices of every type, small packages, and some trouble.
    pub fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let offices = random_tree(&mut rng);
        let mut scenario = Self::quiet(seed, offices);
        scenario.network = random_network(&mut rng);
        for number in 0..rng.random_range(1..=2) {
            let chunk_bytes = 1_u32 << rng.random_range(16..=20);
            let bytes = u64::from(chunk_bytes) * rng.random_range(20..=120);
            let name = format!("package-{number}");
            let content = Content::new(package_key(&name, "1"), bytes, chunk_bytes, &mut rng);
            let group = rng.random_bool(0.4).then(|| rng.random_range(0..2));
            scenario.distributions.push(distribution(&content.key, group));
            scenario.catalog.add(content);
        }
        if rng.random_bool(0.7) {
            for _ in 0..rng.random_range(1..=4) {
                let at = Duration::from_millis(rng.random_range(1_000..40_000));
                if let Some(operation) = random_operation(&mut scenario, &mut rng) {
                    scenario = scenario.then(at, operation);
                }
            }
        }
        scenario
    }
}

/// Disks that fill up for a while, or for good where another node of the office has the space.
fn random_full_disks(scenario: &Scenario, rng: &mut StdRng) -> Vec<(Duration, Operation)> {
    let nodes: usize = scenario.offices.iter().map(|office| office.nodes).sum();
    let mut full_for_good = BTreeSet::new();
    let mut operations = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        let at = Duration::from_millis(rng.random_range(500..20_000));
        let pause = Duration::from_millis(rng.random_range(1_000..60_000));
        let office = &scenario.offices[rng.random_range(0..scenario.offices.len())];
        let name = office.office.name.clone();
        operations.push(match rng.random_range(0..3) {
            0 => (at, Operation::FillNode(rng.random_range(0..nodes), Some(pause))),
            1 if office.nodes > 1 && full_for_good.insert(name.clone()) => {
                (at, Operation::FillRendezvousPoint(name, None))
            }
            _ => (at, Operation::FillRendezvousPoint(name, Some(pause))),
        });
    }
    operations
}

fn random_tree(rng: &mut StdRng) -> Vec<SimulatedOffice> {
    let kind = |rng: &mut StdRng| if rng.random_bool(0.3) { OfficeType::WiFi } else { OfficeType::Wired };
    let mut offices = vec![office("central", None, kind(rng), rng.random_range(1..=8))];
    let mut above = vec!["central".to_owned()];
    for level in 1..rng.random_range(1..=4) {
        let mut here = Vec::new();
        for number in 0..rng.random_range(1..=2) {
            let parent = above[rng.random_range(0..above.len())].clone();
            // Names of different length fall into different groups.
            let name = format!("store-{level}{number}{}", "x".repeat(rng.random_range(0..2)));
            let vpn = rng.random_bool(0.2);
            let office_type = if vpn { OfficeType::Vpn } else { kind(rng) };
            offices.push(office(&name, Some(&parent), office_type, rng.random_range(1..=5)));
            if !vpn {
                here.push(name);
            }
        }
        if here.is_empty() {
            break;
        }
        above = here;
    }
    offices
}

fn random_network(rng: &mut StdRng) -> NetworkSettings {
    NetworkSettings {
        lan_delay: Duration::from_micros(rng.random_range(50..2_000)),
        wan_delay: Duration::from_millis(rng.random_range(1..60)),
        lan_bytes_per_second: Some(rng.random_range(10..125) * 1_000_000),
        wan_bytes_per_second: Some(rng.random_range(500..40_000) * 1_000),
        loss: if rng.random_bool(0.3) { rng.random_range(0.0..0.03) } else { 0.0 },
    }
}

fn random_operation(scenario: &mut Scenario, rng: &mut StdRng) -> Option<Operation> {
    let pause = Duration::from_millis(rng.random_range(200..15_000));
    let nodes: usize = scenario.offices.iter().map(|office| office.nodes).sum();
    let at_random = rng.random_range(0..scenario.distributions.len());
    let mut edited = scenario.distributions[at_random].clone();
    edited.generation += 1;
    Some(match rng.random_range(0..10) {
        0..=2 => {
            let office = &scenario.offices[rng.random_range(0..scenario.offices.len())];
            Operation::KillRendezvousPoint(office.office.name.clone(), pause)
        }
        3 => Operation::KillNode(rng.random_range(0..nodes), pause),
        4 => Operation::KillServer(pause),
        5 => Operation::KillAll(pause),
        6..=7 => {
            let newest = scenario.catalog.versions_of(&edited.key).last()?.clone();
            let version = format!("{}", scenario.catalog.versions_of(&edited.key).count() + 1);
            let content = newest.next_version(&version, rng.random_range(0.1..1.0), rng);
            edited.version = content.key.version.clone();
            scenario.catalog.add(content);
            Operation::Edit(edited)
        }
        8 => {
            edited.retention_versions = rng.random_range(1..=3);
            edited.priority = Priority::High;
            Operation::Edit(edited)
        }
        _ => {
            let name = format!("late-{}", "x".repeat(rng.random_range(1..4)));
            if scenario.operations.iter().any(|(_, other)| matches!(other, Operation::AddOffice(_))) {
                return None;
            }
            Operation::AddOffice(office(&name, Some("central"), OfficeType::Wired, rng.random_range(1..=3)))
        }
    })
}
