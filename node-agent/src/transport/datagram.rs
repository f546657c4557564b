//! One `sendmsg`: datagrams of one size to one destination, with the traffic class of the packet.
//!
//! The traffic class holds ECN (from QUIC) and the DSCP: Lower Effort (RFC 8622) for everything of the Background
//! Protocol in both directions, the default for the rest. Linux only.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use noq::udp::EcnCodepoint;
use peerdist_core::ports;
use rustix::io::Errno;
use socket2::{MsgHdr, SockAddr, SockRef};

/// DSCP 1 in the upper six bits.
const LOWER_EFFORT: u8 = 1 << 2;

/// Ports of the Background Protocol: what goes to or comes from one of them gives way.
const BACKGROUND_PORTS: [u16; 5] = [
    ports::SERVER_BACKGROUND,
    ports::SERVER_BACKGROUND_REPLY,
    ports::CLIENT_BACKGROUND,
    ports::CLIENT_BACKGROUND_REPLY,
    ports::CLIENT_BACKGROUND_CONTENT,
];

const IPPROTO_IP: i32 = 0;
const IP_TOS: i32 = 1;
const IPPROTO_IPV6: i32 = 41;
const IPV6_TCLASS: i32 = 67;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

const WORD: usize = size_of::<usize>();
/// Length, level and type in front of each control message.
const CONTROL_HEADER: usize = WORD + 8;
/// A control message with up to one word of data.
const CONTROL_MESSAGE: usize = CONTROL_HEADER + WORD;

/// DSCP and ECN of a datagram.
pub(super) fn traffic_class(local_port: u16, destination_port: u16, ecn: Option<EcnCodepoint>) -> u8 {
    let background = BACKGROUND_PORTS.contains(&local_port) || BACKGROUND_PORTS.contains(&destination_port);
    let ecn = ecn.map_or(0, |codepoint| codepoint as u8);
    if background { LOWER_EFFORT | ecn } else { ecn }
}

/// Sends `contents`, cut by the kernel into datagrams of `segment_bytes`.
pub(super) fn send(
    socket: &SockRef<'_>,
    destination: SocketAddr,
    contents: &[u8],
    segment_bytes: Option<usize>,
    traffic_class: u8,
) -> io::Result<()> {
    let mut control = [0; 2 * CONTROL_MESSAGE];
    let (level, kind) = if destination.is_ipv4() { (IPPROTO_IP, IP_TOS) } else { (IPPROTO_IPV6, IPV6_TCLASS) };
    write_control(&mut control[..CONTROL_MESSAGE], level, kind, &i32::from(traffic_class).to_ne_bytes());
    let used = match segment_bytes {
        Some(bytes) => {
            let bytes = u16::try_from(bytes).map_err(|_| io::Error::from(Errno::MSGSIZE))?;
            write_control(&mut control[CONTROL_MESSAGE..], SOL_UDP, UDP_SEGMENT, &bytes.to_ne_bytes());
            2 * CONTROL_MESSAGE
        }
        None => CONTROL_MESSAGE,
    };
    let (address, buffers) = (SockAddr::from(destination), [IoSlice::new(contents)]);
    let message = MsgHdr::new().with_addr(&address).with_buffers(&buffers).with_control(&control[..used]);
    loop {
        match socket.sendmsg(&message, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Larger than the path or the interface takes.
pub(super) fn is_too_large(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

/// The interface cannot segment.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::INVAL))
}

/// Writes one `cmsghdr` with its data.
fn write_control(space: &mut [u8], level: i32, kind: i32, data: &[u8]) {
    let length = CONTROL_HEADER + data.len();
    space[..WORD].copy_from_slice(&length.to_ne_bytes());
    space[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    space[WORD + 4..CONTROL_HEADER].copy_from_slice(&kind.to_ne_bytes());
    space[CONTROL_HEADER..length].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn segments_arrive_as_datagrams() {
        for address in ["127.77.250.3:0", "[::1]:0"] {
            let receiver = UdpSocket::bind(address).unwrap();
            let sender = UdpSocket::bind(address).unwrap();
            let to = receiver.local_addr().unwrap();
            send(&SockRef::from(&sender), to, &[7; 2500], Some(1000), LOWER_EFFORT).unwrap();
            send(&SockRef::from(&sender), to, &[7; 10], None, 0).unwrap();
            let mut buffer = [0; 2000];
            let lengths: Vec<usize> = (0..4).map(|_| receiver.recv(&mut buffer).unwrap()).collect();
            assert_eq!(lengths, [1000, 1000, 500, 10]);
        }
    }

    #[test]
    fn background_is_marked_in_both_directions() {
        let class = |local, destination| traffic_class(local, destination, Some(EcnCodepoint::Ect0));
        assert_eq!(class(ports::CLIENT_CONTENT_CONTROL, ports::CLIENT_BACKGROUND_CONTENT), LOWER_EFFORT | 2);
        assert_eq!(class(ports::CLIENT_BACKGROUND_CONTENT, ports::CLIENT_CONTENT_CONTROL), LOWER_EFFORT | 2);
        assert_eq!(class(ports::CLIENT_CONTENT_CONTROL, ports::CLIENT_FOREGROUND_CONTENT), 2);
    }
}
