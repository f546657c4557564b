//! The nftables rules of one host, rendered from the port catalogue: stateless, both directions, a counter on each row
//! and one on everything dropped. Loopback passes. The source port is free, as in the tables: what dials from a wrong
//! port is found out by its answers, which have no row.
//!
//! Table 8 has no hosts here. In a WiFi office the broadcast row and in a VPN office content inside the office are left
//! out, because these offices must do without. Two broadcasts are no violation and are matched before the drop counter:
//! a node's own, which its kernel loops back, and one heard by the server's host, which is no receiver in table 4.
//!
//! ICMP has no row either and is dropped before that counter, with a counter of its own. Only kernels send it here:
//! where a datagram of a row finds no process at its port, the kernel of that host answers that the port is
//! unreachable. That is right after a process was killed, as in other scenarios, and when processes end one after the
//! other. It cannot happen while all of them run: the server binds its ports before it writes the token that clients
//! wait for, a client binds its own before it enrols, and is named to nobody earlier; a broadcast is never answered so.
//! Nor has the router a reason: every host is there, every link has the same MTU, and no route leads back to where a
//! packet came from. So [`ICMP_DROPPED`] stays zero from the start of a fleet until its first process ends, and has to
//! be read before that.
//!
//! One more counter, which lets pass, sees foreground messages that cross an office boundary: the rows allow them, and
//! nothing large may travel so.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use peerdist_core::ports::{PortRow, ROWS, Reach, Role, TransferClass};

use crate::topology::{Host, OfficeKind, Topology, Towards};

/// Name of the table with all rules; the one that `peerdist ports` prints has the program's name.
pub const TABLE: &str = "peerdist_e2e";
/// Counter of received datagrams without a row.
pub const DROPPED_IN: &str = "dropped_in";
/// Counter of sent datagrams without a row.
pub const DROPPED_OUT: &str = "dropped_out";
/// Counter of dropped ICMP packets, whichever way they went.
pub const ICMP_DROPPED: &str = "icmp_dropped";
/// Set that names the flows behind the two drop counters.
pub const DROPPED_FLOWS: &str = "dropped_flows";
/// Counter of received foreground messages from outside the office's subnet.
pub const FOREGROUND_ACROSS: &str = "foreground_across";
/// The table of the specification whose role does not run here.
const TABLE_OF_VESC: u8 = 8;

/// Direction of traffic as a host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the host.
    In,
    /// From the host.
    Out,
}

/// Name of the counter of a row: its position in the catalogue (from 1) and the direction.
pub fn row_counter(position: usize, direction: Direction) -> String {
    let suffix = if direction == Direction::In { "in" } else { "out" };
    format!("row_{:02}_{suffix}", position + 1)
}

/// The rules of `host`, as input for `nft -f`.
pub fn render(topology: &Topology, host: &Host) -> String {
    let rows = |direction| rules_of_rows(topology, host, direction);
    let (input, output) = (rows(Direction::In), rows(Direction::Out));
    let broadcasts = harmless_broadcasts(topology, host);
    let across = foreground_across(topology, host);
    format!(
        "table inet {TABLE} {{
{counters}
  set {DROPPED_FLOWS} {{
    typeof meta l4proto . ip saddr . ip daddr . th sport . th dport
    flags dynamic
    size 4096
    counter
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
    ip protocol icmp counter name \"{ICMP_DROPPED}\" drop
{across}{broadcasts}{input}    {note}
    counter name \"{DROPPED_IN}\" drop
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oifname \"lo\" accept
    ip protocol icmp counter name \"{ICMP_DROPPED}\" drop
{output}    {note}
    counter name \"{DROPPED_OUT}\" drop
  }}
}}
",
        counters = declarations(),
        note = format_args!(
            "update @{DROPPED_FLOWS} {{ meta l4proto . ip saddr . ip daddr . th sport . th dport counter }}"
        ),
    )
}

fn declarations() -> String {
    let rows = (0..ROWS.len()).flat_map(|row| [Direction::In, Direction::Out].map(|to| row_counter(row, to)));
    let others = [ICMP_DROPPED, "own_broadcast", "overheard_broadcast", FOREGROUND_ACROSS, DROPPED_IN, DROPPED_OUT];
    let others = others.map(str::to_owned);
    rows.chain(others).map(|name| format!("  counter {name} {{}}\n")).collect()
}

/// Counts foreground messages from another subnet; a subnet is an office here, the Central Office's has the server.
fn foreground_across(topology: &Topology, host: &Host) -> String {
    let rows = ROWS.iter().filter(|row| row.to == host.role && row.class == TransferClass::ForegroundMessage);
    let ports: BTreeSet<String> = rows.map(|row| row.port.to_string()).collect();
    let (subnet, ports) = (topology.subnet(host.office), Vec::from_iter(ports).join(", "));
    format!("    ip saddr != {subnet} udp dport {{ {ports} }} counter name \"{FOREGROUND_ACROSS}\"\n")
}

fn harmless_broadcasts(topology: &Topology, host: &Host) -> String {
    let port = peerdist_core::ports::CLIENT_BROADCAST;
    let broadcast = topology.broadcast(host.office);
    match host.role {
        Role::Server => {
            format!("    ip daddr {broadcast} udp dport {port} counter name \"overheard_broadcast\" drop\n")
        }
        Role::Client | Role::Vesc => {
            let own = host.address;
            format!("    ip saddr {own} ip daddr {broadcast} udp dport {port} counter name \"own_broadcast\" drop\n")
        }
    }
}

fn rules_of_rows(topology: &Topology, host: &Host, direction: Direction) -> String {
    let mut rules = String::new();
    for (position, row) in ROWS.iter().enumerate() {
        if let Some(matches) = matches_of_row(topology, host, row, direction) {
            let (port, counter) = (row.port, row_counter(position, direction));
            // Writing to a string cannot fail.
            let _ = writeln!(rules, "    {matches} udp dport {port} counter name \"{counter}\" accept");
        }
    }
    rules
}

/// The address part of a row's rule; `None` when the row is not for this host.
fn matches_of_row(topology: &Topology, host: &Host, row: &PortRow, direction: Direction) -> Option<String> {
    let (own_role, partner_role, towards) = match direction {
        Direction::In => (row.to, row.from, Towards::Senders),
        Direction::Out => (row.from, row.to, Towards::Receivers),
    };
    let receives_centrally = row.reach == Reach::CentralOffice && direction == Direction::In && host.office != 0;
    if row.table == TABLE_OF_VESC
        || own_role != host.role
        || receives_centrally
        || office_does_without(topology, host, row)
    {
        return None;
    }
    let mut partners = topology.partners(host.office, partner_role, row.reach, towards);
    partners.retain(|address| *address != host.address);
    // The only node of an office broadcasts all the same.
    let is_broadcast_out = row.reach == Reach::SameSubnet && direction == Direction::Out;
    if partners.is_empty() && !is_broadcast_out {
        return None;
    }
    let destination = destination(topology, host, row.reach);
    Some(match direction {
        Direction::In => format!("ip saddr {} ip daddr {destination}", set(&partners)),
        Direction::Out if is_broadcast_out => format!("ip daddr {destination}"),
        Direction::Out => format!("ip daddr {}", set(&partners)),
    })
}

fn office_does_without(topology: &Topology, host: &Host, row: &PortRow) -> bool {
    match topology.offices()[host.office].kind {
        OfficeKind::Wired => false,
        OfficeKind::WiFi => row.reach == Reach::SameSubnet,
        OfficeKind::Vpn => row.reach == Reach::SameOffice,
    }
}

fn destination(topology: &Topology, host: &Host, reach: Reach) -> Ipv4Addr {
    if reach == Reach::SameSubnet { topology.broadcast(host.office) } else { host.address }
}

fn set(addresses: &[Ipv4Addr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    format!("{{ {} }}", addresses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(host: &str) -> String {
        let topology = Topology::central(2).with_office("store", "central", OfficeKind::Wired, 2).unwrap();
        let topology = topology.with_office("kiosk", "central", OfficeKind::WiFi, 2).unwrap();
        let host = topology.hosts().into_iter().find(|candidate| candidate.name == host).unwrap();
        render(&topology, &host)
    }

    fn rule<'a>(rules: &'a str, counter: &str) -> Option<&'a str> {
        rules.lines().map(str::trim).find(|line| line.contains(&format!("counter name \"{counter}\"")))
    }

    #[test]
    fn content_of_the_server_reaches_the_central_office_only() {
        let row = ROWS.iter().position(|row| row.table == 5).unwrap();
        let counter = row_counter(row, Direction::In);
        let expected = "ip saddr { 10.77.1.250 } ip daddr 10.77.1.1 udp dport 34760 counter name \"row_20_in\" accept";
        assert_eq!(rule(&rules("central-1"), &counter), Some(expected));
        assert_eq!(rule(&rules("store-1"), &counter), None);
    }

    #[test]
    fn background_content_is_accepted_from_the_parent_office() {
        let row = ROWS.iter().position(|row| row.port == 34750).unwrap();
        let accepted = rules("store-1");
        let accepted = rule(&accepted, &row_counter(row, Direction::In)).unwrap();
        assert!(accepted.starts_with("ip saddr { 10.77.1.1, 10.77.1.2 } ip daddr 10.77.2.1 "), "{accepted}");
        assert_eq!(rule(&rules("central-1"), &row_counter(row, Direction::In)), None);
    }

    #[test]
    fn broadcast_goes_to_the_subnet_and_not_in_a_wifi_office() {
        let row = ROWS.iter().position(|row| row.table == 4).unwrap();
        let (sent, received) = (row_counter(row, Direction::Out), row_counter(row, Direction::In));
        let store = rules("store-1");
        assert!(rule(&store, &sent).unwrap().starts_with("ip daddr 10.77.2.255 udp"));
        assert!(rule(&store, &received).unwrap().starts_with("ip saddr { 10.77.2.2 } ip daddr 10.77.2.255 "));
        assert_eq!(rule(&rules("kiosk-1"), &sent), None);
    }

    #[test]
    fn foreground_messages_of_other_offices_are_counted_at_clients_and_at_the_server() {
        let counted = "ip saddr != 10.77.2.0/24 udp dport { 34335, 34337 } counter name \"foreground_across\"";
        assert_eq!(rule(&rules("store-1"), FOREGROUND_ACROSS), Some(counted));
        let counted = "ip saddr != 10.77.1.0/24 udp dport { 34331, 34333 } counter name \"foreground_across\"";
        assert_eq!(rule(&rules("server"), FOREGROUND_ACROSS), Some(counted));
    }

    #[test]
    fn every_row_but_those_of_the_vesc_is_rendered_in_both_directions() {
        let topology = Topology::central(2).with_office("store", "central", OfficeKind::Wired, 2).unwrap();
        let all: String = topology.hosts().iter().map(|host| render(&topology, host)).collect();
        for (position, row) in ROWS.iter().enumerate() {
            for direction in [Direction::In, Direction::Out] {
                let is_rendered = rule(&all, &row_counter(position, direction)).is_some();
                assert_eq!(is_rendered, row.table != TABLE_OF_VESC, "{row:?} {direction:?}");
            }
        }
    }

    #[test]
    fn every_row_is_described_in_the_architecture() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md");
        let document = std::fs::read_to_string(path).unwrap();
        for row in ROWS {
            let role =
                |role: Role| if role == Role::Vesc { "VESC".to_owned() } else { format!("{role:?}").to_lowercase() };
            let receiver = if row.reach == Reach::SameSubnet { "subnet".to_owned() } else { role(row.to) };
            let line = format!("| {} | {} → {receiver} | {} | ", row.table, role(row.from), row.port);
            assert!(document.contains(&line), "ARCHITECTURE.md has no line that begins with {line}");
        }
    }
}
