//! Ed25519 signatures over a domain tag and a body, so that one kind of document never passes for another.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::wire::proto;

/// What is signed: each kind has its own tag in front of the signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningDomain {
    /// The root of a manifest.
    ManifestRoot,
    /// The plan of an office.
    Plan,
}

impl SigningDomain {
    fn tag(self) -> &'static [u8] {
        match self {
            SigningDomain::ManifestRoot => b"peerdist manifest root v1\0",
            SigningDomain::Plan => b"peerdist plan v1\0",
        }
    }
}

/// A signature that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key is none of the trusted ones.
    #[error("signed by a key that is not trusted: expected one of the manifest keys received at enrolment")]
    UntrustedKey,
    /// The bytes are not what was signed.
    #[error("the signature does not match the document")]
    Mismatch,
}

/// Signs a body.
pub fn sign(domain: SigningDomain, body: Bytes, key: &SigningKey) -> proto::Signed {
    let signature = key.sign(&tagged(domain, &body));
    proto::Signed {
        body,
        signature: signature.to_bytes().to_vec().into(),
        key: key.verifying_key().to_bytes().to_vec().into(),
    }
}

/// Checks that a trusted key signed the body.
///
/// # Errors
/// [`SignatureError`] when the key is not trusted or the signature is not over this body in this domain.
pub fn verify_signature(
    domain: SigningDomain,
    signed: &proto::Signed,
    trusted: &[VerifyingKey],
) -> Result<(), SignatureError> {
    let key = trusted.iter().find(|key| key.as_bytes()[..] == signed.key[..]).ok_or(SignatureError::UntrustedKey)?;
    let signature = Signature::from_slice(&signed.signature).map_err(|_| SignatureError::Mismatch)?;
    key.verify_strict(&tagged(domain, &signed.body), &signature).map_err(|_| SignatureError::Mismatch)
}

fn tagged(domain: SigningDomain, body: &[u8]) -> Vec<u8> {
    [domain.tag(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_body_of_a_trusted_key_in_its_domain_passes() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let trusted = [key.verifying_key()];
        let signed = sign(SigningDomain::ManifestRoot, Bytes::from_static(b"body"), &key);
        let verify = |signed: &proto::Signed| verify_signature(SigningDomain::ManifestRoot, signed, &trusted);
        assert_eq!(verify(&signed), Ok(()));
        assert_eq!(verify_signature(SigningDomain::Plan, &signed, &trusted), Err(SignatureError::Mismatch));
        let changed = proto::Signed { body: Bytes::from_static(b"bodz"), ..signed.clone() };
        assert_eq!(verify(&changed), Err(SignatureError::Mismatch));
        let cut = proto::Signed { signature: Bytes::from_static(b"short"), ..signed };
        assert_eq!(verify(&cut), Err(SignatureError::Mismatch));
        let foreign = sign(SigningDomain::ManifestRoot, Bytes::from_static(b"body"), &other);
        assert_eq!(verify(&foreign), Err(SignatureError::UntrustedKey));
    }
}
