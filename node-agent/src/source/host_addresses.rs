//! The addresses of this host, whichever interface holds them, as the kernel's tables say. What answers there is the host
//! itself, and would trust a request as one of its own. Addresses come and go with bridges, tunnels and moving services,
//! so that the tables are read again and again.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

/// The tables of IPv4 routes. That of addresses of this host is among them; no other file has it.
const IPV4_TABLES: &str = "/proc/net/fib_trie";
/// The addresses of IPv6, a line each. A kernel without IPv6 has no such file.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";
/// Most of a file that is read: about two hundred thousand routes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How long an answer counts: one fetch asks for every address of a name and for every redirect.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Hexadecimal digits of an address of IPv6.
const IPV6_DIGITS: usize = 32;

/// The addresses, looked up anew when they are asked for.
#[derive(Debug)]
pub(super) struct HostAddresses {
    ipv4_tables: PathBuf,
    ipv6_addresses: PathBuf,
    kept_for: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked_at: Option<Instant>,
    networks: Vec<IpNet>,
}

impl HostAddresses {
    /// Of the network that this process lives in, which is the node's in a cluster.
    pub(super) fn of_kernel() -> Self {
        Self::in_files(IPV4_TABLES.into(), IPV6_ADDRESSES.into(), KEPT_FOR)
    }

    /// Of a network that files of the same form describe, and how long they count.
    pub(super) fn in_files(ipv4_tables: PathBuf, ipv6_addresses: PathBuf, kept_for: Duration) -> Self {
        Self { ipv4_tables, ipv6_addresses, kept_for, known: Mutex::default() }
    }

    /// Whether the address is one of this host. Where its tables cannot be read, those that were known before still are.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked_at.is_none_or(|moment| moment.elapsed() >= self.kept_for) {
            match self.read() {
                Ok(networks) => known.networks = networks,
                Err(error) => {
                    tracing::warn!(%error, "the addresses of this host cannot be read: those known before count")
                }
            }
            known.looked_at = Some(Instant::now());
        }
        known.networks.iter().any(|network| network.contains(&address))
    }

    fn read(&self) -> io::Result<Vec<IpNet>> {
        let mut networks = parse_ipv4(&read(&self.ipv4_tables)?);
        match read(&self.ipv6_addresses) {
            Ok(text) => networks.extend(parse_ipv6(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(networks)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    // A name of an interface may be any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Each table has its name in a line that is not indented. In it each address is a leaf, and below that is a line for each
/// of its routes: the length of the prefix, the scope and the kind.
fn parse_ipv4(text: &str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    let (mut in_local_table, mut leaf) = (false, None);
    for line in text.lines() {
        if !line.starts_with(' ') {
            // Proxies catch connections to everybody by routes of the same kind in tables of their own.
            in_local_table = line == "Local:";
        } else if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            leaf = address.trim().parse::<Ipv4Addr>().ok();
        } else if in_local_table {
            networks.extend(leaf.and_then(|address| own_network(address, line)));
        }
    }
    networks
}

/// The address, or a network that is the host's as a whole. A route for everything says nothing about whose it is.
fn own_network(address: Ipv4Addr, line: &str) -> Option<IpNet> {
    let mut words = line.split_whitespace();
    let bits: u8 = words.next()?.strip_prefix('/')?.parse().ok()?;
    let kind = words.nth(1)?;
    let network = Ipv4Net::new(address, bits).ok()?;
    (kind == "LOCAL" && bits > 0).then_some(IpNet::V4(network))
}

/// Each line begins with an address.
fn parse_ipv6(text: &str) -> Vec<IpNet> {
    let address = |line: &str| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == IPV6_DIGITS)?;
        let number = u128::from_str_radix(digits, 16).ok()?;
        Some(IpNet::from(IpAddr::V6(Ipv6Addr::from(number))))
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: [&str; 25] = [
        "Main:",
        "  +-- 0.0.0.0/0 3 0 5",
        "     |-- 0.0.0.0",
        "        /0 universe UNICAST",
        "     |-- 10.9.9.9",
        "        /32 host LOCAL",
        "Local:",
        "  +-- 0.0.0.0/0 3 0 5",
        "     +-- 127.0.0.0/31 1 0 0",
        "        |-- 127.0.0.0",
        "           /8 host LOCAL",
        "     |-- 172.17.0.1",
        "        /32 host LOCAL",
        "     |-- 172.17.255.255",
        "        /32 link BROADCAST",
        "     |-- 192.0.2.0",
        "        /24 host LOCAL",
        "        /24 link UNICAST tos=4",
        "     |-- 0.0.0.0",
        "        /0 host LOCAL",
        "Id 100:",
        "  |-- 0.0.0.0",
        "     /0 host LOCAL",
        "  |-- 10.8.8.8",
        "     /32 host LOCAL",
    ];
    const IPV6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fd000000000000000000000000000002 04 40 00 82     eth0\n";

    fn texts(networks: Vec<IpNet>) -> Vec<String> {
        networks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_every_interface_are_found_and_what_others_reach_by_this_host_is_not() {
        assert_eq!(texts(parse_ipv4(&IPV4.join("\n"))), ["127.0.0.0/8", "172.17.0.1/32", "192.0.2.0/24"]);
        assert_eq!(texts(parse_ipv6(IPV6)), ["::1/128", "fd00::2/128"]);
    }

    #[test]
    fn lines_that_make_no_sense_name_nobody() {
        for line in ["", "  ", "  /", "  /32", "  /32 host", "  /33 host LOCAL", "  /x host LOCAL", "  32 host LOCAL"] {
            let text = format!("Local:\n  |-- 10.0.0.1\n{line}\n  |-- 10.0.0\n  /32 host LOCAL\n");
            assert!(parse_ipv4(&text).is_empty(), "{line:?}");
        }
        assert!(parse_ipv4("  /32 host LOCAL\nLocal:\n  /32 host LOCAL").is_empty());
        for line in ["", " ", "fd00::1 04 40 00 82 eth0", &"f".repeat(33), &"g".repeat(32), &"\u{e4}".repeat(16)] {
            assert!(parse_ipv6(line).is_empty(), "{line:?}");
        }
    }

    #[test]
    fn addresses_that_come_and_go_are_noticed_and_a_table_that_is_gone_takes_none_away() {
        let folder = tempfile::tempdir().unwrap();
        let (ipv4, ipv6) = (folder.path().join("ipv4"), folder.path().join("ipv6"));
        let host = HostAddresses::in_files(ipv4.clone(), ipv6.clone(), Duration::ZERO);
        let contain = |address: &str| host.contain(address.parse().unwrap());
        assert!(!contain("172.17.0.1"), "nothing can be read yet");
        std::fs::write(&ipv4, IPV4.join("\n")).unwrap();
        assert!(contain("172.17.0.1") && !contain("172.17.0.2") && !contain("fd00::2"));
        std::fs::write(&ipv6, IPV6).unwrap();
        assert!(contain("fd00::2"));
        std::fs::remove_file(&ipv4).unwrap();
        assert!(contain("172.17.0.1"));
        std::fs::write(&ipv4, "Local:\n").unwrap();
        assert!(!contain("172.17.0.1"));
        std::fs::File::options().write(true).open(&ipv4).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        std::fs::remove_file(&ipv6).unwrap();
        assert!(contain("fd00::2"), "what is too long is no table");
    }

    #[test]
    fn the_kernel_tells_at_least_the_loopback_addresses() {
        assert!(HostAddresses::of_kernel().contain(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
