//! Can the ports of the catalogue and of HTTP be bound, and if not, who has them?

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use peerdist_core::ports::{Role, listening_ports};

use super::Finding;
use crate::firewall::role_name;
use crate::http::{CLIENT_HTTP_PORT, SERVER_HTTP_PORT, VESC_HTTP_PORT};
use crate::port_holder::{Protocol, port_holder};

const CHECK: &str = "ports";

/// A port that cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct PortProblem {
    /// A stable word.
    pub(in crate::cli) reason: &'static str,
    /// What was seen, and what to do.
    pub(in crate::cli) finding: Finding,
}

/// One finding a role when all is well, one a port that cannot be bound.
pub(super) fn check(address: IpAddr) -> Vec<Finding> {
    [Role::Server, Role::Client, Role::Vesc].into_iter().flat_map(|role| check_role(address, role)).collect()
}

fn check_role(address: IpAddr, role: Role) -> Vec<Finding> {
    let problems = problems(address, role);
    if problems.is_empty() {
        return vec![Finding::ok(CHECK, format!("{}: all can be bound on {address}", role_name(role)))];
    }
    problems.into_iter().map(|problem| problem.finding).collect()
}

/// Ports of a role that cannot be bound, those of HTTP included.
pub(in crate::cli) fn problems(address: IpAddr, role: Role) -> Vec<PortProblem> {
    let http_port = match role {
        Role::Server => SERVER_HTTP_PORT,
        Role::Client => CLIENT_HTTP_PORT,
        Role::Vesc => VESC_HTTP_PORT,
    };
    let udp = listening_ports(role).into_iter().map(|port| (Protocol::Udp, port));
    udp.chain([(Protocol::Tcp, http_port)])
        .filter_map(|(protocol, port)| check_port(protocol, SocketAddr::new(address, port), role))
        .collect()
}

fn check_port(protocol: Protocol, address: SocketAddr, role: Role) -> Option<PortProblem> {
    let error = match protocol {
        Protocol::Udp => UdpSocket::bind(address).err(),
        Protocol::Tcp => TcpListener::bind(address).err(),
    }?;
    let name = if protocol == Protocol::Udp { "udp" } else { "tcp" };
    let what = format!("{}: {address}/{name}", role_name(role));
    if error.kind() != io::ErrorKind::AddrInUse {
        let advice = "give --address an address of this host that the user may bind";
        let finding = Finding::fail(CHECK, format!("{what} cannot be bound: {error}"), advice);
        return Some(PortProblem { reason: "AddressUnusable", finding });
    }
    let holder = port_holder(protocol, address);
    let reason = "PortInUse";
    if holder.as_ref().and_then(|holder| holder.process.as_ref()).is_some_and(|process| process.name == "peerdist") {
        let finding = Finding::ok(CHECK, format!("{what} is in use by peerdist itself"));
        return Some(PortProblem { reason, finding });
    }
    let holder = holder.map_or("somebody that /proc does not show".to_owned(), |holder| holder.to_string());
    let advice = "stop it, or reserve the range so that nobody gets these ports by chance (see reserved range)";
    Some(PortProblem { reason, finding: Finding::fail(CHECK, format!("{what} is held by {holder}"), advice) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_in_use_names_its_holder() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let PortProblem { reason, finding } =
            check_port(Protocol::Udp, socket.local_addr().unwrap(), Role::Client).unwrap();
        assert_eq!(reason, "PortInUse");
        assert!(finding.seen.contains(&format!("held by process {}", std::process::id())), "{finding:?}");
    }

    #[test]
    fn foreign_address_is_no_port_in_use() {
        let finding = check_port(Protocol::Udp, "192.0.2.1:0".parse().unwrap(), Role::Client).unwrap().finding;
        assert!(finding.seen.contains("cannot be bound"), "{finding:?}");
    }
}
