//! Do whole datagrams fit? A broadcast is 1,200 bytes and QUIC starts with as many.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::Finding;

const CHECK: &str = "MTU";
/// 1,200 bytes of payload, and headers of UDP and IP with room for a tunnel's.
const MTU_MIN: u32 = 1280;
/// What Ethernet gives; less costs packets a second.
const MTU_ADVISED: u32 = 1500;

pub(super) fn check(address: IpAddr) -> Finding {
    let routes = fs::read_to_string("/proc/net/route").map(|text| parse_routes(&text)).unwrap_or_default();
    let mut interfaces: Vec<String> =
        routes.into_iter().filter(|route| concerns(route, address)).map(|route| route.interface).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    let mtus: Vec<(String, u32)> =
        interfaces.into_iter().filter_map(|interface| Some((interface.clone(), read_mtu(&interface)?))).collect();
    judge(&mtus)
}

struct Route {
    interface: String,
    network: Ipv4Net,
}

/// All interfaces with a network for an unspecified address, else those whose own network holds it.
fn concerns(route: &Route, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => true,
        IpAddr::V4(address) => route.network.prefix_len() > 0 && route.network.contains(&address),
        IpAddr::V6(_) => false,
    }
}

fn judge(mtus: &[(String, u32)]) -> Finding {
    let Some((interface, mtu)) = mtus.iter().min_by_key(|(_, mtu)| *mtu) else {
        return Finding::ok(CHECK, "loopback only");
    };
    let seen = format!("{mtu} on {interface}");
    match *mtu {
        ..MTU_MIN => {
            Finding::fail(CHECK, seen, format!("set at least {MTU_MIN}: ip link set {interface} mtu {MTU_MIN}"))
        }
        MTU_MIN..MTU_ADVISED => Finding::warn(CHECK, seen, "works, but larger packets cost less work"),
        _ => Finding::ok(CHECK, seen),
    }
}

fn read_mtu(interface: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

/// Columns: interface, destination, gateway, flags, reference count, use, metric, mask; addresses as hex words in the
/// machine's byte order.
fn parse_routes(text: &str) -> Vec<Route> {
    text.lines().skip(1).filter_map(parse_route).collect()
}

fn parse_route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let network = Ipv4Net::with_netmask(address(fields.get(1)?)?, address(fields.get(7)?)?).ok()?;
    Some(Route { interface: (*fields.first()?).to_owned(), network })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    #[test]
    fn smallest_interface_decides() {
        let severity = |mtu| judge(&[("eth0".into(), 9000), ("wg0".into(), mtu)]).severity;
        assert_eq!([severity(1200), severity(1420), severity(1500)], [Severity::Fail, Severity::Warn, Severity::Ok]);
        assert_eq!(judge(&[]).severity, Severity::Ok);
    }

    #[test]
    fn interface_is_found_by_the_network_of_the_address() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |interface, network, mask| {
            format!("{interface}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(network), hex(mask))
        };
        let text = "Iface\tDestination\n".to_owned()
            + &line("eth0", [0; 4], [0; 4])
            + &line("eth1", [10, 42, 0, 0], [255, 255, 255, 0])
            + "garbage\n";
        let routes = parse_routes(&text);
        assert_eq!(routes.len(), 2);
        let of = |address: &str| -> Vec<&str> {
            let concerned = routes.iter().filter(|route| concerns(route, address.parse().unwrap()));
            concerned.map(|route| route.interface.as_str()).collect()
        };
        assert_eq!(of("10.42.0.9"), ["eth1"]);
        assert_eq!(of("0.0.0.0"), ["eth0", "eth1"]);
        assert!(of("127.0.0.1").is_empty());
    }
}
