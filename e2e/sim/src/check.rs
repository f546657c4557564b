//! What must hold after a run, as sentences about what does not.

use std::collections::BTreeSet;

use std::time::Duration;

use peerdist_core::digest::Digest;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName};
use peerdist_core::office::OfficeType;

use crate::client_site::ClientSite;
use crate::content::Content;
use crate::scenario::{Operation, Scenario, SimulatedOffice};
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
    faults.extend(transit_faults(world));
    faults.extend(world.uncounted());
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
    let mut faults = Vec::new();
    for content in world.catalog.all() {
        let times = times_in_force(scenario, content);
        // Offices that only pass a package on delete it, and get it again when another target needs it later.
        let times_passed = |is_target: bool| if is_target { times } else { times + targets_added(scenario, content) };
        let lost_in = |office: &OfficeName| world.deaths().lost_in_office(office, content.digest);
        let mut look_at = |what: String, bytes: u64, most: u64| {
            if bytes > most {
                let (key, all) = (&content.key, content.bytes());
                faults.push(format!("{bytes} bytes of {key} ({all} bytes) {what}, expected at most {most}"));
            }
        };
        for simulated in world.offices.values() {
            let name = &simulated.office.name;
            if simulated.office.office_type == OfficeType::Vpn {
                for node in world.clients.values().map(|site| &site.me).filter(|me| me.office == *name) {
                    let deaths = world.deaths().of_node(node) + deaths_in_parent(world, simulated);
                    let bytes = world.measures().wan_bytes_of_node(name, &node.name, content.digest);
                    look_at(format!("to {node}"), bytes, most_over_link(world, content, deaths, true) * times);
                }
                continue;
            }
            let is_target = targeted(world, simulated, &content.key.distribution);
            let alone = honest_nodes(world, name) == 1 || !is_target;
            let deaths = world.deaths().in_office(name) + deaths_in_parent(world, simulated);
            let bytes = world.measures().wan_bytes_of(name, content.digest);
            let most = most_over_link(world, content, deaths, alone) * times_passed(is_target) + lost_in(name);
            look_at(format!("over the link into {name}"), bytes, most);
        }
        let is_honest = |node: &NodeName| world.clients.get(node).is_some_and(|site| site.lie.is_none());
        let bytes = world.measures().server_bytes_of(content.digest, is_honest);
        let lost = central(world).map_or(0, |central| lost_in(&central.office.name));
        let is_target = central(world).is_some_and(|central| targeted(world, central, &content.key.distribution));
        let most = most_of_server(world, content) * times_passed(is_target);
        look_at("from the server".to_owned(), bytes, most + lost);
        // A liar may take everything for itself: nobody can make it pass on what it got.
        for liar in world.clients.keys().filter(|node| !is_honest(node)) {
            let bytes = world.measures().server_bytes_of(content.digest, |node| node == liar);
            look_at(format!("from the server to {liar}, which lies"), bytes, most);
        }
    }
    faults
}

fn deaths_in_parent(world: &World, simulated: &SimulatedOffice) -> u64 {
    simulated.office.parent.as_ref().map_or(0, |parent| world.deaths().in_office(parent))
}

/// How often a version becomes the wanted one: retention may have deleted it in between.
fn times_in_force(scenario: &Scenario, content: &Content) -> u64 {
    let at_start = scenario.distributions.iter().filter(|distribution| distribution.package() == content.key).count();
    let (mut times, mut in_force) = (at_start as u64, at_start > 0);
    for (_, operation) in &scenario.operations {
        let wanted = match operation {
            Operation::Edit(edited) if edited.key == content.key.distribution => edited.package() == content.key,
            Operation::Remove(key) if *key == content.key.distribution => false,
            _ => continue,
        };
        times += u64::from(wanted && !in_force);
        in_force = wanted;
    }
    times.max(1)
}

/// Offices that come later and publish the package.
fn targets_added(scenario: &Scenario, content: &Content) -> u64 {
    let wanted = scenario.distributions.iter().find(|wanted| wanted.key == content.key.distribution);
    let is_target = |office: &SimulatedOffice| wanted.is_some_and(|wanted| wanted.offices.matches(&office.office));
    let added = scenario
        .operations
        .iter()
        .filter(|(_, operation)| matches!(operation, Operation::AddOffice(office) if is_target(office)));
    added.count() as u64
}

/// `deaths` are those at both ends of the link. When everything dies at once, no second node keeps a chunk.
fn most_over_link(world: &World, content: &Content, deaths: u64, alone: bool) -> u64 {
    let of_everything = world.deaths().of_everything();
    if deaths + of_everything == 0 {
        return content.bytes() * WAN_MILLI_MAX / 1000;
    }
    let cost = if alone { KILL_COST_ALONE_BYTES } else { KILL_COST_BYTES };
    content.bytes() + deaths * cost + of_everything * KILL_COST_ALONE_BYTES
}

fn most_of_server(world: &World, content: &Content) -> u64 {
    let in_central = central(world).map_or(0, |central| world.deaths().in_office(&central.office.name));
    let deaths = in_central + world.deaths().of_server() + world.deaths().of_everything();
    content.bytes() * SERVER_MILLI_MAX / 1000 + deaths * KILL_COST_ALONE_BYTES
}

fn central(world: &World) -> Option<&SimulatedOffice> {
    world.offices.values().find(|simulated| simulated.office.parent.is_none())
}

fn honest_nodes(world: &World, office: &OfficeName) -> usize {
    world.clients.values().filter(|site| site.me.office == *office && site.lie.is_none()).count()
}

fn targeted(world: &World, simulated: &SimulatedOffice, key: &DistributionKey) -> bool {
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

/// Whether the next node of an office that shares nothing may have to get the package by way of this office.
fn is_above_vpn(world: &World, office: &OfficeName, key: &DistributionKey) -> bool {
    let parent = |name: &OfficeName| world.offices.get(name).and_then(|simulated| simulated.office.parent.clone());
    let vpns = world.offices.values().filter(|simulated| simulated.office.office_type == OfficeType::Vpn);
    vpns.filter(|simulated| targeted(world, simulated, key))
        .any(|simulated| std::iter::successors(simulated.office.parent.clone(), parent).any(|above| above == *office))
}

/// When everything is complete, offices that publish nothing of a package have deleted what they passed on.
fn transit_faults(world: &World) -> Vec<String> {
    let is_able = |site: &ClientSite| site.lie.is_none() && !site.store.is_full();
    if !world.clients.values().all(is_able) {
        // Whoever has no space, or lies, may never be complete: the way to it stays open.
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (key, _) in world.distributions.iter().filter(|(_, wanted)| !wanted.paused) {
        for site in world.clients.values() {
            let simulated = world.offices.get(&site.me.office);
            if simulated.is_none_or(|simulated| targeted(world, simulated, key))
                || is_above_vpn(world, &site.me.office, key)
            {
                continue;
            }
            let left = site.store.packages().filter(|(_, package)| package.key.distribution == *key);
            faults.extend(
                left.map(|(_, package)| format!("{} is left on {}, which only passed it on", package.key, site.me)),
            );
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::office;

    #[test]
    fn death_excuses_bytes_at_its_two_links_and_at_no_other() {
        let offices = vec![
            office("central", None, OfficeType::Wired, 2),
            office("store", Some("central"), OfficeType::Wired, 2),
            office("kiosk", Some("store"), OfficeType::Wired, 2),
        ];
        let scenario = Scenario::quiet(1, offices).with_package("package", 16 << 20, 64 << 10);
        let mut world = World::new(&scenario);
        assert!(world.run_until_complete(scenario.deadline));
        let digest = scenario.catalog.all().next().unwrap().digest;
        let killed = OfficeName::new("kiosk").unwrap();
        world.operate(Operation::KillRendezvousPoint(killed, Duration::from_secs(1)));
        world.run_for(SETTLE);
        let mut faults_after_more_bytes = |office: &str| {
            let node = world.clients.values().find(|site| site.me.office.as_str() == office).unwrap().me.clone();
            let before = link_faults(&world, &scenario).len();
            world.measures.wan(&node.office, &node.name, digest, KILL_COST_BYTES);
            link_faults(&world, &scenario).len() - before
        };
        assert_eq!(faults_after_more_bytes("kiosk"), 0);
        assert_eq!(faults_after_more_bytes("store"), 1);
    }
}
