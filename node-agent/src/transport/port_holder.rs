//! Who holds a UDP port that could not be bound, as far as /proc tells: process id and name, else user and inode.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The holder of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// A process that this user may look at.
    Process {
        /// Process id.
        process_id: u32,
        /// Name of its program.
        name: String,
    },
    /// A socket of a process that this user may not look at.
    Socket {
        /// User of the socket.
        user_id: u32,
        /// Its inode: `ss -uae` shows it too.
        inode: u64,
    },
    /// Nothing was found: the holder is gone already or in another network namespace.
    Unknown,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { process_id, name } => write!(formatter, "process {process_id} ({name})"),
            Self::Socket { user_id, inode } => write!(formatter, "a process of user {user_id} (socket inode {inode})"),
            Self::Unknown => formatter.write_str("an unknown process"),
        }
    }
}

/// Looks for the socket that keeps `address` from being bound.
pub(super) fn find(address: SocketAddr) -> PortHolder {
    let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let text = fs::read_to_string(table).unwrap_or_default();
    let socket = text.lines().skip(1).filter_map(SocketLine::parse).find(|line| line.blocks(address));
    let Some(socket) = socket else { return PortHolder::Unknown };
    process_with_socket(socket.inode).unwrap_or(PortHolder::Socket { user_id: socket.user_id, inode: socket.inode })
}

/// One line of /proc/net/udp or udp6.
struct SocketLine {
    local: SocketAddr,
    user_id: u32,
    inode: u64,
}

impl SocketLine {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let local = parse_address(fields.nth(1)?)?;
        let user_id = fields.nth(5)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Self { local, user_id, inode })
    }

    fn blocks(&self, wanted: SocketAddr) -> bool {
        self.local.port() == wanted.port() && (self.local.ip() == wanted.ip() || self.local.ip().is_unspecified())
    }
}

/// `0100007F:8623`: groups of four bytes in host order, port in hexadecimal.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let octets: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

fn process_with_socket(inode: u64) -> Option<PortHolder> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let process_id: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        descriptors
            .find(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))?;
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
        Some(PortHolder::Process { process_id, name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_of_a_bound_port_is_this_process() {
        let socket = std::net::UdpSocket::bind("127.77.250.1:0").unwrap();
        let holder = find(socket.local_addr().unwrap());
        assert!(
            matches!(holder, PortHolder::Process { process_id, .. } if process_id == std::process::id()),
            "{holder}"
        );
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        assert!(matches!(find(socket.local_addr().unwrap()), PortHolder::Process { .. }));
    }

    #[test]
    fn free_port_has_no_holder() {
        let address = std::net::UdpSocket::bind("127.77.250.2:0").unwrap().local_addr().unwrap();
        assert_eq!(find(address), PortHolder::Unknown);
    }
}
