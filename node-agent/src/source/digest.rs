//! The digest that a user expects of a source's bytes, and the hashing that checks it while they stream past.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::error::SourceError;

/// `spec.source.digest`: the algorithm and 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedDigest {
    /// `sha256:<hex>`
    Sha256([u8; 32]),
    /// `blake3:<hex>`
    Blake3([u8; 32]),
}

impl std::str::FromStr for ExpectedDigest {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let invalid = || SourceError::DigestInvalid { digest: text.chars().take(100).collect() };
        let (algorithm, digits) = text.split_once(':').ok_or_else(invalid)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        match algorithm {
            "sha256" => Ok(Self::Sha256(bytes)),
            "blake3" => Ok(Self::Blake3(bytes)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for ExpectedDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => write!(formatter, "sha256:{}", hex::encode(bytes)),
            Self::Blake3(bytes) => write!(formatter, "blake3:{}", hex::encode(bytes)),
        }
    }
}

impl fmt::Debug for ExpectedDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Hashes a stream with the algorithm of the expected digest; hashes nothing when none is expected.
pub struct DigestCheck {
    expected: Option<ExpectedDigest>,
    hasher: Hasher,
}

enum Hasher {
    None,
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl DigestCheck {
    /// A check for one stream.
    pub fn new(expected: Option<ExpectedDigest>) -> Self {
        let hasher = match expected {
            None => Hasher::None,
            Some(ExpectedDigest::Sha256(_)) => Hasher::Sha256(Sha256::new()),
            Some(ExpectedDigest::Blake3(_)) => Hasher::Blake3(Box::default()),
        };
        Self { expected, hasher }
    }

    /// The next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`SourceError::DigestMismatch`], naming `uri`.
    pub fn finish(self, uri: &impl fmt::Display) -> Result<(), SourceError> {
        let actual = match self.hasher {
            Hasher::None => return Ok(()),
            Hasher::Sha256(hasher) => ExpectedDigest::Sha256(hasher.finalize().into()),
            Hasher::Blake3(hasher) => ExpectedDigest::Blake3(*hasher.finalize().as_bytes()),
        };
        match self.expected {
            Some(expected) if expected != actual => Err(SourceError::DigestMismatch {
                uri: uri.to_string(),
                expected: expected.to_string(),
                actual: actual.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_by_their_algorithm() {
        let sha = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blake = format!("blake3:{}", blake3::hash(b"abc").to_hex());
        for text in [sha, &blake] {
            let expected: ExpectedDigest = text.parse().unwrap();
            assert_eq!(expected.to_string(), text);
            let check = |bytes: &[u8]| {
                let mut check = DigestCheck::new(Some(expected));
                check.update(bytes);
                check.finish(&"file:///x")
            };
            check(b"abc").unwrap();
            assert_eq!(check(b"abd").unwrap_err().reason(), "DigestMismatch");
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in ["", "abc", "md5:00", "sha256:", "sha256:zz", &format!("sha1:{}", "0".repeat(64)), "blake3:00"] {
            assert_eq!(text.parse::<ExpectedDigest>().unwrap_err().reason(), "DigestInvalid", "{text}");
        }
    }
}
