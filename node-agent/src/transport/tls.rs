//! TLS for every port: version 1.3, mutual certificates, AES-128-GCM, one authority.
//!
//! Who dials names the address it dials, and the certificate must carry it. Who accepts compares the certificate's
//! addresses with the one it sees (in `acceptor`, where that address is known). The one exception to mutual
//! certificates is the enrolment protocol on the server's small-message port, told apart by its own ALPN; there the
//! node that enrols checks the server against the pinned digest of the root before it sends anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use peerdist_authority::certificates::EXPIRED_TOLERANCE;
use peerdist_authority::sha256;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::{CertificateFacts, PeerIdentity};
use super::identity::NodeIdentity;

/// Protocol of everything between nodes that have certificates.
pub(super) const ALPN: &[u8] = b"peerdist/1";
/// Protocol of the one request of a node without certificate.
pub(super) const ALPN_ENROL: &[u8] = b"peerdist-enrol/1";

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS: {0}")]
pub struct TlsError(String);

fn tls_error(error: impl fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

/// Ring, restricted to AES-128-GCM: hardware has it, and one suite leaves nothing to negotiate down.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// For dialling any port with this node's certificate.
pub(super) fn client(identity: &Arc<NodeIdentity>) -> Result<Arc<QuicClientConfig>, TlsError> {
    let peer = Arc::new(Peer::new(identity, true));
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(peer.clone())
        .with_client_cert_resolver(peer);
    finish_client(&mut config, ALPN);
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(tls_error)?))
}

/// For enrolling at the server whose root has one of these digests.
pub(super) fn enrolling_client(pins: &[[u8; 32]]) -> Result<Arc<QuicClientConfig>, TlsError> {
    let pinned =
        Arc::new(PinnedServer { pins: pins.to_vec(), algorithms: provider().signature_verification_algorithms });
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    finish_client(&mut config, ALPN_ENROL);
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(tls_error)?))
}

/// For accepting on a port; `enrolment` also lets nodes without certificate in, on the enrolment protocol alone.
pub(super) fn server(identity: &Arc<NodeIdentity>, enrolment: bool) -> Result<Arc<QuicServerConfig>, TlsError> {
    let peer = Arc::new(Peer::new(identity, !enrolment));
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(peer.clone())
        .with_cert_resolver(peer);
    // No resumption: a certificate that ran out must not live on in a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = if enrolment { vec![ALPN.to_vec(), ALPN_ENROL.to_vec()] } else { vec![ALPN.to_vec()] };
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(tls_error)?))
}

fn finish_client(config: &mut rustls::ClientConfig, protocol: &[u8]) {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
}

/// The root among the presented certificates that has a pinned digest.
pub(super) fn find_root<'a, 'der>(
    presented: impl IntoIterator<Item = &'a CertificateDer<'der>>,
    pins: &[[u8; 32]],
) -> Option<&'a CertificateDer<'der>>
where
    'der: 'a,
{
    presented.into_iter().find(|certificate| pins.contains(&sha256(certificate)))
}

/// This node in a handshake: presents the current certificate and checks the peer's under the current root.
#[derive(Debug)]
struct Peer {
    identity: Arc<NodeIdentity>,
    certificate_mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Peer {
    fn new(identity: &Arc<NodeIdentity>, certificate_mandatory: bool) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { identity: identity.clone(), certificate_mandatory, algorithms }
    }

    /// The moment at which to check a certificate that ran out, if it may still be taken.
    fn tolerated_moment(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
        let own = self.identity.credentials().filter(|_| self.identity.tolerates_expired())?;
        let facts = CertificateFacts::read(certificate).ok()?;
        let (PeerIdentity::Client { office: own, .. }, PeerIdentity::Client { office: theirs, .. }) =
            (&own.facts.identity, &facts.identity)
        else {
            return None;
        };
        let end = facts.not_after.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
        let fresh_enough = now.as_secs() <= (end + EXPIRED_TOLERANCE).as_secs();
        (own == theirs && fresh_enough).then(|| UnixTime::since_unix_epoch(end.saturating_sub(Duration::from_secs(1))))
    }

    /// Checks now, and when only time is against it, at the tolerated moment.
    fn check<T>(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        verify: impl Fn(UnixTime) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match verify(now) {
            Err(error) if is_expiry(&error) => match self.tolerated_moment(certificate, now) {
                Some(moment) => verify(moment),
                None => Err(error),
            },
            result => result,
        }
    }
}

fn is_expiry(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
}

fn not_enrolled() -> Error {
    Error::General("this node is not enrolled yet".to_owned())
}

impl ResolvesServerCert for Peer {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.identity.credentials().map(|credentials| credentials.certified.clone())
    }
}

impl ResolvesClientCert for Peer {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.identity.credentials().map(|credentials| credentials.certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.identity.credentials().is_some()
    }
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = self.identity.credentials().ok_or_else(not_enrolled)?;
        self.check(certificate, now, |moment| {
            own.servers.verify_server_cert(certificate, intermediates, name, ocsp, moment)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Peer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.certificate_mandatory
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let own = self.identity.credentials().ok_or_else(not_enrolled)?;
        self.check(certificate, now, |moment| own.clients.verify_client_cert(certificate, intermediates, moment))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The server as a node that enrols sees it: under a root with a pinned digest, at the dialled address.
#[derive(Debug)]
struct PinnedServer {
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root =
            find_root(intermediates, &self.pins).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        match CertificateFacts::read(certificate) {
            Ok(facts) if facts.identity == PeerIdentity::Server => Ok(verified),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
