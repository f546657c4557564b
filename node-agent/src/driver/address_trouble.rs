//! What is wrong with an address or port that a role cannot bind: somebody else holds it, or this host does not have it
//! at all. Each needs another remedy, and scripts tell them apart.

use std::error::Error;
use std::io;

use crate::http::HttpBindError;
use crate::transport::{BindError, TransportError};

/// Whether a port of the catalogue is held by somebody else.
pub(super) fn is_port_held(error: &TransportError) -> bool {
    kind_of_transport(error) == Some(io::ErrorKind::AddrInUse)
}

/// Whether the port of the HTTP endpoints is held by somebody else.
pub(super) fn is_http_port_held(error: &HttpBindError) -> bool {
    kind_of_http(error) == Some(io::ErrorKind::AddrInUse)
}

/// Whether no interface of this host has the address.
pub(super) fn is_address_missing(error: &TransportError) -> bool {
    kind_of_transport(error) == Some(io::ErrorKind::AddrNotAvailable)
}

/// As [`is_address_missing`], where the HTTP endpoints are bound first.
pub(super) fn is_http_address_missing(error: &HttpBindError) -> bool {
    kind_of_http(error) == Some(io::ErrorKind::AddrNotAvailable)
}

fn kind_of_transport(error: &TransportError) -> Option<io::ErrorKind> {
    match error {
        TransportError::Bind(BindError::InUse { .. }) => Some(io::ErrorKind::AddrInUse),
        TransportError::Bind(BindError::Failed { source, .. }) | TransportError::Endpoint { source, .. } => {
            Some(source.kind())
        }
        TransportError::Tls(_) => None,
    }
}

fn kind_of_http(error: &HttpBindError) -> Option<io::ErrorKind> {
    error.source()?.downcast_ref::<io::Error>().map(io::Error::kind)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::http;

    #[test]
    fn only_a_port_that_somebody_holds_is_in_use() {
        let address: SocketAddr = "127.0.0.1:34323".parse().unwrap();
        let failed = |kind: io::ErrorKind| TransportError::Bind(BindError::Failed { address, source: kind.into() });
        let held = TransportError::Bind(BindError::InUse { address, holder: None });
        let (absent, denied) = (failed(io::ErrorKind::AddrNotAvailable), failed(io::ErrorKind::PermissionDenied));
        assert_eq!([&held, &absent, &denied].map(is_port_held), [true, false, false]);
        assert_eq!([&held, &absent, &denied].map(is_address_missing), [false, true, false]);
    }

    #[tokio::test]
    async fn http_port_that_somebody_holds_is_told_from_an_address_that_is_not_here() {
        let here = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let held = http::bind(here.local_addr().unwrap()).await.unwrap_err();
        // Reserved for documentation: no host has it.
        let absent = http::bind("192.0.2.1:0".parse().unwrap()).await.unwrap_err();
        assert_eq!([&held, &absent].map(is_http_port_held), [true, false]);
        assert_eq!([&held, &absent].map(is_http_address_missing), [false, true]);
    }
}
