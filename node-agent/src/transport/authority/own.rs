//! The authority that a server makes itself: all keys lie in one folder, the root's too, readable by their owner only.
//! There is one manifest key and no next.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use peerdist_authority::certificates::root_certificate;
use peerdist_authority::server_identity::new_secret;
use peerdist_authority::{CertifiedKey, ServerIdentity};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::AuthorityError;
use crate::private_file;
use crate::transport::private_key;

/// All files. Certificates come before their keys: a key without its certificate gets another one when it is opened.
const FILES: [&str; 6] =
    ["root.der", "intermediate.der", "root.key", "intermediate.key", "manifest.key", "office.secret"];

/// The folder, and the root in it.
#[derive(Debug)]
pub(super) struct OwnAuthority {
    folder: PathBuf,
    root: CertifiedKey,
}

impl OwnAuthority {
    /// Opens what is in the folder, and makes what is not.
    pub(super) fn open(folder: &Path, now: SystemTime) -> Result<(Self, ServerIdentity), AuthorityError> {
        private_file::create_folder(folder)?;
        let key = private_key::open(&folder.join("root.key"), AuthorityError::Damaged)?;
        let certificate = open_root(&folder.join("root.der"), &key, now)?;
        let own = Self { folder: folder.to_path_buf(), root: CertifiedKey { key, certificate } };
        let identity = ServerIdentity {
            roots: vec![own.root.certificate.clone()],
            intermediate: own.open_intermediate(now)?,
            manifest_key: SigningKey::from_bytes(&open_secret(&folder.join("manifest.key"))?),
            next_manifest_key: None,
            office_secret: open_secret(&folder.join("office.secret"))?,
        };
        Ok((own, identity))
    }

    /// The same identity with another intermediate, if it is time for one.
    pub(super) fn renewed(
        &self,
        identity: &Arc<ServerIdentity>,
        now: SystemTime,
    ) -> Result<Option<ServerIdentity>, AuthorityError> {
        if identity.intermediate.is_fresh(&self.root.certificate, now) {
            return Ok(None);
        }
        Ok(Some(ServerIdentity {
            roots: identity.roots.clone(),
            intermediate: self.make_intermediate(now)?,
            manifest_key: identity.manifest_key.clone(),
            next_manifest_key: identity.next_manifest_key.clone(),
            office_secret: identity.office_secret,
        }))
    }

    fn open_intermediate(&self, now: SystemTime) -> Result<CertifiedKey, AuthorityError> {
        let stored = private_file::read(&self.folder.join("intermediate.der"))?.map(CertificateDer::from);
        let Some(certificate) = stored else { return self.make_intermediate(now) };
        let intermediate = CertifiedKey {
            key: private_key::open(&self.folder.join("intermediate.key"), AuthorityError::Damaged)?,
            certificate,
        };
        // A crash between the two files leaves a pair that does not match: it is made again.
        let is_good = intermediate.belongs_together() && intermediate.is_fresh(&self.root.certificate, now);
        if is_good { Ok(intermediate) } else { self.make_intermediate(now) }
    }

    fn make_intermediate(&self, now: SystemTime) -> Result<CertifiedKey, AuthorityError> {
        let intermediate = self.root.new_intermediate(now)?;
        let pem = intermediate.key.serialize_pem();
        private_file::replace(&self.folder.join("intermediate.key"), pem.as_bytes())?;
        private_file::replace(&self.folder.join("intermediate.der"), &intermediate.certificate)?;
        Ok(intermediate)
    }
}

/// Files of the folder that a server which is given another authority has no use for. Whoever finds them has the keys of
/// one that nodes trusted, but nobody else may have the root, and the option may be a mistake: a person removes them.
pub(super) fn leftovers(folder: &Path) -> Vec<PathBuf> {
    FILES.map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect()
}

fn open_secret(path: &Path) -> Result<[u8; 32], AuthorityError> {
    match private_file::read(path)? {
        Some(bytes) => bytes.try_into().map_err(|_| AuthorityError::Damaged(path.to_path_buf())),
        None => {
            let secret = new_secret();
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
    let root = root_certificate(key, now)?;
    private_file::replace(path, &root)?;
    Ok(root)
}
