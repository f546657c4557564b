//! How much virtual time the protocol itself needs: a package through a chain of offices in a fleet that runs already,
//! over networks without delay and without limit, or over a link of a known rate.

use std::time::Duration;

use peerdist_core::office::OfficeType;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::content::Content;
use crate::network::NetworkSettings;
use crate::scenario::{Operation, Scenario, SimulatedOffice, distribution, office, package_key};
use crate::world::World;

/// How long the fleet runs before the package is wanted.
const WARM_UP: Duration = Duration::from_secs(10);

/// A measured run.
#[derive(Debug, Clone)]
pub struct Pace {
    /// From the edit of the objects to the last node's publication.
    pub time: Duration,
    /// Messages that were sent in that time.
    pub messages: u64,
}

/// A chain of offices: the Central Office and so many levels below, each with so many nodes.
pub fn chain(levels: usize, nodes: usize) -> Vec<SimulatedOffice> {
    let mut offices = vec![office("central", None, OfficeType::Wired, nodes)];
    for level in 1..levels {
        let parent = offices.last().map(|above| above.office.name.to_string());
        offices.push(office(&format!("level-{level}"), parent.as_deref(), OfficeType::Wired, nodes));
    }
    offices
}

/// Networks without delay and limit.
pub fn no_network() -> NetworkSettings {
    NetworkSettings {
        lan_delay: Duration::ZERO,
        wan_delay: Duration::ZERO,
        lan_bytes_per_second: None,
        wan_bytes_per_second: None,
        loss: 0.0,
    }
}

/// A link of 1 Gbit/s with a round trip of 20 ms, and offices on 10 Gbit/s.
pub fn long_fat_link() -> NetworkSettings {
    NetworkSettings {
        lan_delay: Duration::from_micros(100),
        wan_delay: Duration::from_millis(10),
        lan_bytes_per_second: Some(1_250_000_000),
        wan_bytes_per_second: Some(125_000_000),
        loss: 0.0,
    }
}

/// Distributes one package of that size to all nodes of a fleet that waits for it.
///
/// # Panics
/// When the fleet does not get it within an hour.
pub fn measure(offices: Vec<SimulatedOffice>, network: NetworkSettings, bytes: u64, chunk_bytes: u32) -> Pace {
    let mut rng = StdRng::seed_from_u64(1);
    let content = Content::new(package_key("package", "1"), bytes, chunk_bytes, &mut rng);
    let mut scenario = Scenario::quiet(1, offices);
    scenario.network = network;
    scenario.catalog.add(content.clone());
    let mut world = World::new(&scenario);
    world.run_for(WARM_UP);
    let (began, messages) = (world.now(), world.measures().messages());
    world.operate(Operation::Edit(distribution(&content.key, None)));
    assert!(world.run_until_complete(Duration::from_secs(3_600)), "not complete: {:#?}", world.incomplete());
    Pace { time: world.completed_at().unwrap_or_default() - began, messages: world.measures().messages() - messages }
}
