//! What the kernel's tables say about the interface that holds our address: its broadcast address and its MTU.
//! IPv6 has no broadcast; an office on IPv6 learns its holders from the rendezvous point.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// UDP payload that fits into the smallest link that must be supported.
const DATAGRAM_BYTES_MIN: u16 = 1200;
/// UDP payload of one Ethernet frame.
const DATAGRAM_BYTES_ETHERNET: u16 = 1452;
/// Headers of IPv6 and UDP; IPv4's are smaller.
const HEADER_BYTES: u32 = 48;
/// A subnet with a longer mask has no broadcast address: a link between two hosts (RFC 3021), or a single host.
const SUBNET_BITS_MAX: u8 = 30;
/// Largest datagram worth sending: what one segmented send may carry.
pub(super) const DATAGRAM_BYTES_MAX: u16 = 65000;

/// The interface of one local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Where a broadcast to the subnet goes; `None`: no interface with a subnet holds the address.
    pub(crate) broadcast: Option<Ipv4Addr>,
    /// Largest UDP payload that leaves unfragmented.
    pub(super) datagram_bytes_max: u16,
}

impl Interface {
    /// Looks the address up.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_loopback() {
            let broadcast = address.is_ipv4().then_some(Ipv4Addr::new(127, 255, 255, 255));
            return Self { broadcast, datagram_bytes_max: DATAGRAM_BYTES_MAX };
        }
        let unknown = Self { broadcast: None, datagram_bytes_max: DATAGRAM_BYTES_ETHERNET };
        let IpAddr::V4(address) = address else { return unknown };
        let routes = routes();
        let Some(Route { interface, network, .. }) = connected_subnet(&routes, address) else { return unknown };
        let datagram = mtu(interface).map_or(DATAGRAM_BYTES_ETHERNET.into(), |mtu| mtu.saturating_sub(HEADER_BYTES));
        let datagram = datagram.clamp(DATAGRAM_BYTES_MIN.into(), DATAGRAM_BYTES_MAX.into());
        Self {
            broadcast: Some(network.broadcast()),
            datagram_bytes_max: u16::try_from(datagram).unwrap_or(DATAGRAM_BYTES_MAX),
        }
    }
}

/// One line of the kernel's table of IPv4 routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Name of the interface.
    pub(crate) interface: String,
    /// What it leads to.
    pub(crate) network: Ipv4Net,
    is_connected: bool,
}

#[cfg(test)]
impl Route {
    pub(crate) fn connected(interface: &str, network: Ipv4Net) -> Self {
        Self { interface: interface.to_owned(), network, is_connected: true }
    }
}

/// The kernel's routes; none when they cannot be read.
pub(crate) fn routes() -> Vec<Route> {
    fs::read_to_string("/proc/net/route").map(|text| parse_routes(&text)).unwrap_or_default()
}

/// MTU of an interface.
pub(crate) fn mtu(interface: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

fn parse_routes(text: &str) -> Vec<Route> {
    text.lines().skip(1).filter_map(parse_route).collect()
}

/// Columns: interface, destination, gateway, flags, reference count, use, metric, mask; addresses as hex words in the
/// machine's byte order.
fn parse_route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |field: usize| {
        let word = u32::from_str_radix(fields.get(field)?, 16).ok()?;
        Some(Ipv4Addr::from(word.to_ne_bytes()))
    };
    Some(Route {
        interface: (*fields.first()?).to_owned(),
        network: Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?,
        is_connected: address(2)?.is_unspecified(),
    })
}

/// The most specific directly connected subnet that holds the address.
fn connected_subnet(routes: &[Route], address: Ipv4Addr) -> Option<&Route> {
    let is_subnet = |route: &&Route| {
        route.is_connected
            && (1..=SUBNET_BITS_MAX).contains(&route.network.prefix_len())
            && route.network.contains(&address)
    };
    routes.iter().filter(is_subnet).max_by_key(|route| route.network.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0\n\
        eth1\t0007A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn most_specific_connected_subnet_is_found() {
        let routes = parse_routes(&format!("{ROUTES}garbage\n"));
        assert_eq!(routes.len(), 3);
        let find = |text: &str| {
            let found = connected_subnet(&routes, text.parse().unwrap());
            found.map(|route| (route.interface.as_str(), route.network.broadcast()))
        };
        assert_eq!(find("192.168.3.4"), Some(("eth0", Ipv4Addr::new(192, 168, 255, 255))));
        assert_eq!(find("192.168.7.4"), Some(("eth1", Ipv4Addr::new(192, 168, 7, 255))));
        assert_eq!(find("10.0.0.1"), None);
    }

    #[test]
    fn link_between_two_hosts_has_no_broadcast_address() {
        let route = |mask: &str| format!("Iface\n eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t{mask}\t0\t0\t0\n");
        let find = |mask: &str| connected_subnet(&parse_routes(&route(mask)), Ipv4Addr::new(192, 168, 0, 0)).is_some();
        assert!(find("FCFFFFFF"));
        assert!(!find("FEFFFFFF") && !find("FFFFFFFF"));
    }

    #[test]
    fn loopback_broadcasts_to_every_loopback_address() {
        let interface = Interface::of("127.77.0.1".parse().unwrap());
        assert_eq!(interface.broadcast, Some(Ipv4Addr::new(127, 255, 255, 255)));
        assert_eq!(Interface::of("::1".parse().unwrap()).broadcast, None);
    }
}
