//! What the kernel's tables say about the interface that holds our address: its broadcast address and its MTU.
//! IPv6 has no broadcast; an office on IPv6 learns its holders from the rendezvous point.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// UDP payload that fits into the smallest link that must be supported.
const DATAGRAM_BYTES_MIN: u16 = 1200;
/// UDP payload of one Ethernet frame.
const DATAGRAM_BYTES_ETHERNET: u16 = 1452;
/// Headers of IPv6 and UDP; IPv4's are smaller.
const HEADER_BYTES: u32 = 48;
/// A subnet with a longer mask has no broadcast address: a link between two hosts (RFC 3021), or a single host.
const SUBNET_BITS_MAX: u32 = 30;
/// Largest datagram worth sending: what one segmented send may carry.
pub(super) const DATAGRAM_BYTES_MAX: u16 = 65000;

/// The interface of one local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interface {
    /// Where a broadcast to the subnet goes; `None`: no interface with a subnet holds the address.
    pub(super) broadcast: Option<Ipv4Addr>,
    /// Largest UDP payload that leaves unfragmented.
    pub(super) datagram_bytes_max: u16,
}

impl Interface {
    /// Looks the address up.
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_loopback() {
            let broadcast = address.is_ipv4().then_some(Ipv4Addr::new(127, 255, 255, 255));
            return Self { broadcast, datagram_bytes_max: DATAGRAM_BYTES_MAX };
        }
        let unknown = Self { broadcast: None, datagram_bytes_max: DATAGRAM_BYTES_ETHERNET };
        let IpAddr::V4(address) = address else { return unknown };
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let Some((name, broadcast)) = connected_subnet(&routes, address) else { return unknown };
        let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok();
        let mtu = mtu.and_then(|text| text.trim().parse::<u32>().ok());
        let datagram = mtu.map_or(DATAGRAM_BYTES_ETHERNET.into(), |mtu| mtu.saturating_sub(HEADER_BYTES));
        let datagram = datagram.clamp(DATAGRAM_BYTES_MIN.into(), DATAGRAM_BYTES_MAX.into());
        Self { broadcast: Some(broadcast), datagram_bytes_max: u16::try_from(datagram).unwrap_or(DATAGRAM_BYTES_MAX) }
    }
}

/// Name and broadcast address of the most specific directly connected subnet that holds the address.
fn connected_subnet(routes: &str, address: Ipv4Addr) -> Option<(&str, Ipv4Addr)> {
    let address = u32::from(address);
    let word = |field: &str| u32::from_str_radix(field, 16).ok().map(|word| u32::from_be_bytes(word.to_ne_bytes()));
    let subnets = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&name, destination, gateway, mask) =
            (fields.first()?, word(fields.get(1)?)?, word(fields.get(2)?)?, word(fields.get(7)?)?);
        let is_subnet = gateway == 0 && mask != 0 && mask.count_ones() <= SUBNET_BITS_MAX;
        (is_subnet && address & mask == destination).then_some((mask, name, Ipv4Addr::from(address | !mask)))
    });
    subnets.max_by_key(|&(mask, ..)| mask).map(|(_, name, broadcast)| (name, broadcast))
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
        let find = |text: &str| connected_subnet(ROUTES, text.parse().unwrap());
        assert_eq!(find("192.168.3.4"), Some(("eth0", Ipv4Addr::new(192, 168, 255, 255))));
        assert_eq!(find("192.168.7.4"), Some(("eth1", Ipv4Addr::new(192, 168, 7, 255))));
        assert_eq!(find("10.0.0.1"), None);
    }

    #[test]
    fn link_between_two_hosts_has_no_broadcast_address() {
        let route = |mask: &str| format!("Iface\n eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t{mask}\t0\t0\t0\n");
        let find = |mask: &str| connected_subnet(&route(mask), Ipv4Addr::new(192, 168, 0, 0)).is_some();
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
