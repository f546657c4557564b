//! What must hold after a run, as sentences about what does not.

use std::collections::BTreeSet;

use std::time::Duration;

use peerdist_core::digest::Digest;
use peerdist_core::names::{DistributionKey, OfficeName};
use peerdist_core::office::OfficeType;

use crate::content::Content;
use crate::scenario::{Operation, Scenario};
use crate::world::World;

/// Bytes over a link for each byte of a package, in thousandths, as long as nobody dies.
const WAN_MILLI_MAX: u64 = 1_005;
/// What the death of a process may cost more.
const KILL_COST_BYTES: u64 = 4 << 20;
/// What it may cost where no second node has a chunk (one node, VPN, transit): what was in flight, and what the next
/// flush would have made safe.
const KILL_COST_ALONE_BYTES: u64 = KILL_COST_BYTES + (8 << 20);
/// Bytes of the server for each byte of a package, in thousandths.
const SERVER_MILLI_MAX: u64 = 1_050;
/// Most actions of a node in a second without content.
const IDLE_ACTIONS_MAX: u64 = 100;
/// Most outputs of a machine at once for each node.
const OUTPUTS_MAX: usize = 512;
/// Most transfers that a node may expect at once.
const TRANSFERS_MAX: usize = 256;
/// How long the fleet is watched after it was complete.
const SETTLE: Duration = Duration::from_secs(40);

/// Runs a scenario to its end, restarts everything, and says what did not hold.
///
/// # Errors
/// Sentences about what did not hold, one a line.
pub fn run_and_check(scenario: &Scenario) -> Result<World, String> {
    let mut world = World::new(scenario);
    if !world.run_until_complete(scenario.deadline) {
        return Err(format!("not complete after {:?}: {:#?}", world.now(), world.incomplete()));
    }
    world.end_slowness();
    world.run_for(SETTLE);
    let mut faults = faults_of(&world, scenario);
    let before = world.measures().content_bytes();
    world.operate(Operation::KillAll(Duration::from_secs(1)));
    world.run_for(SETTLE);
    let refetched = world.measures().content_bytes() - before;
    if refetched > 0 {
        faults.push(format!("a restart of everything moved {refetched} content bytes"));
    }
    if !world.is_complete() {
        faults.push(format!("not complete after a restart of everything: {:#?}", world.incomplete()));
    }
    if faults.is_empty() { Ok(world) } else { Err(faults.join("\n")) }
}

fn faults_of(world: &World, scenario: &Scenario) -> Vec<String> {
    let mut faults = link_faults(world, scenario);
    faults.extend(tree_faults(world));
    let measures = world.measures();
    if measures.most_idle_actions() > IDLE_ACTIONS_MAX {
        faults.push(format!("{} actions a node in a second without content", measures.most_idle_actions()));
    }
    let outputs_max = OUTPUTS_MAX * world.clients.len();
    if measures.most_outputs() > outputs_max {
        faults.push(format!("{} outputs at once, expected at most {outputs_max}", measures.most_outputs()));
    }
    if measures.most_transfers() > TRANSFERS_MAX {
        faults.push(format!("{} transfers expected at once by one node", measures.most_transfers()));
    }
    faults
}

fn link_faults(world: &World, scenario: &Scenario) -> Vec<String> {
    let kills = scenario.kills();
    let mut faults = Vec::new();
    for content in world.catalog.all() {
        for simulated in world.offices.values() {
            let name = &simulated.office.name;
            let alone = honest_nodes(world, name) == 1 || !targeted(world, simulated, &content.key.distribution);
            let most = most_over_link(content, kills, alone) * times_in_force(scenario, content);
            let counts: Vec<u64> = if simulated.office.office_type == OfficeType::Vpn {
                let nodes = world.clients.values().filter(|site| site.me.office == *name);
                nodes.map(|site| world.measures().wan_bytes_of_node(name, &site.me.name, content.digest)).collect()
            } else {
                vec![world.measures().wan_bytes_of(name, content.digest)]
            };
            let most = if simulated.office.office_type == OfficeType::Vpn {
                most_over_link(content, kills, true) * times_in_force(scenario, content)
            } else {
                most
            };
            for bytes in counts.into_iter().filter(|bytes| *bytes > most) {
                faults.push(format!(
                    "{bytes} bytes of {} ({} bytes) over the link into {name}, expected at most {most}",
                    content.key,
                    content.bytes()
                ));
            }
        }
        let once = content.bytes() * SERVER_MILLI_MAX / 1000 + kills * KILL_COST_ALONE_BYTES;
        let most = once * times_in_force(scenario, content);
        let sent = world.measures().server_bytes_of(content.digest);
        if sent > most {
            faults.push(format!("the server sent {sent} bytes of {}, expected at most {most}", content.key));
        }
    }
    faults
}

/// How often a version becomes the wanted one: retention may have deleted it in between.
fn times_in_force(scenario: &Scenario, content: &Content) -> u64 {
    let at_start = scenario.distributions.iter().filter(|distribution| distribution.package() == content.key).count();
    let (mut times, mut in_force) = (at_start as u64, at_start > 0);
    for (_, operation) in &scenario.operations {
        if let Operation::Edit(edited) = operation
            && edited.key == content.key.distribution
        {
            let wanted = edited.package() == content.key;
            times += u64::from(wanted && !in_force);
            in_force = wanted;
        }
    }
    times.max(1)
}

fn most_over_link(content: &Content, kills: u64, alone: bool) -> u64 {
    let for_kills = kills * if alone { KILL_COST_ALONE_BYTES } else { KILL_COST_BYTES };
    if kills == 0 { content.bytes() * WAN_MILLI_MAX / 1000 } else { content.bytes() + for_kills }
}

fn honest_nodes(world: &World, office: &OfficeName) -> usize {
    world.clients.values().filter(|site| site.me.office == *office && site.lie.is_none()).count()
}

fn targeted(world: &World, simulated: &crate::scenario::SimulatedOffice, key: &DistributionKey) -> bool {
    world.distributions.get(key).is_some_and(|distribution| distribution.offices.matches(&simulated.office))
}

/// Trees hold what the objects say, and old versions only as many as retention allows.
fn tree_faults(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    for site in world.clients.values().filter(|site| site.lie.is_none()) {
        let Some(simulated) = world.offices.get(&site.me.office) else { continue };
        for (digest, package) in site.store.packages() {
            let distribution = &package.key.distribution;
            let wanted = world.distributions.get(distribution);
            let fault = match wanted {
                None => Some("is left although its distribution is gone"),
                Some(_) if !targeted(world, simulated, distribution) && package.published => {
                    Some("is published in an office that is no target")
                }
                Some(wanted) if wanted.version != package.key.version && package.current && !site.store.is_full() => {
                    Some("is current although another version is wanted")
                }
                _ => None,
            };
            if let Some(fault) = fault {
                faults.push(format!("{} on {} {fault} ({digest})", package.key, site.me.name));
            }
        }
        for (key, wanted) in &world.distributions {
            let published: BTreeSet<Digest> = site
                .store
                .packages()
                .filter(|(_, package)| package.published && package.key.distribution == *key)
                .map(|(&digest, _)| digest)
                .collect();
            // Without space for the wanted version the last good ones stay.
            if published.len() > wanted.retention_versions as usize && !site.store.is_full() {
                let count = published.len();
                faults.push(format!(
                    "{count} versions of {key} on {}, retention keeps {}",
                    site.me.name, wanted.retention_versions
                ));
            }
        }
    }
    faults
}
