//! Do whole datagrams fit? A broadcast is 1,200 bytes and QUIC starts with as many.

use std::net::IpAddr;

use super::Finding;
use crate::transport::interface::{self, Route};

const CHECK: &str = "MTU";
/// 1,200 bytes of payload, and headers of UDP and IP with room for a tunnel's.
const MTU_MIN: u32 = 1280;
/// What Ethernet gives; less costs packets a second.
const MTU_ADVISED: u32 = 1500;

pub(super) fn check(address: IpAddr) -> Finding {
    let routes = interface::routes().into_iter().filter(|route| concerns(route, address));
    let mut interfaces: Vec<String> = routes.map(|route| route.interface).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    let mtus = interfaces.into_iter().filter_map(|name| Some((name.clone(), interface::mtu(&name)?)));
    judge(&mtus.collect::<Vec<_>>())
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
        let route = |network: &str| Route::connected("eth0", network.parse().unwrap());
        let is_concerned = |network: &str, address: &str| concerns(&route(network), address.parse().unwrap());
        assert!(is_concerned("10.42.0.0/24", "10.42.0.9") && is_concerned("10.42.0.0/24", "0.0.0.0"));
        assert!(is_concerned("0.0.0.0/0", "0.0.0.0") && !is_concerned("0.0.0.0/0", "10.42.0.9"));
        assert!(!is_concerned("10.42.0.0/24", "127.0.0.1") && !is_concerned("10.42.0.0/24", "::1"));
    }
}
