//! Does a broadcast to the subnet, on the port of broadcasts, leave the host and come back? Without broadcasts an office
//! still works, by its rendezvous point.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use peerdist_core::ports::CLIENT_BROADCAST;

use super::Finding;
use crate::transport::interface::Interface;
use crate::transport::socket;

const CHECK: &str = "broadcast";
/// A host hears its own broadcast within microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Datagrams of others that may arrive before the own one.
const HEARD_MAX: u32 = 16;
const PROBE: &[u8] = b"peerdist doctor";
/// Said when no address was given.
const UNTRIED: &str = "of this host's subnets none was tried: name one of its addresses with --address";

pub(super) fn check(address: IpAddr) -> Finding {
    let source = if address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address };
    if source.is_ipv6() {
        let advice = "holders are learned from the rendezvous point; give the office the type WiFi";
        return Finding::warn(CHECK, "IPv6 has no broadcasts", advice);
    }
    let Some(target) = Interface::of(source).broadcast else {
        let advice = "give an address of this host in a subnet with --address, or give the office the type WiFi";
        return Finding::warn(CHECK, format!("no interface with a subnet holds {source}"), advice);
    };
    match send_and_hear(source, SocketAddr::new(target.into(), CLIENT_BROADCAST)) {
        Ok(()) if address.is_unspecified() => Finding::ok(CHECK, format!("{target} from {source} is heard; {UNTRIED}")),
        Ok(()) => Finding::ok(CHECK, format!("{target} from {source} is heard")),
        Err(error) => Finding::warn(
            CHECK,
            format!("{target} from {source} is not heard: {error}"),
            "allow UDP 34329 in the host's firewall (peerdist ports --format nftables), or give the office the type WiFi",
        ),
    }
}

/// Hears as an agent does, also beside one; others of the subnet may broadcast meanwhile.
fn send_and_hear(source: IpAddr, target: SocketAddr) -> io::Result<()> {
    let receiver: UdpSocket = socket::bind(target, true).map_err(io::Error::other)?.into();
    receiver.set_nonblocking(false)?;
    receiver.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let sender = UdpSocket::bind(SocketAddr::new(source, 0))?;
    sender.set_broadcast(true)?;
    sender.send_to(PROBE, target)?;
    let mut buffer = [0; 64];
    for _ in 0..HEARD_MAX {
        let (length, _) = receiver.recv_from(&mut buffer)?;
        if buffer.get(..length) == Some(PROBE) {
            return Ok(());
        }
    }
    Err(io::Error::other("only others were heard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hears_its_broadcasts() {
        let heard = "127.255.255.255 from 127.0.0.1 is heard";
        assert_eq!(check(Ipv4Addr::LOCALHOST.into()), Finding::ok(CHECK, heard));
        assert_eq!(check(Ipv4Addr::UNSPECIFIED.into()), Finding::ok(CHECK, format!("{heard}; {UNTRIED}")));
    }
}
