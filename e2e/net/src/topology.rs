//! The fleet on paper: offices, hosts and their addresses. One office is one subnet; the server lives in the subnet of
//! the Central Office.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use peerdist_core::ports::{Reach, Role};

/// First two octets of every address. The namespaces see nothing of the machine's own networks.
const PREFIX: [u8; 2] = [10, 77];
/// Last octet of the server, above every node's.
const SERVER_HOST: u8 = 250;
/// Last octet of the router in every subnet.
const ROUTER_HOST: u8 = 254;
/// Last octet of the subnet's broadcast address.
const BROADCAST_HOST: u8 = 255;

/// Type of an office, as the Office object words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfficeKind {
    /// Share, broadcast.
    Wired,
    /// Share, no broadcast.
    WiFi,
    /// No sharing, broadcast.
    Vpn,
}

impl OfficeKind {
    /// The value of `spec.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wired => "Wired",
            Self::WiFi => "WiFi",
            Self::Vpn => "VPN",
        }
    }
}

/// One office: a subnet with nodes.
#[derive(Debug, Clone)]
pub struct Office {
    /// Name of the Office object.
    pub name: String,
    /// Its type.
    pub kind: OfficeKind,
    /// Position of the parent in [`Topology::offices`]; `None` for the Central Office.
    pub parent: Option<usize>,
    /// How many nodes it has.
    pub nodes: u8,
}

/// One host: the server's, or one node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `server`, or `<office>-<n>` with n from 1.
    pub name: String,
    /// What runs there.
    pub role: Role,
    /// Position of its office in [`Topology::offices`].
    pub office: usize,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Offices and their hosts.
#[derive(Debug, Clone)]
pub struct Topology {
    offices: Vec<Office>,
}

impl Topology {
    /// A Wired Central Office called `central`.
    pub fn central(nodes: u8) -> Self {
        Self { offices: vec![Office { name: "central".to_owned(), kind: OfficeKind::Wired, parent: None, nodes }] }
    }

    /// Adds an office below `parent`.
    ///
    /// # Errors
    /// When no office is called `parent`, or the subnet has no room for the nodes.
    pub fn with_office(mut self, name: &str, parent: &str, kind: OfficeKind, nodes: u8) -> Result<Self> {
        let position = self.offices.iter().position(|office| office.name == parent);
        let parent = position.with_context(|| format!("office {name}: no office is called {parent}"))?;
        if nodes >= SERVER_HOST {
            bail!("office {name}: {nodes} nodes do not fit into one subnet");
        }
        self.offices.push(Office { name: name.to_owned(), kind, parent: Some(parent), nodes });
        Ok(self)
    }

    /// The offices, the Central Office first.
    pub fn offices(&self) -> &[Office] {
        &self.offices
    }

    /// Every host, the server first, then the nodes office by office.
    pub fn hosts(&self) -> Vec<Host> {
        let server = Host { name: "server".to_owned(), role: Role::Server, office: 0, address: self.server() };
        let offices = 0..self.offices.len();
        std::iter::once(server).chain(offices.flat_map(|office| self.nodes_of(office))).collect()
    }

    /// The nodes of one office.
    pub fn nodes_of(&self, office: usize) -> Vec<Host> {
        let Office { name, nodes, .. } = &self.offices[office];
        let node = |number| Host {
            name: format!("{name}-{number}"),
            role: Role::Client,
            office,
            address: address(office, number),
        };
        (1..=*nodes).map(node).collect()
    }

    /// Address of the server.
    pub fn server(&self) -> Ipv4Addr {
        address(0, SERVER_HOST)
    }

    /// Address of the router in an office's subnet.
    pub fn router(&self, office: usize) -> Ipv4Addr {
        address(office, ROUTER_HOST)
    }

    /// An office's subnet.
    pub fn subnet(&self, office: usize) -> String {
        format!("{}/24", address(office, 0))
    }

    /// Broadcast address of an office's subnet.
    pub fn broadcast(&self, office: usize) -> Ipv4Addr {
        address(office, BROADCAST_HOST)
    }

    /// Addresses of the hosts of `role` that a receiver in `office` may hear under a row with this reach, and that a
    /// sender in `office` may address when `towards` is [`Towards::Receivers`].
    pub fn partners(&self, office: usize, role: Role, reach: Reach, towards: Towards) -> Vec<Ipv4Addr> {
        match role {
            Role::Server => vec![self.server()],
            Role::Vesc => Vec::new(),
            Role::Client => self.client_partners(office, reach, towards),
        }
    }

    fn client_partners(&self, office: usize, reach: Reach, towards: Towards) -> Vec<Ipv4Addr> {
        let reached = |other: &usize| {
            let same = *other == office;
            let (is_parent, is_child) = (self.is_parent(*other, office), self.is_parent(office, *other));
            match reach {
                Reach::Any => true,
                Reach::SameParentOrChildOffice => same || is_parent || is_child,
                Reach::SameSubnet | Reach::SameOffice => same,
                Reach::CentralOffice => *other == 0,
                Reach::ChildOffice if towards == Towards::Receivers => is_child,
                Reach::ChildOffice => is_parent,
            }
        };
        let offices = (0..self.offices.len()).filter(reached);
        offices.flat_map(|other| self.nodes_of(other)).map(|host| host.address).collect()
    }

    fn is_parent(&self, parent: usize, child: usize) -> bool {
        self.offices[child].parent == Some(parent)
    }
}

/// Which end of a row is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// Those who may send to me.
    Senders,
    /// Those I may send to.
    Receivers,
}

fn address(office: usize, host: u8) -> Ipv4Addr {
    let subnet = u8::try_from(office + 1).expect("a scenario has far fewer than 255 offices");
    Ipv4Addr::new(PREFIX[0], PREFIX[1], subnet, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_levels() -> Topology {
        let topology = Topology::central(2).with_office("store", "central", OfficeKind::Wired, 3).unwrap();
        topology.with_office("kiosk", "store", OfficeKind::WiFi, 2).unwrap()
    }

    #[test]
    fn background_content_goes_down_one_level_only() {
        let topology = three_levels();
        let hears = |office| topology.partners(office, Role::Client, Reach::ChildOffice, Towards::Senders).len();
        assert_eq!([hears(0), hears(1), hears(2)], [0, 2, 3]);
        let addresses = |office| topology.partners(office, Role::Client, Reach::ChildOffice, Towards::Receivers).len();
        assert_eq!([addresses(0), addresses(1), addresses(2)], [3, 2, 0]);
    }

    #[test]
    fn messages_reach_the_office_its_parent_and_its_children() {
        let topology = three_levels();
        let reach = Reach::SameParentOrChildOffice;
        let partners = |office| topology.partners(office, Role::Client, reach, Towards::Senders).len();
        assert_eq!([partners(0), partners(1), partners(2)], [5, 7, 5]);
    }

    #[test]
    fn hosts_are_named_after_their_office() {
        let names: Vec<String> = three_levels().hosts().into_iter().map(|host| host.name).collect();
        assert_eq!(names[..3], ["server", "central-1", "central-2"]);
        assert_eq!(names.len(), 8);
    }
}
