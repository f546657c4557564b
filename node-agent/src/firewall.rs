//! Firewall rules rendered from the port catalogue, for the host's own firewall, direction by direction and without
//! connection tracking.
//!
//! [`rules`] says which datagrams one host may send and receive; a renderer a format turns them into text. Who the
//! peers are is named by [`AddressSet`]: the administrator (or a test) fills the sets, the catalogue never knows
//! addresses. Addresses are IPv4, as broadcast is part of the catalogue. Nothing here applies a rule to a host.

#[cfg(test)]
mod golden_tests;
mod iptables;
mod nftables;
mod table;
mod windows;

use peerdist_core::ports::{PortRow, ROWS, Reach, Role};

pub use iptables::render_iptables;
pub use nftables::render_nftables;
pub use table::{render_json, render_table};
pub use windows::render_windows;

/// Group of addresses that a rule names, seen from the host that the rules are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSet {
    /// The server's addresses.
    Server,
    /// Every client of every office.
    Clients,
    /// Clients of the Central Office.
    CentralOffice,
    /// Clients of this host's office, itself included.
    OwnOffice,
    /// Clients of the parent office.
    ParentOffice,
    /// Clients of all child offices.
    ChildOffices,
    /// The broadcast addresses of this host's subnets.
    Broadcast,
    /// Connectors (VESC).
    Vesc,
}

impl AddressSet {
    /// Every set.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Clients,
        Self::CentralOffice,
        Self::OwnOffice,
        Self::ParentOffice,
        Self::ChildOffices,
        Self::Broadcast,
        Self::Vesc,
    ];

    /// Name of the set in nftables and of the ipset; Windows names its variables by the same words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "peerdist_server",
            Self::Clients => "peerdist_clients",
            Self::CentralOffice => "peerdist_central_office",
            Self::OwnOffice => "peerdist_own_office",
            Self::ParentOffice => "peerdist_parent_office",
            Self::ChildOffices => "peerdist_child_offices",
            Self::Broadcast => "peerdist_broadcast",
            Self::Vesc => "peerdist_vesc",
        }
    }

    /// What the administrator puts in.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Server => "addresses of the server",
            Self::Clients => "subnets of every office",
            Self::CentralOffice => "subnets of the Central Office",
            Self::OwnOffice => "subnets of this host's office",
            Self::ParentOffice => "subnets of the parent office; empty in the Central Office",
            Self::ChildOffices => "subnets of all child offices; empty where there are none",
            Self::Broadcast => "broadcast addresses of this host's subnets",
            Self::Vesc => "addresses of the enterprise systems connectors; empty without one",
        }
    }
}

/// Direction of a rule as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleDirection {
    /// To the host.
    Input,
    /// From the host.
    Output,
}

/// One thing that a host may send or receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// Position of the row in the catalogue, 1 to 26.
    pub row_number: usize,
    /// The row.
    pub row: PortRow,
    /// Whether the host receives or sends it.
    pub direction: RuleDirection,
    /// The other end: any of these sets.
    pub peers: Vec<AddressSet>,
    /// A set that the host itself must belong to, where the row is not for every host of the role.
    pub own: Option<AddressSet>,
}

impl FirewallRule {
    /// Name of the counter of this rule, for example `row_2_client_server_34323_in`.
    pub fn counter(&self) -> String {
        let suffix = match self.direction {
            RuleDirection::Input => "in",
            RuleDirection::Output => "out",
        };
        let (from, to) = (role_name(self.row.from), role_name(self.row.to));
        format!("row_{}_{from}_{to}_{}_{suffix}", self.row_number, self.row.port)
    }

    /// One line for comments.
    pub fn comment(&self) -> String {
        let (from, to) = (role_name(self.row.from), role_name(self.row.to));
        format!("table {} row {}: {from} to {to} {}", self.row.table, self.row_number, self.row.port)
    }
}

/// The rules of a host with this role, or with every role, in the order of the catalogue, input first.
pub fn rules(role: Option<Role>) -> Vec<FirewallRule> {
    let plays = |of_row: Role| role.is_none_or(|role| role == of_row);
    let numbered = || ROWS.iter().copied().zip(1..);
    let received = numbered().filter(|(row, _)| plays(row.to)).map(|(row, number)| input_rule(row, number));
    let sent = numbered().filter(|(row, _)| plays(row.from)).map(|(row, number)| output_rule(row, number));
    received.chain(sent).collect()
}

/// The rows that a role sends or receives, with their numbers.
pub fn rows_of(role: Option<Role>) -> Vec<(usize, PortRow)> {
    (1..).zip(ROWS).filter(|(_, row)| role.is_none_or(|role| row.from == role || row.to == role)).collect()
}

/// The role in lower case.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Client => "client",
        Role::Vesc => "vesc",
    }
}

/// The sets that the rules name, in a fixed order without repetition.
fn sets_of(rules: &[FirewallRule]) -> Vec<AddressSet> {
    AddressSet::ALL
        .into_iter()
        .filter(|set| rules.iter().any(|rule| rule.own == Some(*set) || rule.peers.contains(set)))
        .collect()
}

fn input_rule(row: PortRow, row_number: usize) -> FirewallRule {
    let peers = match (row.from, row.reach) {
        (Role::Server, _) => vec![AddressSet::Server],
        (Role::Vesc, _) => vec![AddressSet::Vesc],
        (Role::Client, Reach::Any | Reach::CentralOffice) => vec![AddressSet::Clients],
        (Role::Client, Reach::SameOffice | Reach::SameSubnet) => vec![AddressSet::OwnOffice],
        (Role::Client, Reach::ChildOffice) => vec![AddressSet::ParentOffice],
        (Role::Client, Reach::SameParentOrChildOffice) => near_offices(),
    };
    let own = match row.reach {
        Reach::CentralOffice => Some(AddressSet::CentralOffice),
        Reach::SameSubnet => Some(AddressSet::Broadcast),
        _ => None,
    };
    FirewallRule { row_number, row, direction: RuleDirection::Input, peers, own }
}

fn output_rule(row: PortRow, row_number: usize) -> FirewallRule {
    let peers = match (row.to, row.reach) {
        (Role::Server, _) => vec![AddressSet::Server],
        (Role::Vesc, _) => vec![AddressSet::Vesc],
        (Role::Client, Reach::Any) => vec![AddressSet::Clients],
        (Role::Client, Reach::CentralOffice) => vec![AddressSet::CentralOffice],
        (Role::Client, Reach::SameOffice) => vec![AddressSet::OwnOffice],
        (Role::Client, Reach::SameSubnet) => vec![AddressSet::Broadcast],
        (Role::Client, Reach::ChildOffice) => vec![AddressSet::ChildOffices],
        (Role::Client, Reach::SameParentOrChildOffice) => near_offices(),
    };
    FirewallRule { row_number, row, direction: RuleDirection::Output, peers, own: None }
}

fn near_offices() -> Vec<AddressSet> {
    vec![AddressSet::OwnOffice, AddressSet::ParentOffice, AddressSet::ChildOffices]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_one_rule_at_each_end() {
        for (row_number, row) in rows_of(None) {
            let ends: Vec<_> = [(row.from, RuleDirection::Output), (row.to, RuleDirection::Input)]
                .into_iter()
                .map(|(role, direction)| {
                    let matching = |rule: &FirewallRule| rule.row_number == row_number && rule.direction == direction;
                    rules(Some(role)).into_iter().filter(matching).count()
                })
                .collect();
            assert_eq!(ends, [1, 1], "row {row_number}");
        }
        assert_eq!(rules(None).len(), 52);
    }

    #[test]
    fn counters_are_unique() {
        let names: BTreeSet<String> = rules(None).iter().map(FirewallRule::counter).collect();
        assert_eq!(names.len(), 52);
        assert!(names.contains("row_1_client_server_34322_in"));
    }
}
