//! The embedded certificate authority of the server: root, intermediate, manifest key, office keys.
//!
//! All keys live under `STATE/server/identity`, readable by their owner only. The root signs the intermediate (90 days,
//! renewed when a third is left); the intermediate signs every node. Who may have a certificate is decided by the
//! server's driver; revocation is by not renewing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerdist_core::names::OfficeName;
use peerdist_core::wire::proto;
use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::PeerIdentity;
use super::identity::{IdentityError, NodeIdentity};
use crate::private_file::{self, FileError};

const ROOT_LIFETIME: Duration = days(3650);
const INTERMEDIATE_LIFETIME: Duration = days(90);
/// An intermediate with less than this left is replaced.
const INTERMEDIATE_RENEWAL: Duration = days(30);
const NODE_LIFETIME: Duration = days(7);
/// Certificates start in the past: clocks differ.
const START_IN_PAST: Duration = Duration::from_secs(3600);
/// Subject of every node's certificate: the names that count are the alternative ones, and longer.
const COMMON_NAME: &str = "peerdist node";
const OFFICE_KEY_CONTEXT: &str = "peerdist 2026 office key v1";

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// What went wrong in the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate file.
    #[error("certificate authority: {0}")]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("certificate authority: {path} is damaged: restore it from a backup, or remove the folder and enrol every node again", path = .0.display())]
    Damaged(PathBuf),
    /// The request of a node is not a valid PKCS#10 request.
    #[error("certificate request is not valid: expected PKCS#10 in DER form, signed by its key: {0}")]
    Request(rcgen::Error),
    /// A certificate must name somebody.
    #[error("certificate authority cannot sign for a node without identity: decide which office and node it is first")]
    Nobody,
    /// Signing failed.
    #[error("certificate authority cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// The server's own identity.
    #[error("the server's own identity: {0}")]
    Identity(#[from] IdentityError),
}

/// A certificate that the authority issued.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The node's certificate in DER form.
    pub certificate: Bytes,
    /// The intermediates, without the root.
    pub chain: Vec<Bytes>,
}

/// The embedded certificate authority.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    root_key: KeyPair,
    root: CertificateDer<'static>,
    intermediate: RwLock<Intermediate>,
    manifest_key: SigningKey,
    office_secret: [u8; 32],
}

#[derive(Debug)]
struct Intermediate {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Opens the authority in `folder`, or makes a new one there.
    ///
    /// # Errors
    /// [`AuthorityError`] when the folder cannot be used or holds damaged keys.
    pub fn open(folder: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        private_file::create_folder(folder)?;
        let root_key = open_key(&folder.join("root.key"))?;
        let root = open_root(&folder.join("root.der"), &root_key, now)?;
        let intermediate = open_intermediate(folder, &root_key, &root, now)?;
        let manifest_key = SigningKey::from_bytes(&open_secret(&folder.join("manifest.key"))?);
        let office_secret = open_secret(&folder.join("office.secret"))?;
        let intermediate = RwLock::new(intermediate);
        Ok(Self { folder: folder.to_path_buf(), root_key, root, intermediate, manifest_key, office_secret })
    }

    /// SHA-256 of the root certificate: the pin in join tokens.
    pub fn root_sha256(&self) -> [u8; 32] {
        sha256(&self.root)
    }

    #[cfg(test)]
    pub(super) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The key that signs manifest roots and plans.
    pub fn manifest_key(&self) -> &SigningKey {
        &self.manifest_key
    }

    /// The key that authenticates the broadcasts of an office.
    pub fn office_key(&self, office: &OfficeName) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(OFFICE_KEY_CONTEXT);
        hasher.update(&self.office_secret).update(office.as_str().as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Signs a certificate of seven days for the key in a PKCS#10 request. Only the key is taken from the request:
    /// who the node is and where it lives is what the caller has verified.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] when the request is not valid.
    pub fn issue(
        &self,
        request_der: &[u8],
        identity: &PeerIdentity,
        address: IpAddr,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.renew_intermediate(now)?;
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request_der))
            .map_err(AuthorityError::Request)?;
        let uri = identity.to_uri().ok_or(AuthorityError::Nobody)?;
        let mut parameters = parameters(COMMON_NAME, NODE_LIFETIME, now);
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into()?), SanType::IpAddress(address)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let intermediate = self.intermediate.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let issuer = Issuer::from_ca_cert_der(&intermediate.certificate, &intermediate.key)?;
        let certificate = parameters.signed_by(&request.public_key, &issuer)?;
        Ok(IssuedCertificate {
            certificate: Bytes::copy_from_slice(certificate.der()),
            chain: vec![Bytes::copy_from_slice(&intermediate.certificate)],
        })
    }

    /// The server's own identity, with a fresh certificate for `address`.
    ///
    /// # Errors
    /// [`AuthorityError`] when the key cannot be stored or the certificate not be signed.
    pub fn server_identity(&self, address: IpAddr, now: SystemTime) -> Result<NodeIdentity, AuthorityError> {
        let identity = NodeIdentity::open(&self.folder.join("node"))?;
        self.renew_server(&identity, address, now)?;
        Ok(identity)
    }

    /// Gives the server's running identity a fresh certificate.
    ///
    /// # Errors
    /// [`AuthorityError`] when the certificate cannot be signed or stored.
    pub fn renew_server(
        &self,
        identity: &NodeIdentity,
        address: IpAddr,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let issued = self.issue(&identity.certificate_request()?, &PeerIdentity::Server, address, now)?;
        let manifest_keys = vec![Bytes::copy_from_slice(self.manifest_key.verifying_key().as_bytes())];
        let reply = proto::EnrolReply {
            certificate: issued.certificate,
            chain: issued.chain,
            manifest_keys,
            ..Default::default()
        };
        Ok(identity.install(&self.root, reply)?)
    }

    fn renew_intermediate(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let mut intermediate = self.intermediate.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if is_fresh(&intermediate.certificate, now) {
            return Ok(());
        }
        *intermediate = make_intermediate(&self.folder, &self.root_key, &self.root, now)?;
        Ok(())
    }
}

/// SHA-256 of a certificate.
pub(super) fn sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

fn open_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    match private_file::read(path)? {
        Some(pem) => {
            let damaged = || AuthorityError::Damaged(path.to_path_buf());
            let text = std::str::from_utf8(&pem).map_err(|_| damaged())?;
            KeyPair::from_pem(text).map_err(|_| damaged())
        }
        None => {
            let key = KeyPair::generate()?;
            private_file::replace(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
    }
}

fn open_secret(path: &Path) -> Result<[u8; 32], AuthorityError> {
    match private_file::read(path)? {
        Some(bytes) => bytes.try_into().map_err(|_| AuthorityError::Damaged(path.to_path_buf())),
        None => {
            let mut secret = [0; 32];
            rand::rng().fill_bytes(&mut secret);
            private_file::replace(path, &secret)?;
            Ok(secret)
        }
    }
}

fn open_root(path: &Path, key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, AuthorityError> {
    if let Some(der) = private_file::read(path)? {
        X509Certificate::from_der(&der).map_err(|_| AuthorityError::Damaged(path.to_path_buf()))?;
        return Ok(der.into());
    }
    let mut parameters = parameters("peerdist root", ROOT_LIFETIME, now);
    make_authority(&mut parameters, 1);
    let root = parameters.self_signed(key)?.der().clone();
    private_file::replace(path, &root)?;
    Ok(root)
}

fn open_intermediate(
    folder: &Path,
    root_key: &KeyPair,
    root: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<Intermediate, AuthorityError> {
    let stored = private_file::read(&folder.join("intermediate.der"))?.map(CertificateDer::from);
    match stored {
        Some(certificate) if is_fresh(&certificate, now) => {
            let key = open_key(&folder.join("intermediate.key"))?;
            let matches = X509Certificate::from_der(&certificate)
                .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw());
            // A crash between the two files leaves a pair that does not match: it is made again.
            if matches { Ok(Intermediate { key, certificate }) } else { make_intermediate(folder, root_key, root, now) }
        }
        _ => make_intermediate(folder, root_key, root, now),
    }
}

fn make_intermediate(
    folder: &Path,
    root_key: &KeyPair,
    root: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<Intermediate, AuthorityError> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters("peerdist server authority", INTERMEDIATE_LIFETIME, now);
    make_authority(&mut parameters, 0);
    let issuer = Issuer::from_ca_cert_der(root, root_key)?;
    let certificate = parameters.signed_by(&key, &issuer)?.der().clone();
    private_file::replace(&folder.join("intermediate.key"), key.serialize_pem().as_bytes())?;
    private_file::replace(&folder.join("intermediate.der"), &certificate)?;
    Ok(Intermediate { key, certificate })
}

fn is_fresh(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    let needed = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + INTERMEDIATE_RENEWAL;
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        u64::try_from(parsed.validity().not_after.timestamp()).is_ok_and(|end| end > needed.as_secs())
    })
}

fn make_authority(parameters: &mut CertificateParams, intermediates_below: u8) {
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates_below));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

fn parameters(name: &str, lifetime: Duration, now: SystemTime) -> CertificateParams {
    let mut serial = [0; 16];
    rand::rng().fill_bytes(&mut serial);
    serial[0] &= 0x7f;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = (now - START_IN_PAST).into();
    parameters.not_after = (now + lifetime).into();
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

#[cfg(test)]
mod tests {
    use super::super::certificate::CertificateFacts;
    use super::*;

    fn now() -> SystemTime {
        SystemTime::now()
    }

    #[test]
    fn authority_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path(), now()).unwrap();
        let second = Authority::open(folder.path(), now()).unwrap();
        assert_eq!(first.root_sha256(), second.root_sha256());
        assert_eq!(first.manifest_key().to_bytes(), second.manifest_key().to_bytes());
        let office = "store-1".parse().unwrap();
        assert_eq!(first.office_key(&office), second.office_key(&office));
        assert_ne!(first.office_key(&office), first.office_key(&"store-2".parse().unwrap()));
    }

    #[test]
    fn certificate_says_what_the_caller_decided() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), now()).unwrap();
        let node = NodeIdentity::open(&folder.path().join("client")).unwrap();
        let identity = PeerIdentity::Client { office: "store-1".parse().unwrap(), node: "till-1".parse().unwrap() };
        let address = "127.77.0.9".parse().unwrap();
        let issued = authority.issue(&node.certificate_request().unwrap(), &identity, address, now()).unwrap();
        let facts = CertificateFacts::read(&issued.certificate).unwrap();
        assert_eq!((facts.identity, facts.addresses), (identity, vec![address]));
        assert!(facts.not_before < now() && facts.not_after > now() + days(6));
        let error = authority.issue(&node.certificate_request().unwrap(), &PeerIdentity::Enrolling, address, now());
        assert!(matches!(error, Err(AuthorityError::Nobody)));
        let error = authority.issue(b"rubbish", &PeerIdentity::Server, address, now());
        assert!(matches!(error, Err(AuthorityError::Request(_))));
    }

    #[test]
    fn intermediate_is_replaced_before_it_runs_out() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), now()).unwrap();
        let issue = |at| {
            let node = NodeIdentity::open(&folder.path().join("client")).unwrap();
            let address = "127.77.0.9".parse().unwrap();
            authority.issue(&node.certificate_request().unwrap(), &PeerIdentity::Server, address, at).unwrap().chain
        };
        let first = issue(now());
        assert_eq!(issue(now() + days(50)), first);
        assert_ne!(issue(now() + days(61)), first);
    }

    #[test]
    fn damaged_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(Authority::open(folder.path(), now()).unwrap());
        std::fs::write(folder.path().join("root.key"), "x").unwrap();
        let error = Authority::open(folder.path(), now()).unwrap_err();
        assert!(error.to_string().contains("root.key"), "{error}");
    }
}
