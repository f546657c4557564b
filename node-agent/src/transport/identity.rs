//! A node's own identity: its key, made and kept here, and what enrolment gave it.
//!
//! The folder holds `node.key` (never leaves the node), `root.der` (every root that is trusted, one after the other) and
//! `enrolment` (the server's answer, replaced whole), each readable by its owner only. The identity can be renewed while
//! the transport runs: connections made afterwards use the new certificate. When to renew is the driver's decision
//! ([`NodeIdentity::renewal_due`]). In `roots` is which roots are trusted, in `anew` why a token is needed again.

mod anew;
mod roots;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use ed25519_dalek::VerifyingKey;
use peerdist_authority::sha256;
use peerdist_core::wire::proto;
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

pub(super) use self::roots::pinned_roots;
use self::roots::{roots_above, split};
use super::certificate::{CertificateError, CertificateFacts, PeerIdentity};
use super::{private_key, tls};
use crate::private_file::{self, FileError};

/// Intermediates in one chain.
const CHAIN_MAX: usize = 4;
/// Keys whose signatures a node takes: the one that signs, the next, and as many in reserve.
const MANIFEST_KEYS_MAX: usize = 4;

/// What went wrong with a node's identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity folder.
    #[error("node identity: {0}")]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("node identity: {path} is damaged: remove it and enrol again", path = .0.display())]
    Damaged(PathBuf),
    /// A key or request could not be made.
    #[error("node identity: cannot make a key or certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// The certificate names nobody.
    #[error("node identity: {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate does not fit the key or the root.
    #[error("node identity: certificate cannot be used: {0}")]
    Unusable(String),
}

/// The identity of one node: key, certificate, trust.
pub struct NodeIdentity {
    folder: PathBuf,
    key: KeyPair,
    current: RwLock<Option<Arc<Credentials>>>,
    tolerate_expired: AtomicBool,
    /// Why the token is needed again, as the log has it.
    said_why_anew: Mutex<Option<&'static str>>,
}

/// Everything one handshake needs.
pub(super) struct Credentials {
    pub(super) facts: CertificateFacts,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    /// SHA-256 of those of the roots that the certificate is of.
    roots_above: Vec<[u8; 32]>,
    manifest_keys: Vec<VerifyingKey>,
    enrolment: proto::EnrolReply,
}

impl NodeIdentity {
    /// Opens the identity in `folder`, or makes a key there. A node that enrolled before comes back enrolled.
    ///
    /// # Errors
    /// [`IdentityError`] when the folder cannot be used or its key is damaged.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        private_file::create_folder(folder)?;
        let key = private_key::open(&folder.join("node.key"), IdentityError::Damaged)?;
        let identity = Self {
            folder: folder.to_path_buf(),
            key,
            current: RwLock::new(None),
            tolerate_expired: AtomicBool::new(false),
            said_why_anew: Mutex::default(),
        };
        identity.load();
        Ok(identity)
    }

    /// What enrolment gave this node; `None` before.
    pub fn enrolment(&self) -> Option<proto::EnrolReply> {
        self.credentials().map(|credentials| credentials.enrolment.clone())
    }

    /// Who this node is; `None` before enrolment.
    pub fn identity(&self) -> Option<PeerIdentity> {
        self.credentials().map(|credentials| credentials.facts.identity.clone())
    }

    /// Whether it trusts a root with one of these SHA-256. Not before enrolment.
    pub fn trusts_any(&self, pins: &[[u8; 32]]) -> bool {
        self.credentials().is_some_and(|credentials| pins.iter().any(|pin| credentials.trusts(pin)))
    }

    /// Whether it trusts the roots with all of these SHA-256, and is trusted where they are: its certificate is of one of
    /// them. Not before enrolment.
    pub fn trusts_all(&self, pins: &[[u8; 32]]) -> bool {
        self.credentials()
            .is_some_and(|credentials| credentials.is_of_any(pins) && pins.iter().all(|pin| credentials.trusts(pin)))
    }

    /// The keys that sign manifests and plans; none before enrolment.
    pub fn manifest_keys(&self) -> Vec<VerifyingKey> {
        self.credentials().map(|credentials| credentials.manifest_keys.clone()).unwrap_or_default()
    }

    /// Whether the certificate is for this address. A node that moved must enrol again.
    pub fn covers(&self, address: std::net::IpAddr) -> bool {
        self.credentials().is_some_and(|credentials| credentials.facts.addresses.contains(&address))
    }

    /// Whether a third of the certificate's life has passed, or there is none.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let Some(credentials) = self.credentials() else { return true };
        let facts = &credentials.facts;
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        now >= facts.not_before + life / 3
    }

    /// Whether the certificate has run out, or there is none.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.credentials().is_none_or(|credentials| now >= credentials.facts.not_after)
    }

    /// While the server cannot be reached, peers of the same office may come with a certificate that ran out at most
    /// 30 days ago.
    pub fn tolerate_expired_peers(&self, tolerate: bool) {
        self.tolerate_expired.store(tolerate, Ordering::Relaxed);
    }

    /// A PKCS#10 request for this node's key, in DER form.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when it cannot be signed.
    pub fn certificate_request(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }

    /// Takes what enrolment or renewal gave, under these roots, and stores it. Of a server's roots the first is the one
    /// that signed.
    ///
    /// # Errors
    /// [`IdentityError`] when the certificate does not fit or cannot be stored; the old one stays in force.
    pub fn install(
        &self,
        roots: &[CertificateDer<'static>],
        enrolment: proto::EnrolReply,
    ) -> Result<(), IdentityError> {
        let encoded = enrolment.encode_to_vec();
        let credentials = self.prepare(roots, enrolment)?;
        let trusted: Vec<u8> = roots.iter().flat_map(|root| root.iter().copied()).collect();
        private_file::replace(&self.folder.join("root.der"), &trusted)?;
        private_file::replace(&self.folder.join("enrolment"), &encoded)?;
        *self.said_why_anew.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::new(credentials));
        Ok(())
    }

    /// Takes a renewed certificate. Which roots are trusted from now on is for the pins to say, where there are any: the
    /// server only shows what they mean.
    ///
    /// # Errors
    /// [`IdentityError`] as for [`NodeIdentity::install`], also when no root is left.
    pub fn renew(&self, enrolment: proto::EnrolReply, pins: Option<&[[u8; 32]]>) -> Result<(), IdentityError> {
        let mut roots = self.credentials().map(|credentials| credentials.roots.clone()).unwrap_or_default();
        if let Some(pins) = pins {
            roots = pinned_roots(roots, &enrolment, pins);
        }
        self.install(&roots, enrolment)
    }

    /// Key of the stateless resets: a peer of the run before this one learns at once that its connection is gone.
    pub(super) fn reset_secret(&self) -> [u8; 32] {
        blake3::derive_key("peerdist 2026 stateless reset v1", self.key.serialized_der())
    }

    pub(super) fn credentials(&self) -> Option<Arc<Credentials>> {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(super) fn tolerates_expired(&self) -> bool {
        self.tolerate_expired.load(Ordering::Relaxed)
    }

    /// An enrolment that cannot be used any more is the same as none: the node enrols again.
    fn load(&self) {
        let read = |name: &str| private_file::read(&self.folder.join(name)).ok().flatten();
        let (Some(roots), Some(encoded)) = (read("root.der"), read("enrolment")) else { return };
        let enrolment = proto::EnrolReply::decode(encoded.as_slice()).map_err(|error| error.to_string());
        let prepared =
            enrolment.and_then(|reply| self.prepare(&split(&roots), reply).map_err(|error| error.to_string()));
        match prepared {
            Ok(credentials) => {
                *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::new(credentials));
            }
            Err(error) => tracing::warn!(folder = %self.folder.display(), error, "stored enrolment cannot be used"),
        }
    }

    fn prepare(
        &self,
        roots: &[CertificateDer<'static>],
        enrolment: proto::EnrolReply,
    ) -> Result<Credentials, IdentityError> {
        let unusable = |error: &dyn fmt::Display| IdentityError::Unusable(error.to_string());
        let facts = CertificateFacts::read(&enrolment.certificate)?;
        let mut chain = vec![CertificateDer::from(enrolment.certificate.to_vec())];
        chain.extend(enrolment.chain.iter().take(CHAIN_MAX).map(|der| CertificateDer::from(der.to_vec())));
        if facts.identity == PeerIdentity::Server {
            // Nodes that enrol know only the digest of the root: they find the root itself in the server's chain.
            chain.extend(roots.first().cloned());
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = tls::provider();
        let key = provider.key_provider.load_private_key(key).map_err(|error| unusable(&error))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| unusable(&error))?;
        let mut trusted = RootCertStore::empty();
        for root in roots {
            trusted.add(root.clone()).map_err(|error| unusable(&error))?;
        }
        let trusted = Arc::new(trusted);
        let servers = WebPkiServerVerifier::builder_with_provider(trusted.clone(), provider.clone()).build();
        let clients = WebPkiClientVerifier::builder_with_provider(trusted, provider).build();
        Ok(Credentials {
            facts,
            certified: Arc::new(certified),
            servers: servers.map_err(|error| unusable(&error))?,
            clients: clients.map_err(|error| unusable(&error))?,
            roots: roots.to_vec(),
            roots_above: roots_above(roots, &enrolment),
            manifest_keys: verifying_keys(&enrolment),
            enrolment,
        })
    }
}

impl Credentials {
    fn trusts(&self, pin: &[u8; 32]) -> bool {
        self.roots.iter().any(|root| sha256(root) == *pin)
    }

    /// Whether the certificate is of a root with one of these SHA-256.
    fn is_of_any(&self, pins: &[[u8; 32]]) -> bool {
        self.roots_above.iter().any(|root| pins.contains(root))
    }
}

fn verifying_keys(enrolment: &proto::EnrolReply) -> Vec<VerifyingKey> {
    let keys = enrolment.manifest_keys.iter().take(MANIFEST_KEYS_MAX);
    keys.filter_map(|key| VerifyingKey::from_bytes(&<[u8; 32]>::try_from(&key[..]).ok()?).ok()).collect()
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeIdentity").field("folder", &self.folder).finish_non_exhaustive()
    }
}
