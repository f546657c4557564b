//! The rules that `peerdist ports --format nftables` prints for a network team, loaded on every host beside the harness's
//! own: sets filled as their comments ask, counters read to see that each rule lets real datagrams pass and the last one
//! drops none. What the harness drops first, these rules never see.

use std::path::Path;

use anyhow::Result;
use peerdist_node_agent::firewall::{AddressSet, FirewallRule, RuleDirection, role_name, rules};

use crate::counters::Counters;
use crate::fleet::built_program;
use crate::network::Network;
use crate::ruleset::Direction;
use crate::shell;
use crate::topology::{Host, Topology};

/// Name of the table that the program prints.
const TABLE: &str = "peerdist";

/// Loads what the program prints on every host and fills its sets.
///
/// # Errors
/// When the program is not built, or nft does not take what it printed.
pub fn load(network: &Network) -> Result<()> {
    let program = built_program("peerdist")?;
    network.topology().hosts().iter().try_for_each(|host| load_on(network, &program, host))
}

/// What the printed rules counted on all hosts.
///
/// # Errors
/// When nft fails.
pub fn counters(network: &Network) -> Result<Counters> {
    let mut sum = Counters::default();
    for host in network.topology().hosts() {
        sum.add(&Counters::of_table(&network.namespace(&host.name), TABLE)?);
    }
    Ok(sum)
}

/// Name of the printed counter of a row: its position in the catalogue (from 0) and the direction.
pub fn row_counter(position: usize, direction: Direction) -> String {
    let direction = match direction {
        Direction::In => RuleDirection::Input,
        Direction::Out => RuleDirection::Output,
    };
    let is_asked_for = |rule: &&FirewallRule| rule.row_number == position + 1 && rule.direction == direction;
    rules(None).iter().find(is_asked_for).map(FirewallRule::counter).unwrap_or_default()
}

fn load_on(network: &Network, program: &Path, host: &Host) -> Result<()> {
    let printed =
        shell::run(&program.to_string_lossy(), &["ports", "--role", role_name(host.role), "--format", "nftables"])?;
    let mut rules = printed.clone();
    for (set, members) in members(network.topology(), host) {
        let set = set.name();
        if printed.contains(&format!("set {set} {{")) && !members.is_empty() {
            rules += &format!("add element inet {TABLE} {set} {{ {} }}\n", members.join(", "));
        }
    }
    let namespace = network.namespace(&host.name);
    shell::run_with_input("ip", &["netns", "exec", &namespace, "nft", "-f", "-"], &rules).map(drop)
}

/// What a network team would put into each set on this host.
fn members(topology: &Topology, host: &Host) -> [(AddressSet, Vec<String>); 7] {
    let offices = || 0..topology.offices().len();
    let parent = topology.offices()[host.office].parent;
    let children = offices().filter(|office| topology.offices()[*office].parent == Some(host.office));
    [
        (AddressSet::Server, vec![topology.server().to_string()]),
        (AddressSet::Clients, offices().map(|office| topology.subnet(office)).collect()),
        (AddressSet::CentralOffice, vec![topology.subnet(0)]),
        (AddressSet::OwnOffice, vec![topology.subnet(host.office)]),
        (AddressSet::ParentOffice, parent.map(|parent| topology.subnet(parent)).into_iter().collect()),
        (AddressSet::ChildOffices, children.map(|office| topology.subnet(office)).collect()),
        (AddressSet::Broadcast, vec![topology.broadcast(host.office).to_string()]),
    ]
}
