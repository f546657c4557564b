//! Who holds a port: the process where /proc allows the look, otherwise the socket's user and inode.
//!
//! Linux only shows the sockets of other users' processes to root, but the owner of every socket to everybody.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Transport protocol of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The ports of the catalogue.
    Udp,
    /// The HTTP ports; only listening sockets hold one.
    Tcp,
}

/// The socket that is bound to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// User id of the socket's owner.
    pub user_id: u32,
    /// Inode of the socket, to be found in `ss -e` or /proc by somebody with more rights.
    pub inode: u64,
    /// The process, where it can be seen.
    pub process: Option<HoldingProcess>,
}

/// A process that has the socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingProcess {
    /// Process id.
    pub id: u32,
    /// Short name of its command.
    pub name: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(process) => write!(formatter, "process {} ({}) of user {}", process.id, process.name, self.user_id),
            None => write!(formatter, "a process of user {} (socket inode {})", self.user_id, self.inode),
        }
    }
}

/// Finds the socket that keeps others from binding the address: bound to it, or to all addresses of the port.
/// `None` when there is none (any more) or /proc is not there.
pub fn port_holder(protocol: Protocol, address: SocketAddr) -> Option<PortHolder> {
    // The table may leave a socket out when others come and go while it is read.
    let socket = (0..TABLE_READS).find_map(|_| holding_socket(protocol, address))?;
    Some(PortHolder { user_id: socket.user_id, inode: socket.inode, process: process_with(socket.inode) })
}

fn holding_socket(protocol: Protocol, address: SocketAddr) -> Option<SocketRow> {
    let (files, listening) = match protocol {
        Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], None),
        Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], Some(TCP_LISTEN)),
    };
    let sockets = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    sockets
        .flat_map(|text| parse_sockets(&text))
        .find(|socket| listening.is_none_or(|state| socket.state == state) && holds(socket.local, address))
}

/// How often the table is read before nobody is said to hold a port.
const TABLE_READS: usize = 3;
/// State LISTEN in /proc/net/tcp.
const TCP_LISTEN: u8 = 0x0A;

struct SocketRow {
    local: SocketAddr,
    state: u8,
    user_id: u32,
    inode: u64,
}

fn holds(bound: SocketAddr, wanted: SocketAddr) -> bool {
    bound.port() == wanted.port()
        && (bound.ip().to_canonical() == wanted.ip().to_canonical()
            || bound.ip().is_unspecified()
            || wanted.ip().is_unspecified())
}

fn parse_sockets(table: &str) -> Vec<SocketRow> {
    table.lines().skip(1).filter_map(parse_row).collect()
}

/// Fields: number, local, remote, state, queues, timer, retransmits, user, timeout, inode.
fn parse_row(line: &str) -> Option<SocketRow> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(SocketRow {
        local: parse_address(fields.get(1)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        user_id: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:8612`: the address as 32-bit words in the machine's byte order, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<u8>> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .try_fold(Vec::new(), |mut bytes, word| {
            bytes.extend(word?.to_ne_bytes());
            Some(bytes)
        });
    let bytes = words?;
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

fn process_with(inode: u64) -> Option<HoldingProcess> {
    let link = PathBuf::from(format!("socket:[{inode}]"));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .find(|(_, path)| has_open(path, &link))
        .map(|(id, path)| HoldingProcess { id, name: command_name(&path) })
}

fn has_open(process: &Path, link: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == link))
}

fn command_name(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).map(|name| name.trim_end().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn own_sockets_are_found_with_process_and_name() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for (protocol, address) in
            [(Protocol::Udp, udp.local_addr().unwrap()), (Protocol::Tcp, tcp.local_addr().unwrap())]
        {
            let holder = port_holder(protocol, address).unwrap();
            assert_eq!(holder.process.as_ref().map(|process| process.id), Some(std::process::id()));
            assert!(holder.to_string().starts_with(&format!("process {}", std::process::id())), "{holder}");
        }
    }

    #[test]
    fn free_port_has_no_holder() {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(port_holder(Protocol::Udp, address), None);
    }

    #[test]
    fn socket_bound_to_all_addresses_holds_each() {
        let all: SocketAddr = "[::]:34323".parse().unwrap();
        assert!(holds(all, "127.34.0.1:34323".parse().unwrap()));
        assert!(!holds(all, "127.34.0.1:34324".parse().unwrap()));
        assert!(!holds("127.0.0.1:34323".parse().unwrap(), "127.34.0.1:34323".parse().unwrap()));
    }

    #[test]
    fn unreadable_rows_are_skipped() {
        assert!(parse_sockets("header\ngarbage\n 1: 0100:1 x\n").is_empty());
        assert!(parse_address("zz00007F:0001").is_none());
    }
}
