//! All that a server needs to be one, as files: the roots by which it is recognised, its intermediate, the keys that sign
//! manifests, and the secret that the keys of offices come from. The key of a root is not among them.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::SigningKey;
use pem::Pem;
use rand::RngCore;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{CertifiedKey, is_below};
use super::private_key::key;

/// Certificates of roots: the first signed the intermediate, the others are trusted besides.
pub const ROOTS: &str = "roots.pem";
/// Certificate of the intermediate.
pub const INTERMEDIATE: &str = "intermediate.pem";
/// Its key.
pub const INTERMEDIATE_KEY: &str = "intermediate.key";
/// Ed25519 seed that signs manifests and plans.
pub const MANIFEST_KEY: &str = "manifest.key";
/// The seed that will do so next: nodes know its public key already.
pub const NEXT_MANIFEST_KEY: &str = "manifest-next.key";
/// What the keys of offices come from.
pub const OFFICE_SECRET: &str = "office.secret";
/// All of them.
pub const FILES: [&str; 6] = [ROOTS, INTERMEDIATE, INTERMEDIATE_KEY, MANIFEST_KEY, NEXT_MANIFEST_KEY, OFFICE_SECRET];
/// Most roots that are trusted at a time: one that signs, one that comes, one that goes, and one in reserve.
pub const ROOTS_MAX: usize = 4;

const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// The identity of a server.
pub struct ServerIdentity {
    /// Trusted roots, never empty; the first signed the intermediate.
    pub roots: Vec<CertificateDer<'static>>,
    /// Signs the certificates of nodes.
    pub intermediate: CertifiedKey,
    /// Signs manifests and plans.
    pub manifest_key: SigningKey,
    /// Will do so next.
    pub next_manifest_key: Option<SigningKey>,
    /// What the keys of offices come from.
    pub office_secret: [u8; 32],
}

/// A file that is missing, or holds something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{file}: expected {expected}")]
pub struct DamagedFile {
    /// Its name.
    pub file: &'static str,
    /// What should be in it.
    pub expected: &'static str,
}

impl ServerIdentity {
    /// Reads all files by their names.
    ///
    /// # Errors
    /// [`DamagedFile`] is the first that cannot be used.
    pub fn read(file: impl Fn(&'static str) -> Option<Vec<u8>>) -> Result<Self, DamagedFile> {
        let damaged = |file, expected| DamagedFile { file, expected };
        let roots = certificates(&file(ROOTS).unwrap_or_default())
            .filter(|roots| (1..=ROOTS_MAX).contains(&roots.len()))
            .ok_or(damaged(ROOTS, "one to four certificates in PEM form"))?;
        let certificate = certificates(&file(INTERMEDIATE).unwrap_or_default())
            .and_then(|certificates| <[_; 1]>::try_from(certificates).ok())
            .ok_or(damaged(INTERMEDIATE, "one certificate in PEM form"))?;
        let [certificate] = certificate;
        let key = key(&file(INTERMEDIATE_KEY).unwrap_or_default())
            .ok_or(damaged(INTERMEDIATE_KEY, "a private key in PEM form"))?;
        let intermediate = CertifiedKey { key, certificate };
        if !intermediate.belongs_together() {
            return Err(damaged(INTERMEDIATE_KEY, "the key of the certificate in intermediate.pem"));
        }
        if !roots.first().is_some_and(|root| is_below(&intermediate.certificate, root)) {
            return Err(damaged(INTERMEDIATE, "an intermediate of the first root in roots.pem"));
        }
        let secret = |name| match file(name) {
            Some(bytes) => <[u8; 32]>::try_from(bytes).map(Some).map_err(|_| damaged(name, "32 bytes")),
            None => Ok(None),
        };
        let required = |name| secret(name)?.ok_or(damaged(name, "32 bytes"));
        Ok(Self {
            roots,
            intermediate,
            manifest_key: SigningKey::from_bytes(&required(MANIFEST_KEY)?),
            next_manifest_key: secret(NEXT_MANIFEST_KEY)?.map(|seed| SigningKey::from_bytes(&seed)),
            office_secret: required(OFFICE_SECRET)?,
        })
    }

    /// All files with their names.
    pub fn files(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let Self { roots, intermediate, manifest_key, next_manifest_key, office_secret } = self;
        let roots: Vec<Pem> = roots.iter().map(|root| Pem::new(CERTIFICATE_TAG, root.to_vec())).collect();
        let next = next_manifest_key.as_ref().map(|key| (NEXT_MANIFEST_KEY, key.to_bytes().to_vec()));
        let files = [
            (ROOTS, pem::encode_many(&roots).into_bytes()),
            (INTERMEDIATE, certificate_pem(&intermediate.certificate).into_bytes()),
            (INTERMEDIATE_KEY, intermediate.key.serialize_pem().into_bytes()),
            (MANIFEST_KEY, manifest_key.to_bytes().to_vec()),
            (OFFICE_SECRET, office_secret.to_vec()),
        ];
        files.into_iter().chain(next).collect()
    }

    /// Public keys whose signatures nodes should take: the one that signs, and the next.
    pub fn verifying_keys(&self) -> Vec<[u8; 32]> {
        let next = self.next_manifest_key.as_ref();
        [&self.manifest_key].into_iter().chain(next).map(|key| key.verifying_key().to_bytes()).collect()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerIdentity").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

/// A new secret of 32 bytes.
pub fn new_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    secret
}

/// A certificate in PEM form.
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&Pem::new(CERTIFICATE_TAG, certificate.to_vec()))
}

/// The certificates of a file in PEM form, all of them good.
pub fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let parts = pem::parse_many(text).ok()?;
    let good = |part: &Pem| part.tag() == CERTIFICATE_TAG && X509Certificate::from_der(part.contents()).is_ok();
    parts.iter().all(good).then(|| parts.into_iter().map(|part| part.into_contents().into()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn identity() -> ServerIdentity {
        let now = SystemTime::now();
        let root = CertifiedKey::new_root(now).unwrap();
        ServerIdentity {
            intermediate: root.new_intermediate(now).unwrap(),
            roots: vec![root.certificate, CertifiedKey::new_root(now).unwrap().certificate],
            manifest_key: SigningKey::from_bytes(&[1; 32]),
            next_manifest_key: Some(SigningKey::from_bytes(&[2; 32])),
            office_secret: [3; 32],
        }
    }

    #[test]
    fn identity_survives_its_files() {
        let files = identity().files();
        let again = ServerIdentity::read(|name| files.get(name).cloned()).unwrap();
        assert_eq!(again.files(), files);
        assert_eq!(again.verifying_keys().len(), 2);
    }

    #[test]
    fn damaged_file_is_named_and_no_secret_is_told() {
        let (files, other) = (identity().files(), identity().files());
        for (name, content) in [
            (ROOTS, b"".to_vec()),
            (ROOTS, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
            (INTERMEDIATE, files[ROOTS].clone()),
            (INTERMEDIATE_KEY, b"x".to_vec()),
            (INTERMEDIATE_KEY, other[INTERMEDIATE_KEY].clone()),
            (MANIFEST_KEY, vec![0; 31]),
            (NEXT_MANIFEST_KEY, vec![0; 33]),
            (OFFICE_SECRET, Vec::new()),
        ] {
            let read = |file| if file == name { Some(content.clone()) } else { files.get(file).cloned() };
            assert_eq!(ServerIdentity::read(read).unwrap_err().file, name);
        }
        assert_eq!(ServerIdentity::read(|_| None).unwrap_err().file, ROOTS);
        assert_eq!(format!("{:?}", identity()), "ServerIdentity { roots: 2, .. }");
    }
}
