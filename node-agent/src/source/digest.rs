//! Checks the digest that a user expects of a source's bytes while they stream past.

use std::fmt;

use peerdist_core::distribution::SourceDigest;
use sha2::{Digest as _, Sha256};

use super::error::SourceError;

/// Hashes a stream when a digest is expected; hashes nothing otherwise.
pub struct DigestCheck {
    expected: Option<(SourceDigest, Sha256)>,
}

impl DigestCheck {
    /// A check for one stream.
    pub fn new(expected: Option<SourceDigest>) -> Self {
        Self { expected: expected.map(|digest @ SourceDigest::Sha256(_)| (digest, Sha256::new())) }
    }

    /// The next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some((_, hasher)) = &mut self.expected {
            hasher.update(bytes);
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`SourceError::DigestMismatch`], naming `uri`.
    pub fn finish(self, uri: &impl fmt::Display) -> Result<(), SourceError> {
        let Some((expected, hasher)) = self.expected else { return Ok(()) };
        let actual = SourceDigest::Sha256(hasher.finalize().into());
        if expected == actual {
            return Ok(());
        }
        Err(SourceError::DigestMismatch {
            uri: uri.to_string(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_bytes_pass() {
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        let check = |expected, bytes: &[u8]| {
            let mut check = DigestCheck::new(expected);
            check.update(bytes);
            check.finish(&"file:///x")
        };
        check(Some(expected), b"abc").unwrap();
        check(None, b"anything").unwrap();
        let error = check(Some(expected), b"abd").unwrap_err();
        assert_eq!((error.reason(), error.field()), ("DigestMismatch", "spec.source.digest"));
    }
}
