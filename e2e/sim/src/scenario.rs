//! What a run is about: the tree, the packages, the networks, and what happens to them and when. Made by hand, or at
//! random from a seed.

use std::collections::BTreeSet;
use std::time::Duration;

use peerdist_core::distribution::{Distribution, OfficeSelector, PackageSource, Priority, SourceUri, Unpack};
use peerdist_core::names::{DistributionKey, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};
use peerdist_core::office::{Office, OfficeType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::content::{Catalog, Content};
use crate::hostile::Lie;
use crate::network::NetworkSettings;
use crate::stalls::Slowness;

/// Label by which distributions choose offices here.
const LABEL: &str = "group";

/// An office and how many nodes it has.
#[derive(Debug, Clone)]
pub struct SimulatedOffice {
    /// The office.
    pub office: Office,
    /// Its nodes.
    pub nodes: usize,
}

/// Something that is done to the fleet.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Kill whoever is the rendezvous point of the office; it comes back after the pause.
    KillRendezvousPoint(OfficeName, Duration),
    /// Kill the node with this number, counted over all; it comes back after the pause.
    KillNode(usize, Duration),
    /// Kill the server; it comes back after the pause.
    KillServer(Duration),
    /// Kill everything; it comes back after the pause.
    KillAll(Duration),
    /// Fill the disk of whoever is the rendezvous point of the office; it is freed after the pause, if there is one.
    FillRendezvousPoint(OfficeName, Option<Duration>),
    /// Fill the disk of the node with this number, counted over all; it is freed after the pause, if there is one.
    FillNode(usize, Option<Duration>),
    /// Free the disk of a node.
    FreeDisk(NodeName),
    /// A member of the office that does not lead begins to lie.
    MemberLies(OfficeName, Lie),
    /// The rendezvous point of the office begins to lie.
    RendezvousPointLies(OfficeName, Lie),
    /// Change a distribution.
    Edit(Distribution),
    /// Delete a distribution.
    Remove(DistributionKey),
    /// Add an office with its nodes.
    AddOffice(SimulatedOffice),
}

impl Operation {
    /// Whether a process dies, or does not go on as before because its disk is full or because it lies.
    pub fn is_kill(&self) -> bool {
        !matches!(self, Self::Edit(_) | Self::Remove(_) | Self::AddOffice(_) | Self::FreeDisk(_))
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Everything random in the run comes from it.
    pub seed: u64,
    /// The offices at the start.
    pub offices: Vec<SimulatedOffice>,
    /// Every version that occurs.
    pub catalog: Catalog,
    /// The distributions at the start.
    pub distributions: Vec<Distribution>,
    /// The networks.
    pub network: NetworkSettings,
    /// How slow the machines are, if they are.
    pub slowness: Option<Slowness>,
    /// What happens, by time since the start.
    pub operations: Vec<(Duration, Operation)>,
    /// How long an old version stays after it stopped being current.
    pub retention_seconds: u64,
    /// When it must be done at the latest.
    pub deadline: Duration,
}

impl Scenario {
    /// A fleet without surprises: a quiet network and nothing to distribute yet.
    pub fn quiet(seed: u64, offices: Vec<SimulatedOffice>) -> Self {
        Self {
            seed,
            offices,
            catalog: Catalog::default(),
            distributions: Vec::new(),
            network: NetworkSettings {
                lan_delay: Duration::from_micros(200),
                wan_delay: Duration::from_millis(10),
                lan_bytes_per_second: Some(125_000_000),
                wan_bytes_per_second: Some(12_500_000),
                loss: 0.0,
            },
            slowness: None,
            operations: Vec::new(),
            retention_seconds: 5,
            deadline: Duration::from_secs(3_600),
        }
    }

    /// Adds the first version of a package for all offices. Returns its content.
    pub fn with_package(mut self, name: &str, bytes: u64, chunk_bytes_average: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x5eed);
        let content = Content::new(package_key(name, "1"), bytes, chunk_bytes_average, &mut rng);
        self.distributions.push(distribution(&content.key, None));
        self.catalog.add(content);
        self
    }

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

    /// Adds something that happens.
    pub fn then(mut self, at: Duration, operation: Operation) -> Self {
        self.operations.push((at, operation));
        self.operations.sort_by_key(|(at, _)| *at);
        self
    }

    /// Adds a next version of the first package, edited in at that time.
    pub fn then_new_version(mut self, at: Duration, version: &str, changed_share: f64) -> Self {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xed17);
        let mut edited = self.distributions[0].clone();
        let newest = self.catalog.versions_of(&edited.key).last().expect("a package was added before").clone();
        let content = newest.next_version(version, changed_share, &mut rng);
        edited.version = content.key.version.clone();
        self.catalog.add(content);
        self.then(at, Operation::Edit(edited))
    }

    /// How many processes die or give up in the run, all together.
    pub fn kills(&self) -> u64 {
        let nodes: usize = self.offices.iter().map(|office| office.nodes).sum();
        let of = |operation: &Operation| match operation {
            Operation::KillAll(_) => nodes as u64 + 1,
            operation => u64::from(operation.is_kill()),
        };
        self.operations.iter().map(|(_, operation)| of(operation)).sum()
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

/// An office by its words.
pub fn office(name: &str, parent: Option<&str>, office_type: OfficeType, nodes: usize) -> SimulatedOffice {
    let name_of = |text: &str| OfficeName::new(text).expect("office names made here are valid");
    let group = name.len() % 2;
    SimulatedOffice {
        office: Office {
            name: name_of(name),
            parent: parent.map(name_of),
            office_type,
            labels: [(LABEL.to_owned(), group.to_string())].into(),
            storage_limit_bytes: None,
            background_bits_per_second_max: None,
        },
        nodes,
    }
}

/// Names of a package.
pub fn package_key(name: &str, version: &str) -> PackageKey {
    PackageKey {
        distribution: DistributionKey {
            namespace: Namespace::new("simulated").expect("a valid name"),
            name: PackageName::new(name).expect("package names made here are valid"),
        },
        version: Version::new(version).expect("versions made here are valid"),
    }
}

/// A distribution of a package to all offices, or to one group of them.
pub fn distribution(key: &PackageKey, group: Option<u32>) -> Distribution {
    let match_labels = group.map(|group| (LABEL.to_owned(), group.to_string())).into_iter().collect();
    Distribution {
        key: key.distribution.clone(),
        version: key.version.clone(),
        source: PackageSource { uri: SourceUri::Http("http://origin/package".to_owned()), digest: None },
        unpack: Unpack::None,
        offices: OfficeSelector { match_labels },
        priority: Priority::Normal,
        not_before: None,
        paused: false,
        retention_versions: 1,
        generation: 1,
    }
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
