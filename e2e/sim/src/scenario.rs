//! What a run is about: the tree, the packages, the networks, and what happens to them and when. Made by hand, or at
//! random from a seed ([`random`]).

mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use peerdist_core::distribution::{Distribution, OfficeSelector, PackageSource, Priority, SourceUri, Unpack};
use peerdist_core::names::{DistributionKey, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};
use peerdist_core::office::{Office, OfficeType};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::content::{Catalog, Content};
use crate::hostile::Lie;
use crate::network::NetworkSettings;
use crate::stalls::Slowness;

/// Label by which distributions choose offices here.
const LABEL: &str = "group";
/// The group of the offices that publish the package, and that of the others, where only one is a target.
const TARGETS: u32 = 1;
const OTHERS: u32 = 0;

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
    /// Add a node with an empty disk to the office.
    AddNode(OfficeName),
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

    /// Three levels of which only the lowest, `leafs`, is a target: `central` and `between` pass the package on.
    pub fn with_transit(seed: u64) -> Self {
        let offices = vec![
            office("central", None, OfficeType::Wired, 3),
            office("between", Some("central"), OfficeType::Wired, 3),
            office("leafs", Some("between"), OfficeType::WiFi, 3),
        ];
        let mut scenario = Self::quiet(seed, offices).with_package("package", 64 << 20, 256 << 10);
        scenario.distributions[0] = distribution(&scenario.distributions[0].package(), Some(TARGETS));
        for simulated in &mut scenario.offices {
            let is_target = simulated.office.name.as_str() == "leafs";
            simulated.office.labels = labels(if is_target { TARGETS } else { OTHERS });
        }
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
}

/// An office by its words.
pub fn office(name: &str, parent: Option<&str>, office_type: OfficeType, nodes: usize) -> SimulatedOffice {
    let name_of = |text: &str| OfficeName::new(text).expect("office names made here are valid");
    let group = name.len() as u32 % 2;
    SimulatedOffice {
        office: Office {
            name: name_of(name),
            parent: parent.map(name_of),
            office_type,
            labels: labels(group),
            storage_limit_bytes: None,
            background_bits_per_second_max: None,
        },
        nodes,
    }
}

fn labels(group: u32) -> BTreeMap<String, String> {
    [(LABEL.to_owned(), group.to_string())].into()
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
    let match_labels = group.map(labels).unwrap_or_default();
    Distribution {
        key: key.distribution.clone(),
        version: key.version.clone(),
        source: PackageSource { uri: SourceUri::Http("http://origin/package".to_owned()), digest: None, secret: None },
        unpack: Unpack::None,
        offices: OfficeSelector { match_labels },
        priority: Priority::Normal,
        not_before: None,
        paused: false,
        retention_versions: 1,
        generation: 1,
    }
}
