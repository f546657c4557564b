//! nftables: one table `inet peerdist`, loadable by `nft -f`, with a set a group of addresses and a named counter a
//! row and direction.
//!
//! Loading the file again replaces the table, so rendering is all the state there is.

use std::fmt::Write;

use peerdist_core::ports::{CLIENT_BROADCAST, Role, listening_ports};

use super::{AddressSet, FirewallRule, RuleDirection, role_name, rules, sets_of};

/// Renders the table of a host with this role; `None`: of one that may play every role. The sets are empty and match
/// nothing until they are filled; what goes to or comes from the role's ports and no rule names is dropped, everything
/// else is left to other tables.
///
/// Beside one counter a row and direction ([`FirewallRule::counter`]) there are `dropped_in` and `dropped_out`, and two
/// that explain datagrams which are no violation: `broadcast_own_copy` (the kernel hands a node its own broadcast) and
/// `broadcast_no_receiver` (a host without the client role, such as the server's, hears its neighbours' broadcasts).
pub fn render_nftables(role: Option<Role>) -> String {
    let rules = rules(role);
    let mut text = header(role);
    text.extend(sets_of(&rules).into_iter().map(set_definition));
    for rule in &rules {
        let _ = writeln!(text, "\tcounter {} {{ comment \"{}\" }}", rule.counter(), rule.comment());
    }
    for counter in ["broadcast_own_copy", "broadcast_no_receiver", "dropped_in", "dropped_out"] {
        let _ = writeln!(text, "\tcounter {counter} {{ }}");
    }
    text += &chain(&rules, role, RuleDirection::Input);
    text += &chain(&rules, role, RuleDirection::Output);
    text + "}\n"
}

fn header(role: Option<Role>) -> String {
    let role = role.map_or("server, client and vesc", role_name);
    format!(
        "#!/usr/sbin/nft -f\n\
         # peerdist ports of a host with the role {role}. Stateless: replies are rows of their own.\n\
         # Fill the sets, then load with: nft -f FILE. Loading again replaces the table.\n\
         # An accept here does not undo a drop in another table: allow the same ports there.\n\
         table inet peerdist\n\
         delete table inet peerdist\n\
         table inet peerdist {{\n"
    )
}

fn set_definition(set: AddressSet) -> String {
    let (name, meaning) = (set.name(), set.meaning());
    format!(
        "\tset {name} {{\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n\t\tcomment \"{meaning}\"\n\t}}\n"
    )
}

fn chain(rules: &[FirewallRule], role: Option<Role>, direction: RuleDirection) -> String {
    let (name, interface, counter) = match direction {
        RuleDirection::Input => ("input", "iifname", "dropped_in"),
        RuleDirection::Output => ("output", "oifname", "dropped_out"),
    };
    let mut text = format!("\n\tchain {name} {{\n\t\ttype filter hook {name} priority filter; policy accept;\n");
    let _ = writeln!(text, "\t\t{interface} \"lo\" accept");
    if direction == RuleDirection::Input {
        text += &stray_broadcasts(role);
    }
    for rule in rules.iter().filter(|rule| rule.direction == direction) {
        text += &accept(rule);
    }
    let _ = writeln!(text, "\t\t{}counter name {counter} drop", dropped(role, direction));
    text + "\t}\n"
}

/// A broadcast reaches every host of the subnet, its sender included: neither copy is for anybody.
fn stray_broadcasts(role: Option<Role>) -> String {
    let mut text = format!(
        "\t\tfib saddr type local fib daddr type broadcast udp dport {CLIENT_BROADCAST} \
         counter name broadcast_own_copy accept\n"
    );
    if role.is_some_and(|role| role != Role::Client) {
        let _ = writeln!(
            text,
            "\t\tfib daddr type broadcast udp dport {CLIENT_BROADCAST} counter name broadcast_no_receiver drop"
        );
    }
    text
}

fn accept(rule: &FirewallRule) -> String {
    let (peer, own) = match rule.direction {
        RuleDirection::Input => ("saddr", "daddr"),
        RuleDirection::Output => ("daddr", "saddr"),
    };
    let own = rule.own.map(|set| format!("ip {own} @{} ", set.name())).unwrap_or_default();
    let line = |set: &AddressSet| {
        let (name, port, counter) = (set.name(), rule.row.port, rule.counter());
        format!("\t\tip {peer} @{name} {own}udp dport {port} counter name {counter} accept\n")
    };
    rule.peers.iter().map(line).collect()
}

fn dropped(role: Option<Role>, direction: RuleDirection) -> String {
    let roles = role.map_or(vec![Role::Server, Role::Client, Role::Vesc], |role| vec![role]);
    let mut ports: Vec<u16> = roles.into_iter().flat_map(listening_ports).collect();
    ports.sort_unstable();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let side = if direction == RuleDirection::Input { "dport" } else { "sport" };
    format!("udp {side} {{ {} }} ", ports.join(", "))
}
