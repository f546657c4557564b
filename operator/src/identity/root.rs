//! The Secret with the root: `tls.crt` and `tls.key`, as cert-manager writes it for a Certificate with `isCA: true`. Pure.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use peerdist_authority::certificates::{is_root, validity};
use peerdist_authority::private_key::key;
use peerdist_authority::server_identity::{certificate_pem, certificates};
use peerdist_authority::{CertifiedKey, days};
use serde_json::json;

use super::IdentityFailure;
use crate::apply::Desired;
use crate::names::{SERVER_COMPONENT, labels};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// Shortest life of a root: two roots are trusted for 46 days when one follows the other, and intermediates need time too.
const ROOT_LIFETIME_MIN: Duration = days(75);

/// The Secret of a root that the operator made.
pub(super) fn build(root: &CertifiedKey, namespace: &str, name: &str) -> Desired {
    let bytes = |text: String| ByteString(text.into_bytes());
    let body = json!({
        "metadata": {"labels": labels(SERVER_COMPONENT)},
        "type": "kubernetes.io/tls",
        "data": {CERTIFICATE: bytes(certificate_pem(&root.certificate)), KEY: bytes(root.key.serialize_pem())},
    });
    Desired::new::<Secret>(namespace, name, body)
}

/// The root of a Secret, whoever made it. Of a chain the first certificate counts.
pub(super) fn read(secret: &Secret, now: Timestamp) -> Result<CertifiedKey, IdentityFailure> {
    let damaged = |key, expected| IdentityFailure::Damaged { secret: secret.name_any(), key, expected };
    let content = |key| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let certificate = content(CERTIFICATE)
        .and_then(certificates)
        .and_then(|chain| chain.into_iter().next())
        .ok_or_else(|| damaged(CERTIFICATE, "a certificate in PEM form"))?;
    if !is_root(&certificate) {
        return Err(damaged(CERTIFICATE, "a certificate that may sign intermediates (isCA, no pathLen of 0)"));
    }
    let now = SystemTime::from(now);
    let valid = validity(&certificate).filter(|(start, end)| *start <= now && now < *end);
    let (start, end) = valid.ok_or_else(|| damaged(CERTIFICATE, "a certificate that is valid now"))?;
    if end.duration_since(start).unwrap_or_default() < ROOT_LIFETIME_MIN {
        return Err(damaged(
            CERTIFICATE,
            "a certificate for 75 days or more: clients learn of the next one in time then",
        ));
    }
    let key = content(KEY).and_then(key).ok_or_else(|| {
        damaged(
            KEY,
            "a private key in PEM form without a password: ECDSA P-256 or P-384, Ed25519 or RSA of 2048 to 4096 bits",
        )
    })?;
    let root = CertifiedKey { key, certificate };
    if root.belongs_together() { Ok(root) } else { Err(damaged(KEY, "the key of the certificate in tls.crt")) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::ToSpan;
    use peerdist_authority::certificates::is_below;

    use super::*;

    fn secret(certificate: &str, key: &str) -> Secret {
        let data = [(CERTIFICATE, certificate), (KEY, key)];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.name = Some("peerdist-root".to_owned());
        secret
    }

    #[test]
    fn a_root_that_was_made_is_read_again() {
        let now = Timestamp::now();
        let root = CertifiedKey::new_root(now.into()).unwrap();
        let built = build(&root, "peerdist", "peerdist-root").body;
        let again: Secret = serde_json::from_value(built.clone()).unwrap();
        assert_eq!(again.type_.as_deref(), Some("kubernetes.io/tls"));
        assert_eq!(read(&again, now).unwrap().certificate, root.certificate);
        assert!(!crate::apply::differs(&built, &serde_json::to_value(again).unwrap()));
    }

    #[test]
    fn secrets_are_roots_as_cert_manager_writes_them() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cert-manager");
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut names = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let secret: Secret = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let root = read(&secret, now).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let intermediate = root.new_intermediate(now.into()).unwrap();
            assert!(is_below(&intermediate.certificate, &root.certificate), "{}", path.display());
            names.push(path);
        }
        assert_eq!(names.len(), 7, "{names:?}");
    }

    #[test]
    fn what_is_no_root_is_refused_with_the_key_of_the_secret() {
        let now = Timestamp::now();
        let root = CertifiedKey::new_root(now.into()).unwrap();
        let other = CertifiedKey::new_root(now.into()).unwrap();
        let intermediate = root.new_intermediate(now.into()).unwrap();
        let (pem, key) = (certificate_pem(&root.certificate), root.key.serialize_pem());
        let leaf = certificate_pem(&intermediate.certificate);
        for (secret, now, field, word) in [
            (Secret::default(), now, CERTIFICATE, "PEM"),
            (secret("x", &key), now, CERTIFICATE, "PEM"),
            (secret(&leaf, &intermediate.key.serialize_pem()), now, CERTIFICATE, "isCA"),
            (secret(&pem, &key), now + (3651 * 24).hours(), CERTIFICATE, "valid now"),
            (secret(&pem, "x"), now, KEY, "without a password"),
            (secret(&pem, &other.key.serialize_pem()), now, KEY, "tls.crt"),
        ] {
            let failure = read(&secret, now).err().map(|failure| (failure.to_string(), failure));
            let Some((text, IdentityFailure::Damaged { key, .. })) = failure else {
                panic!("{field} {word}: {failure:?}")
            };
            assert!(key == field && text.contains(word), "{text}");
        }
        let chain = format!("{pem}{leaf}");
        assert_eq!(read(&secret(&chain, &key), now).unwrap().certificate, root.certificate);
    }
}
