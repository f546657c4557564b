//! The Secret with the server's identity: what the server reads are its keys, what the operator wants to remember of it
//! are annotations, and so is what people ask for. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use peerdist_authority::{DamagedFile, ServerIdentity};
use peerdist_crds::names::shortened;
use serde_json::{Map, Value, json};

use super::IdentityFailure;
use crate::apply::Desired;
use crate::names::{
    ROTATE_INTERMEDIATE_ANNOTATION, ROTATE_MANIFEST_KEY_ANNOTATION, SERVER_COMPONENT, SERVER_IDENTITY, labels,
};

/// When roots were last added or began to sign.
const ROOTS_SINCE: &str = "peerdist.io/roots-since";
/// Since when the manifest key signs.
const MANIFEST_KEY_SINCE: &str = "peerdist.io/manifest-key-since";
/// The last request for an intermediate that was done.
const ROTATED_INTERMEDIATE: &str = "peerdist.io/rotated-intermediate";
/// The last request for a manifest key that was done.
const ROTATED_MANIFEST_KEY: &str = "peerdist.io/rotated-manifest-key";
/// As much of a request as is remembered.
const REQUEST_BYTES_MAX: usize = 63;

/// What the Secret holds.
#[derive(Debug)]
pub(super) struct Held {
    /// The server's part.
    pub(super) identity: ServerIdentity,
    /// When roots were last added or began to sign.
    pub(super) roots_since: Timestamp,
    /// Since when the manifest key signs.
    pub(super) manifest_key_since: Timestamp,
    /// What was asked for and done.
    pub(super) done: Requests,
}

/// What people ask for: each other value than the last one is a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// For a new intermediate.
    pub(super) intermediate: Option<String>,
    /// For the next manifest key.
    pub(super) manifest_key: Option<String>,
}

impl Requests {
    /// The requests that a Secret bears.
    pub(super) fn of(secret: &Secret) -> Self {
        let request = |name: &str| secret.annotations().get(name).map(|value| shortened(value, REQUEST_BYTES_MAX));
        Self {
            intermediate: request(ROTATE_INTERMEDIATE_ANNOTATION),
            manifest_key: request(ROTATE_MANIFEST_KEY_ANNOTATION),
        }
    }
}

/// Reads the Secret. A moment that is lost or yet to come is taken for now: nobody is hurried who may need the time.
pub(super) fn read(secret: &Secret, now: Timestamp) -> Result<Held, IdentityFailure> {
    let content = |key: &str| Some(secret.data.as_ref()?.get(key)?.0.clone());
    let identity = ServerIdentity::read(content).map_err(|DamagedFile { file, expected }| {
        IdentityFailure::Damaged { secret: secret.name_any(), key: file, expected }
    })?;
    let annotation = |name: &str| secret.annotations().get(name);
    let moment =
        |name| annotation(name).and_then(|text| text.parse().ok()).map_or(now, |moment: Timestamp| moment.min(now));
    Ok(Held {
        identity,
        roots_since: moment(ROOTS_SINCE),
        manifest_key_since: moment(MANIFEST_KEY_SINCE),
        done: Requests {
            intermediate: annotation(ROTATED_INTERMEDIATE).cloned(),
            manifest_key: annotation(ROTATED_MANIFEST_KEY).cloned(),
        },
    })
}

/// The Secret as it should be. What people annotated stays theirs.
pub(super) fn build(held: &Held, namespace: &str) -> Desired {
    let Held { identity, roots_since, manifest_key_since, done } = held;
    let data: Map<String, Value> =
        identity.files().into_iter().map(|(name, bytes)| (name.to_owned(), json!(ByteString(bytes)))).collect();
    let mut annotations = json!({
        ROOTS_SINCE: seconds(*roots_since), MANIFEST_KEY_SINCE: seconds(*manifest_key_since),
    });
    for (name, request) in [(ROTATED_INTERMEDIATE, &done.intermediate), (ROTATED_MANIFEST_KEY, &done.manifest_key)] {
        if let Some(request) = request {
            annotations[name] = json!(request);
        }
    }
    let metadata = json!({"labels": labels(SERVER_COMPONENT), "annotations": annotations});
    Desired::new::<Secret>(namespace, SERVER_IDENTITY, json!({"metadata": metadata, "type": "Opaque", "data": data}))
}

/// In whole seconds, which survive being written.
fn seconds(moment: Timestamp) -> String {
    format!("{}", Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

#[cfg(test)]
mod tests {
    use peerdist_authority::CertifiedKey;

    use super::*;
    use crate::apply::differs;
    use crate::identity::rotation::begin;

    #[test]
    fn what_was_built_is_read_again_and_needs_no_second_write() {
        let now = Timestamp::now();
        let root = CertifiedKey::new_root(now.into()).unwrap();
        let mut held = begin(&root, now).unwrap();
        held.done.intermediate = Some("monday".to_owned());
        let built = build(&held, "peerdist").body;
        let mut live: Secret = serde_json::from_value(built.clone()).unwrap();
        let asked = (ROTATE_MANIFEST_KEY_ANNOTATION.to_owned(), "tuesday".to_owned());
        live.metadata.annotations.get_or_insert_default().extend([asked]);
        let again = read(&live, now).unwrap();
        assert_eq!(again.done, held.done);
        assert_eq!(again.roots_since.as_second(), now.as_second());
        assert_eq!(Requests::of(&live).manifest_key.as_deref(), Some("tuesday"));
        assert_eq!(build(&again, "peerdist").body, built);
        assert!(!differs(&built, &serde_json::to_value(&live).unwrap()));
    }

    #[test]
    fn lost_moments_and_those_to_come_are_now() {
        let now = Timestamp::now();
        let root = CertifiedKey::new_root(now.into()).unwrap();
        let mut secret: Secret = serde_json::from_value(build(&begin(&root, now).unwrap(), "peerdist").body).unwrap();
        let later = (ROOTS_SINCE.to_owned(), "2999-01-01T00:00:00Z".to_owned());
        secret.metadata.annotations = Some([later].into());
        let held = read(&secret, now).unwrap();
        assert_eq!((held.roots_since, held.manifest_key_since), (now, now));
    }

    #[test]
    fn a_damaged_secret_is_named_with_its_key() {
        let root = CertifiedKey::new_root(Timestamp::now().into()).unwrap();
        let built = build(&begin(&root, Timestamp::now()).unwrap(), "peerdist").body;
        let mut secret: Secret = serde_json::from_value(built).unwrap();
        secret.data.as_mut().unwrap().remove("manifest.key");
        let failure = read(&secret, Timestamp::now()).unwrap_err().to_string();
        assert_eq!(failure, "Secret peerdist-server-identity: manifest.key: expected 32 bytes: correct it");
    }
}
