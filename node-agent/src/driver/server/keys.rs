//! Keys that change while the server runs: the folder of the authority is looked at again and again, and what is given
//! out bears the signature of the key that signs now. What nodes make of it is theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use peerdist_core::message::SignedBytes;
use peerdist_core::names::PackageKey;
use peerdist_core::server::Server;
use peerdist_core::signature::{SigningDomain, sign};

use crate::transport::Authority;
use crate::transport::authority::AuthorityChange;

/// How often the folder is looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// The server has no certificate of the authority as it is now.
    pub(super) certificate_is_old: bool,
    /// What was said last of a folder that cannot be used.
    complaint: Option<String>,
}

impl Follower {
    /// What changed since the last look. A folder that cannot be used changes nothing.
    pub(super) fn look(&mut self, authority: &Authority) -> Option<AuthorityChange> {
        match authority.look() {
            Ok(change) => {
                self.complaint = None;
                if let Some(AuthorityChange { certificates, manifest_key }) = change {
                    tracing::info!(certificates, manifest_key, "the keys of the authority changed");
                    self.certificate_is_old |= certificates;
                }
                change
            }
            Err(error) => {
                let complaint = Some(error.to_string());
                if self.complaint != complaint {
                    tracing::warn!(%error, "the keys of the authority stay as they are");
                    self.complaint = complaint;
                }
                None
            }
        }
    }
}

/// The roots of all packages, signed by this key.
pub(super) fn signed_anew(machine: &Server, key: &SigningKey) -> BTreeMap<PackageKey, SignedBytes> {
    machine.packages().map(|package| (package.key.clone(), signed_by(&package.root, key))).collect()
}

/// The root of a manifest with the signature of this key. The package's name does not change with it.
pub(super) fn signed_by(root: &SignedBytes, key: &SigningKey) -> SignedBytes {
    if root.key[..] == key.verifying_key().as_bytes()[..] {
        return root.clone();
    }
    sign(SigningDomain::ManifestRoot, root.body.clone(), key).into()
}

#[cfg(test)]
mod tests {
    use peerdist_core::signature::verify_signature;

    use super::*;

    #[test]
    fn root_that_another_key_signed_is_signed_by_this_one() {
        let (old, new) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let root: SignedBytes = sign(SigningDomain::ManifestRoot, bytes::Bytes::from_static(b"root"), &old).into();
        assert_eq!(signed_by(&root, &old), root);
        let anew = signed_by(&root, &new);
        assert_eq!(anew.body, root.body, "what names the package stays");
        let trusted = [new.verifying_key()];
        assert_eq!(verify_signature(SigningDomain::ManifestRoot, &(&anew).into(), &trusted), Ok(()));
    }
}
