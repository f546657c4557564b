//! iptables: a shell script that (re)makes the chains PEERDIST-INPUT and PEERDIST-OUTPUT, with ipsets for addresses.

use std::fmt::Write;

use peerdist_core::ports::{CLIENT_BROADCAST, Role, listening_ports};

use super::{AddressSet, FirewallRule, RuleDirection, role_name, rules, sets_of};

/// Renders the script. Running it again replaces the chains and leaves the members of the sets alone.
pub fn render_iptables(role: Option<Role>) -> String {
    let rules = rules(role);
    let mut text = format!(
        "#!/bin/sh\n\
         # peerdist ports of a host with the role {}. Stateless: replies are rows of their own.\n\
         # Fill the sets with: ipset add SET ADDRESS/PREFIX. Running the script again replaces the chains.\n\
         set -eu\n\n",
        role.map_or("server, client and vesc", role_name)
    );
    for set in sets_of(&rules) {
        let _ = writeln!(text, "ipset create -exist {} hash:net  # {}", set.name(), set.meaning());
    }
    text += &chain(&rules, role, RuleDirection::Input);
    text += &chain(&rules, role, RuleDirection::Output);
    text
}

fn chain(rules: &[FirewallRule], role: Option<Role>, direction: RuleDirection) -> String {
    let (hook, interface) = match direction {
        RuleDirection::Input => ("INPUT", "-i lo"),
        RuleDirection::Output => ("OUTPUT", "-o lo"),
    };
    let name = format!("PEERDIST-{hook}");
    let mut text = format!("\niptables -N {name} 2>/dev/null || iptables -F {name}\n");
    let _ = writeln!(text, "iptables -A {name} {interface} -j RETURN");
    if direction == RuleDirection::Input && role.is_none_or(|role| role == Role::Client) {
        let _ = writeln!(
            text,
            "iptables -A {name} -p udp --dport {CLIENT_BROADCAST} -m addrtype --src-type LOCAL \
             -m comment --comment \"a node's own copy of its broadcast\" -j ACCEPT"
        );
    }
    for rule in rules.iter().filter(|rule| rule.direction == direction) {
        text += &accept(&name, rule);
    }
    let side = if direction == RuleDirection::Input { "--dports" } else { "--sports" };
    for ports in port_groups(role) {
        let _ = writeln!(text, "iptables -A {name} -p udp -m multiport {side} {ports} -j DROP");
    }
    let _ = writeln!(text, "iptables -C {hook} -j {name} 2>/dev/null || iptables -I {hook} -j {name}");
    text
}

fn accept(chain: &str, rule: &FirewallRule) -> String {
    let (peer, own) = match rule.direction {
        RuleDirection::Input => ("src", "dst"),
        RuleDirection::Output => ("dst", "src"),
    };
    let own = rule.own.map(|set| format!(" -m set --match-set {} {own}", set.name())).unwrap_or_default();
    let line = |set: &AddressSet| {
        format!(
            "iptables -A {chain} -p udp --dport {} -m set --match-set {} {peer}{own} -m comment --comment \"{}\" -j ACCEPT\n",
            rule.row.port,
            set.name(),
            rule.comment()
        )
    };
    rule.peers.iter().map(line).collect()
}

/// One group a role: the multiport match takes at most 15 ports, and no role has more.
fn port_groups(role: Option<Role>) -> Vec<String> {
    role.map_or(vec![Role::Server, Role::Client, Role::Vesc], |role| vec![role])
        .into_iter()
        .map(|role| listening_ports(role).iter().map(u16::to_string).collect::<Vec<_>>().join(","))
        .collect()
}
