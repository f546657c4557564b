//! Which addresses sources may be fetched from. Who writes objects in a cluster need not reach what the server reaches,
//! so every connection is checked on the address that it really goes to: names by the resolver, at each connection anew,
//! and literal addresses, which no resolver sees, at each request and redirect.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::host_addresses::HostAddresses;
use super::networks_file::{NetworksFile, NetworksFileError};

/// Networks that hold no package source of anybody else: this host, its link with the metadata services of clouds,
/// shared address space, groups.
const SPECIAL: [&str; 17] = [
    "0.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b:1::/48",
    "fd00:42::/32",
    "fd00:c1::/32",
    "fd00:ec2::/32",
    "fd20:ce::/32",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// The rule of one server.
#[derive(Debug, Clone)]
pub struct AddressRule(Option<Arc<Networks>>);

#[derive(Debug)]
struct Networks {
    allowed: Vec<IpNet>,
    forbidden: Vec<IpNet>,
    /// More forbidden ones, which change while we run.
    file: Option<NetworksFile>,
    /// And those of this host, which do so, too.
    host: Option<HostAddresses>,
}

/// An address that the rule forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} may not be connected to")]
pub struct AddressForbidden(pub IpAddr);

/// A name for which the resolver has no address.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} cannot be resolved: {source}")]
pub(super) struct NameUnresolved {
    pub(super) name: String,
    /// What the resolver said.
    pub(super) source: io::Error,
}

impl AddressRule {
    /// Everything: who writes the objects may do whatever this process may.
    pub fn any() -> Self {
        Self(None)
    }

    /// What is neither special nor in one of the `forbidden` networks, and whatever lies in one of the `allowed` ones.
    pub fn checked(allowed: Vec<IpNet>, forbidden: Vec<IpNet>) -> Self {
        Self::with_networks(allowed, forbidden, None, None)
    }

    /// The same, and the networks that a file names are forbidden too, and all addresses of this host, both as they are
    /// at each check.
    ///
    /// # Errors
    /// [`NetworksFileError`]: nothing is fetched while nobody knows what is forbidden.
    pub fn following(
        allowed: Vec<IpNet>,
        forbidden: Vec<IpNet>,
        file: Option<PathBuf>,
    ) -> Result<Self, NetworksFileError> {
        let file = file.map(NetworksFile::open).transpose()?;
        Ok(Self::with_networks(allowed, forbidden, file, Some(HostAddresses::of_kernel())))
    }

    fn with_networks(
        allowed: Vec<IpNet>,
        mut forbidden: Vec<IpNet>,
        file: Option<NetworksFile>,
        host: Option<HostAddresses>,
    ) -> Self {
        forbidden.extend(SPECIAL.iter().filter_map(|network| network.parse::<IpNet>().ok()));
        Self(Some(Arc::new(Networks { allowed, forbidden, file, host })))
    }

    /// Whether addresses are checked at all. A proxy would connect to where nobody can check.
    pub fn is_checked(&self) -> bool {
        self.0.is_some()
    }

    /// # Errors
    /// [`AddressForbidden`]
    pub fn check(&self, address: IpAddr) -> Result<(), AddressForbidden> {
        let Some(networks) = &self.0 else { return Ok(()) };
        let within = |networks: &[IpNet], address: IpAddr| networks.iter().any(|network| network.contains(&address));
        let forms = || [Some(address), inner(address)].into_iter().flatten();
        let named = |form| networks.file.as_ref().is_some_and(|file| file.contains(form));
        let own = |form| networks.host.as_ref().is_some_and(|host| host.contain(form));
        let forbidden = |form| within(&networks.forbidden, form) || named(form) || own(form);
        let allowed = forms().all(|form| within(&networks.allowed, form) || !forbidden(form));
        if allowed { Ok(()) } else { Err(AddressForbidden(address)) }
    }

    /// Checks a host that is a literal address.
    ///
    /// # Errors
    /// [`AddressForbidden`]
    pub fn check_host(&self, url: &Url) -> Result<(), AddressForbidden> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        literal.map_or(Ok(()), |address| self.check(address))
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn inner(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let octets = address.octets();
    let four = |at: usize| octets[at..].first_chunk::<4>().map(|&four| IpAddr::V4(Ipv4Addr::from(four)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] if address != Ipv6Addr::LOCALHOST && !address.is_unspecified() => four(12),
        [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => four(12),
        [0x2002, ..] => four(2),
        _ => None,
    }
}

impl Resolve for AddressRule {
    /// Looks the name up, and fails if any of its addresses is forbidden: one that is not would only be luck.
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.clone();
        Box::pin(async move {
            let looked_up = tokio::net::lookup_host((name.as_str(), 0)).await;
            let unresolved = |source| NameUnresolved { name: name.as_str().to_owned(), source };
            let found: Vec<SocketAddr> = looked_up.map_err(unresolved)?.collect();
            for address in &found {
                rule.check(address.ip()).map_err(io::Error::other)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule() -> AddressRule {
        let networks = |text: &str| vec![text.parse().unwrap()];
        AddressRule::checked(networks("127.0.0.8/32"), networks("10.244.0.0/16"))
    }

    #[test]
    fn the_own_host_metadata_and_named_networks_are_forbidden_in_every_form() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "10.244.3.4",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.244.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::ffff:0:127.0.0.1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(rule().check(address), Err(AddressForbidden(address)));
            assert!(AddressRule::any().check(address).is_ok());
        }
        for address in ["93.184.216.34", "10.0.0.7", "192.168.1.1", "2606:2800::1", "127.0.0.8", "fd12::1"] {
            assert!(rule().check(address.parse().unwrap()).is_ok(), "{address}");
        }
    }

    #[test]
    fn addresses_of_this_host_are_forbidden_in_every_form_unless_they_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let tables = folder.path().join("tables");
        std::fs::write(&tables, "Local:\n  |-- 172.17.0.1\n     /32 host LOCAL\n").unwrap();
        let rule = |allowed| {
            let host = HostAddresses::in_files(tables.clone(), folder.path().join("none"), Duration::ZERO);
            AddressRule::with_networks(allowed, Vec::new(), None, Some(host))
        };
        let own: IpAddr = "172.17.0.1".parse().unwrap();
        for form in ["172.17.0.1", "::ffff:172.17.0.1", "64:ff9b::ac11:1"] {
            let form: IpAddr = form.parse().unwrap();
            assert_eq!(rule(Vec::new()).check(form), Err(AddressForbidden(form)));
        }
        assert!(rule(vec![own.into()]).check(own).is_ok());
        assert!(rule(Vec::new()).check("172.17.0.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn literal_hosts_are_found_however_they_are_written() {
        for url in [
            "http://127.0.0.1/a",
            "http://127.1/a",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::1]:80/a",
            "http://[::ffff:7f00:1]/",
            "https://user@169.254.169.254/latest",
            "http://0/",
        ] {
            assert!(rule().check_host(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(rule().check_host(&Url::parse("https://example.com/127.0.0.1").unwrap()).is_ok());
    }

    #[tokio::test]
    async fn names_of_forbidden_addresses_do_not_resolve() {
        let resolved = rule().resolve("localhost".parse().unwrap()).await;
        let error = resolved.err().unwrap();
        let forbidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        assert!(forbidden.is_some_and(|error| error.is::<AddressForbidden>()));
        assert!(AddressRule::any().resolve("localhost".parse().unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn names_without_address_are_told_from_other_errors() {
        // No label may be so long: nobody has to be asked.
        let name = format!("{}.invalid", "n".repeat(64));
        let error = AddressRule::any().resolve(name.parse().unwrap()).await.err().unwrap();
        assert_eq!(error.downcast_ref::<NameUnresolved>().map(|unresolved| &unresolved.name), Some(&name));
    }
}
