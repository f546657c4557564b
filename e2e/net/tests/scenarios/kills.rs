//! Any process is killed at any moment, many times: what is published is whole at every look, everything ends
//! complete, and little is received twice. The seed is printed; `PEERDIST_E2E_SEED` repeats a run's choices.

use std::time::Duration;

use anyhow::{Result, ensure};
use peerdist_core::ports::{CLIENT_BACKGROUND_CONTENT, CLIENT_FOREGROUND_CONTENT};
use peerdist_e2e_net::fleet::Fleet;
use peerdist_e2e_net::topology::{OfficeKind, Topology};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::MEBIBYTE;

/// How many processes die.
const KILLS: u32 = 50;
/// What arrives in the midst of it.
const PACKAGE_BYTES: u64 = 128 * MEBIBYTE;
/// Versions distributed one after the other, so that there is always something in flight.
const VERSIONS: u32 = 4;
/// What one death may cost its node, headers included.
const BYTES_A_KILL: u64 = 8 * MEBIBYTE;
/// What was distributed with the headers of every layer, in thousandths of it.
const WIRE_PERMILLE: u64 = 1070;
/// Slows the links so that kills hit transfers, not idle processes.
const LINK_BITS_PER_SECOND: u64 = 100_000_000;
/// Library, sources and trees of all versions.
const NEEDED_BYTES: u64 = 10 * VERSIONS as u64 * PACKAGE_BYTES;

#[test]
fn trees_are_whole_or_absent_whatever_is_killed() -> Result<()> {
    let seed = std::env::var("PEERDIST_E2E_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("PEERDIST_E2E_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let topology = Topology::central(2).with_office("store", "central", OfficeKind::Wired, 3)?.with_office(
        "kiosk",
        "store",
        OfficeKind::Wired,
        1,
    )?;
    let mut fleet = Fleet::new("kills", topology, NEEDED_BYTES)?;
    fleet.network().limit_link_into(1, LINK_BITS_PER_SECOND)?;
    fleet.network().limit_link_into(2, LINK_BITS_PER_SECOND)?;
    let mut package = fleet.distribute("app", "1", PACKAGE_BYTES)?;
    fleet.start()?;
    let mut version = 1;
    for kill in 1..=KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(50..2000)));
        kill_one(&mut fleet, &mut random)?;
        if kill % 5 == 0 {
            println!("{kill} kills, {} whole trees", fleet.look_at_every_tree()?);
        }
        if kill * VERSIONS >= version * KILLS && version < VERSIONS {
            version += 1;
            package = fleet.distribute("app", &version.to_string(), PACKAGE_BYTES)?;
        }
    }
    fleet.wait_until_complete(&package)?;
    check_received(&mut fleet, u64::from(version) * package.bytes)?;
    fleet.passed()
}

/// Kills one process and starts it again at once.
fn kill_one(fleet: &mut Fleet, random: &mut StdRng) -> Result<()> {
    let hosts = fleet.hosts();
    let name = hosts[random.random_range(0..hosts.len())].name.clone();
    let agent = fleet.agent(&name)?;
    agent.kill()?;
    agent.start()
}

/// What a node received over all its lives, against what was distributed and how often it died.
fn check_received(fleet: &mut Fleet, distributed: u64) -> Result<()> {
    for node in fleet.nodes() {
        let host = std::slice::from_ref(&node);
        let received = fleet.bytes_received(host, CLIENT_FOREGROUND_CONTENT)?
            + fleet.bytes_received(host, CLIENT_BACKGROUND_CONTENT)?;
        let kills = u64::from(fleet.agent(&node.name)?.kills());
        let limit = distributed * WIRE_PERMILLE / 1000 + kills * BYTES_A_KILL;
        println!("{}: {received} bytes received, {kills} kills, at most {limit}", node.name);
        ensure!(received <= limit, "{}: {received} bytes received after {kills} kills, more than {limit}", node.name);
    }
    Ok(())
}
