//! What a peer's certificate says: who it is, from which addresses it may speak, and until when.
//! Whether the certificate is to be believed is decided in `tls`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::ports::Role;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Addresses in one certificate that are looked at.
const ADDRESSES_MAX: usize = 16;
/// The second in which a certificate ends is a part of its time.
const LAST_SECOND: Duration = Duration::from_secs(1);
/// How long a connection lasts to a peer whose certificate has run out and was taken all the same.
const TOLERATED_CONNECTION_LIFETIME: Duration = Duration::from_secs(3600);

/// Who a peer is, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerIdentity {
    /// The peer-to-peer server.
    Server,
    /// A client.
    Client {
        /// Its office.
        office: OfficeName,
        /// Its node.
        node: NodeName,
    },
    /// A VMware Enterprise Systems Connector.
    Vesc {
        /// Its name.
        name: NodeName,
    },
    /// No certificate yet. Only ever comes with a single enrolment request.
    Enrolling,
}

impl PeerIdentity {
    /// The role that the certificate was issued for.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Server => Some(Role::Server),
            Self::Client { .. } => Some(Role::Client),
            Self::Vesc { .. } => Some(Role::Vesc),
            Self::Enrolling => None,
        }
    }

    /// The name in the certificate; a node that enrols has none.
    pub(super) fn to_uri(&self) -> Option<String> {
        match self {
            Self::Server => Some("peerdist://server".to_owned()),
            Self::Client { office, node } => Some(format!("peerdist://client/{office}/{node}")),
            Self::Vesc { name } => Some(format!("peerdist://vesc/{name}")),
            Self::Enrolling => None,
        }
    }

    fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("peerdist://")?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("server"), None, ..) => Some(Self::Server),
            (Some("client"), Some(office), Some(node), None) => {
                Some(Self::Client { office: office.parse().ok()?, node: node.parse().ok()? })
            }
            (Some("vesc"), Some(name), None, None) => Some(Self::Vesc { name: name.parse().ok()? }),
            _ => None,
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => formatter.write_str("server"),
            Self::Client { office, node } => write!(formatter, "node {node} of office {office}"),
            Self::Vesc { name } => write!(formatter, "connector {name}"),
            Self::Enrolling => formatter.write_str("a node that enrols"),
        }
    }
}

/// A certificate that is no certificate of peerdist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate.
    #[error("certificate cannot be parsed: expected X.509 in DER form")]
    Malformed,
    /// No name, or more than one.
    #[error("certificate does not name a peer: expected exactly one peerdist:// name")]
    NoIdentity,
}

/// What was read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    pub(super) identity: PeerIdentity,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl CertificateFacts {
    /// How long a connection may last that begins now. Certificates are looked at in handshakes only: one that lasted
    /// longer would keep its peer in after its certificate has run out.
    pub(super) fn connection_lifetime(&self, now: SystemTime) -> Duration {
        (self.not_after + LAST_SECOND).duration_since(now).unwrap_or(TOLERATED_CONNECTION_LIFETIME)
    }

    pub(super) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let identity = match (uris.next(), uris.next()) {
            (Some(uri), None) => PeerIdentity::parse(uri).ok_or(CertificateError::NoIdentity)?,
            _ => return Err(CertificateError::NoIdentity),
        };
        let addresses = names.iter().filter_map(address_of).take(ADDRESSES_MAX).collect();
        let validity = certificate.validity();
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Ok(Self {
            identity,
            addresses,
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

fn address_of(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    match bytes.len() {
        4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_survive_their_text_form() {
        let client = PeerIdentity::Client { office: "store-1".parse().unwrap(), node: "till-3".parse().unwrap() };
        let connector = PeerIdentity::Vesc { name: "hq".parse().unwrap() };
        for identity in [PeerIdentity::Server, client, connector] {
            assert_eq!(PeerIdentity::parse(&identity.to_uri().unwrap()), Some(identity));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for uri in [
            "",
            "peerdist://",
            "peerdist://server/x",
            "peerdist://client/a",
            "peerdist://client/a/b/c",
            "http://server",
            "peerdist://client/A/b",
        ] {
            assert_eq!(PeerIdentity::parse(uri), None, "{uri}");
        }
    }
}
