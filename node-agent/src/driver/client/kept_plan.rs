//! The last plan of a node, kept beside its identity. A node that starts while the server or the WAN is away goes on
//! with it, and an older plan that somebody replays after a restart is refused. What a plan means is the machine's
//! business.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;
use peerdist_core::message::{Revision, SignedBytes};
use peerdist_core::plan::Plan;
use peerdist_core::wire::proto;
use prost::Message;

use crate::private_file;

/// The file. Plans come one after the other and are written by tasks: an older one never replaces a newer one.
#[derive(Debug, Clone)]
pub(super) struct KeptPlan {
    path: PathBuf,
    written: Arc<Mutex<Revision>>,
}

impl KeptPlan {
    /// In the root folder of a node.
    pub(super) fn new(root: &Path) -> Self {
        Self { path: root.join("identity/plan"), written: Arc::default() }
    }

    /// The plan of an earlier run. `None` without one, and for one that cannot be used: the server sends another.
    pub(super) fn load(&self, trusted: &[VerifyingKey]) -> Option<(SignedBytes, Plan)> {
        let stored = private_file::read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the last plan cannot be read");
            None
        })?;
        let signed = SignedBytes::from(proto::Signed::decode(stored.as_slice()).ok()?);
        let plan = Plan::open(&signed, trusted).ok()?;
        *self.lock() = plan.revision;
        Some((signed, plan))
    }

    /// Keeps a plan that was accepted, on a thread that may wait.
    pub(super) fn keep(&self, revision: Revision, signed: &SignedBytes) {
        let (kept, bytes) = (self.clone(), proto::Signed::from(signed).encode_to_vec());
        tokio::task::spawn_blocking(move || {
            let mut written = kept.lock();
            if *written >= revision {
                return;
            }
            match private_file::replace(&kept.path, &bytes) {
                Ok(()) => *written = revision,
                Err(error) => tracing::warn!(%error, "the plan cannot be kept for the next start"),
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Revision> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use peerdist_core::signature::{SigningDomain, sign};

    use super::*;

    fn signed_plan(revision: Revision, key: &SigningKey) -> SignedBytes {
        let office_type = proto::OfficeType::Wired.into();
        let plan = proto::Plan { revision, office: "store".to_owned(), office_type, ..Default::default() };
        sign(SigningDomain::Plan, plan.encode_to_vec().into(), key).into()
    }

    #[tokio::test]
    async fn newest_plan_of_a_trusted_key_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let kept = KeptPlan::new(folder.path());
        assert!(kept.load(&[key.verifying_key()]).is_none());
        for revision in [3, 5, 4] {
            kept.keep(revision, &signed_plan(revision, &key));
            while *kept.lock() < revision {
                tokio::task::yield_now().await;
            }
        }
        let again = KeptPlan::new(folder.path());
        assert_eq!(again.load(&[key.verifying_key()]).unwrap().1.revision, 5);
        assert!(again.load(&[SigningKey::from_bytes(&[8; 32]).verifying_key()]).is_none());
        std::fs::write(folder.path().join("identity/plan"), b"\xff\xffrubbish").unwrap();
        assert!(again.load(&[key.verifying_key()]).is_none());
    }
}
