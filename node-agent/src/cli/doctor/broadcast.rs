//! Does a broadcast leave the host and come back? Without broadcasts an office still works, by its rendezvous point.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::Finding;

const CHECK: &str = "broadcast";
/// A host hears its own broadcast within microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
const PROBE: &[u8] = b"peerdist doctor";

pub(super) fn check(address: IpAddr) -> Finding {
    let (source, target) = match address {
        IpAddr::V4(address) if address.is_unspecified() || address.is_loopback() => {
            (Ipv4Addr::LOCALHOST, LOOPBACK_BROADCAST)
        }
        IpAddr::V4(address) => (address, Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => {
            let advice = "holders are learned from the rendezvous point; give the office the type WiFi";
            return Finding::warn(CHECK, "IPv6 has no broadcasts", advice);
        }
    };
    match send_and_hear(source, target) {
        Ok(()) => Finding::ok(CHECK, format!("{target} from {source} is heard")),
        Err(error) => Finding::warn(
            CHECK,
            format!("{target} from {source} is not heard: {error}"),
            "allow UDP 34329 in the host's firewall (peerdist ports --format nftables), or give the office the type WiFi",
        ),
    }
}

fn send_and_hear(source: Ipv4Addr, target: Ipv4Addr) -> io::Result<()> {
    let listen_on = if target == LOOPBACK_BROADCAST { target } else { Ipv4Addr::UNSPECIFIED };
    let receiver = UdpSocket::bind(SocketAddrV4::new(listen_on, 0))?;
    receiver.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    sender.set_broadcast(true)?;
    sender.bind(&SocketAddrV4::new(source, 0).into())?;
    sender.send_to(PROBE, &SocketAddrV4::new(target, receiver.local_addr()?.port()).into())?;
    let mut buffer = [0; 64];
    let (length, _) = receiver.recv_from(&mut buffer)?;
    let heard = buffer.get(..length) == Some(PROBE);
    heard.then_some(()).ok_or_else(|| io::Error::other("something else arrived first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hears_its_broadcasts() {
        let finding = check(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(finding, Finding::ok(CHECK, "127.255.255.255 from 127.0.0.1 is heard"));
    }
}
