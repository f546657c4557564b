//! The certificate authority of the server: it signs every node's certificate with an intermediate, and manifests and
//! plans with a key of their own.
//!
//! A server makes it all itself (in `own`), or is given it in a folder (in `given`) that it follows: then it has no root's
//! key, and another intermediate or manifest key takes effect while it runs. Who may have a certificate is decided by
//! the server's driver; revocation is by not renewing.

mod given;
mod own;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerdist_authority::certificates::{NODE_LIFETIME, parameters_below};
use peerdist_authority::{DamagedFile, ServerIdentity, sha256};
use peerdist_core::names::OfficeName;
use peerdist_core::wire::proto;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use self::own::OwnAuthority;
use super::certificate::PeerIdentity;
use super::identity::{IdentityError, NodeIdentity};
use crate::private_file::FileError;

/// Subject of every node's certificate: the names that count are the alternative ones, and longer.
const COMMON_NAME: &str = "peerdist node";
const OFFICE_KEY_CONTEXT: &str = "peerdist 2026 office key v1";

/// What went wrong in the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate file.
    #[error("certificate authority: {0}")]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("certificate authority: {path} is damaged: restore it from a backup, or remove the folder and enrol every node again", path = .0.display())]
    Damaged(PathBuf),
    /// A file that was given holds something else, or is missing.
    #[error("certificate authority: {folder}: {source}: correct the Secret that is mounted there", folder = folder.display())]
    Given {
        /// The folder.
        folder: PathBuf,
        /// Which file.
        source: DamagedFile,
    },
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

/// What changed in a folder that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityChange {
    /// The roots or the intermediate.
    pub certificates: bool,
    /// The key that signs manifests and plans.
    pub manifest_key: bool,
}

/// The certificate authority of a server.
#[derive(Debug)]
pub struct Authority {
    /// Where the server keeps its own key and certificate.
    folder: PathBuf,
    source: Source,
    identity: RwLock<Arc<ServerIdentity>>,
}

#[derive(Debug)]
enum Source {
    Own(Box<OwnAuthority>),
    Given(PathBuf),
}

impl Authority {
    /// Opens the authority in `folder`, or makes a new one there.
    ///
    /// # Errors
    /// [`AuthorityError`] when the folder cannot be used or holds damaged keys.
    pub fn open(folder: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let (own, identity) = OwnAuthority::open(folder, now)?;
        Ok(Self::new(folder, Source::Own(Box::new(own)), identity))
    }

    /// The authority that lies in the folder `given`. The server's own key is kept in `folder`; an authority that it made
    /// there before is not in use any more, and the log says so.
    ///
    /// # Errors
    /// [`AuthorityError`] when a file is missing or damaged.
    pub fn follow(given: &Path, folder: &Path) -> Result<Self, AuthorityError> {
        let identity = given::read(given)?;
        if !is_same_folder(given, folder) {
            for path in own::leftovers(folder) {
                tracing::warn!(path = %path.display(), "not in use: the server is given another authority; remove it");
            }
        }
        Ok(Self::new(folder, Source::Given(given.to_path_buf()), identity))
    }

    fn new(folder: &Path, source: Source, identity: ServerIdentity) -> Self {
        Self { folder: folder.to_path_buf(), source, identity: RwLock::new(Arc::new(identity)) }
    }

    /// Takes over what changed in a folder that is given.
    ///
    /// # Errors
    /// [`AuthorityError`] when a file is missing or damaged; what was read before stays in force.
    pub fn look(&self) -> Result<Option<AuthorityChange>, AuthorityError> {
        let Source::Given(folder) = &self.source else { return Ok(None) };
        let (was, is) = (self.identity(), given::read(folder)?);
        if was.files() == is.files() {
            return Ok(None);
        }
        let change = AuthorityChange {
            certificates: (&was.roots, &was.intermediate.certificate) != (&is.roots, &is.intermediate.certificate),
            manifest_key: was.manifest_key.verifying_key() != is.manifest_key.verifying_key(),
        };
        self.replace(is);
        Ok(Some(change))
    }

    /// SHA-256 of the root certificate that signs: the pin in join tokens.
    pub fn root_sha256(&self) -> [u8; 32] {
        self.identity().roots.first().map_or([0; 32], |root| sha256(root))
    }

    pub(super) fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.identity().roots.clone()
    }

    /// The key that signs manifest roots and plans.
    pub fn manifest_key(&self) -> SigningKey {
        self.identity().manifest_key.clone()
    }

    /// The key that authenticates the broadcasts of an office.
    pub fn office_key(&self, office: &OfficeName) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(OFFICE_KEY_CONTEXT);
        hasher.update(&self.identity().office_secret).update(office.as_str().as_bytes());
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
        let own = self.identity();
        let intermediate = &own.intermediate;
        // A node must see by its own certificate that it is of no use any more.
        let mut parameters = parameters_below(&intermediate.certificate, COMMON_NAME, NODE_LIFETIME, now);
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into()?), SanType::IpAddress(address)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_ca_cert_der(&intermediate.certificate, &intermediate.key)?;
        let certificate = parameters.signed_by(&request.public_key, &issuer)?;
        Ok(IssuedCertificate {
            certificate: Bytes::copy_from_slice(certificate.der()),
            chain: vec![Bytes::copy_from_slice(&intermediate.certificate)],
        })
    }

    /// What every node gets that gets this certificate: with it the keys and roots to trust.
    pub fn reply(&self, issued: IssuedCertificate) -> proto::EnrolReply {
        let IssuedCertificate { certificate, chain } = issued;
        let identity = self.identity();
        proto::EnrolReply {
            certificate,
            chain,
            manifest_keys: identity.verifying_keys().iter().map(|key| Bytes::copy_from_slice(key)).collect(),
            roots: identity.roots.iter().map(|root| Bytes::copy_from_slice(root)).collect(),
            ..Default::default()
        }
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
        Ok(identity.install(&self.roots(), self.reply(issued))?)
    }

    fn renew_intermediate(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let Source::Own(own) = &self.source else { return Ok(()) };
        if let Some(renewed) = own.renewed(&self.identity(), now)? {
            self.replace(renewed);
        }
        Ok(())
    }

    fn identity(&self) -> Arc<ServerIdentity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, identity: ServerIdentity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }
}

/// Both authorities have files of the same names.
fn is_same_folder(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests;
