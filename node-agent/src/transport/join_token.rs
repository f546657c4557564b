//! The join token: what lets a node enrol, and what lets it recognise the server before it sends the secret.
//!
//! Text form: `peerdist1:<secret>:<SHA-256 of the root certificate>`, both in hexadecimal. In a cluster the secret is the
//! service-account token of the client's pod, and the pins come in a file of their own, one a root. Which nodes a token is entitled to
//! is the server's driver's business.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use peerdist_authority::server_identity::ROOTS_MAX;
use rand::RngCore;

use crate::private_file::{self, FileError};

const PREFIX: &str = "peerdist1";
const SECRET_BYTES: usize = 32;
/// How often a client looks whether its token file has appeared.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A secret and the pins of the authority that made it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    pins: Vec<[u8; 32]>,
}

/// A join token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// The text is not a token.
    #[error("join token is not valid: expected peerdist1:<64 hexadecimal digits>:<64 hexadecimal digits>")]
    Malformed,
    /// The pin is not a digest.
    #[error(
        "trust file {0} is not valid: expected one to {ROOTS_MAX} lines with the SHA-256 of a root certificate as 64 \
         hexadecimal digits"
    )]
    MalformedPin(PathBuf),
    /// The file could not be read or written.
    #[error("join token file: {0}")]
    File(#[from] FileError),
}

impl JoinToken {
    /// A new secret for the authority whose root certificate has this SHA-256.
    pub fn generate(root_sha256: [u8; 32]) -> Self {
        let mut secret = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut secret);
        Self { secret: hex::encode(secret), pins: vec![root_sha256] }
    }

    /// SHA-256 of each root certificate in DER form by which the server may be recognised; at least one.
    pub fn pins(&self) -> &[[u8; 32]] {
        &self.pins
    }

    /// The secret as it travels in the enrolment request.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether a presented secret is this token's. Takes the same time for every wrong secret.
    pub fn accepts(&self, presented: &str) -> bool {
        // Comparing hashes takes constant time and hides the lengths too.
        blake3::hash(presented.as_bytes()) == blake3::hash(self.secret().as_bytes())
    }

    /// Writes the token for clients to find, whole or not at all, readable by its owner only.
    ///
    /// # Errors
    /// [`JoinTokenError::File`] names the file.
    pub fn write(&self, path: &Path) -> Result<(), JoinTokenError> {
        let pin = self.pins.first().map(hex::encode).unwrap_or_default();
        let text = format!("{PREFIX}:{}:{pin}\n", self.secret());
        Ok(private_file::replace(path, text.as_bytes())?)
    }

    /// Reads the token; `None` when the file is not there yet.
    ///
    /// # Errors
    /// [`JoinTokenError`] when the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, JoinTokenError> {
        read_text(path)?.map(|text| text.parse()).transpose()
    }

    /// Reads the token of a pod and the pin that goes with it; `None` when one of them is not there yet.
    ///
    /// # Errors
    /// [`JoinTokenError`] when a file cannot be read or holds something else.
    pub fn read_of_pod(path: &Path, trust: &Path) -> Result<Option<Self>, JoinTokenError> {
        let (Some(secret), Some(pins)) = (Self::read_secret_of_pod(path)?, read_text(trust)?) else { return Ok(None) };
        let pins: Option<Vec<[u8; 32]>> = pins.lines().map(|line| digest(line.trim())).collect();
        let pins = pins.filter(|pins| (1..=ROOTS_MAX).contains(&pins.len()));
        let pins = pins.ok_or_else(|| JoinTokenError::MalformedPin(trust.to_owned()))?;
        Ok(Some(Self { secret, pins }))
    }

    /// Reads the token of a pod alone, which says who the pod is but not who the server is; `None` when it is not there
    /// yet.
    ///
    /// # Errors
    /// [`JoinTokenError`] when the file cannot be read or holds something else.
    pub fn read_secret_of_pod(path: &Path) -> Result<Option<String>, JoinTokenError> {
        let secret = read_text(path)?;
        let is_malformed = |secret: &String| secret.is_empty() || secret.contains(char::is_whitespace);
        if secret.as_ref().is_some_and(is_malformed) { Err(JoinTokenError::Malformed) } else { Ok(secret) }
    }

    /// Reads the token as it is now; with a trust file it is the token of a pod.
    ///
    /// # Errors
    /// [`JoinTokenError`] when a file cannot be read or holds something else.
    pub fn look(path: &Path, trust: Option<&Path>) -> Result<Option<Self>, JoinTokenError> {
        match trust {
            Some(trust) => Self::read_of_pod(path, trust),
            None => Self::read(path),
        }
    }

    /// Waits until the token is there.
    ///
    /// # Errors
    /// [`JoinTokenError`] when a file cannot be read or holds something else.
    pub async fn wait(path: &Path, trust: Option<&Path>) -> Result<Self, JoinTokenError> {
        loop {
            if let Some(token) = Self::look(path, trust)? {
                return Ok(token);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pins: Vec<String> = self.pins.iter().map(hex::encode).collect();
        formatter.debug_struct("JoinToken").field("pins", &pins).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut parts = text.split(':');
        let (Some(PREFIX), Some(secret), Some(root), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoinTokenError::Malformed);
        };
        let decode = |digits: &str| digest(digits).ok_or(JoinTokenError::Malformed);
        Ok(Self { secret: hex::encode(decode(secret)?), pins: vec![decode(root)?] })
    }
}

fn digest(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).is_ok().then_some(bytes)
}

fn read_text(path: &Path) -> Result<Option<String>, JoinTokenError> {
    let Some(bytes) = private_file::read(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| JoinTokenError::Malformed)?;
    Ok(Some(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("join-token");
        assert!(JoinToken::read(&path).unwrap().is_none());
        let token = JoinToken::generate([7; 32]);
        token.write(&path).unwrap();
        assert_eq!(JoinToken::read(&path).unwrap(), Some(token));
    }

    #[test]
    fn only_the_own_secret_is_accepted() {
        let (token, other) = (JoinToken::generate([7; 32]), JoinToken::generate([7; 32]));
        assert!(token.accepts(token.secret()));
        assert!(!token.accepts(other.secret()));
        assert!(!token.accepts(""));
    }

    #[test]
    fn a_pod_has_its_token_and_the_pin_in_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let [token, trust] = ["token", "root-sha256"].map(|name| folder.path().join(name));
        std::fs::write(&token, "aaa.bbb.ccc").unwrap();
        assert!(JoinToken::read_of_pod(&token, &trust).unwrap().is_none());
        std::fs::write(&trust, "07".repeat(32)).unwrap();
        let read = JoinToken::read_of_pod(&token, &trust).unwrap().unwrap();
        assert_eq!((read.secret(), read.pins()), ("aaa.bbb.ccc", &[[7; 32]][..]));
        std::fs::write(&trust, format!("{}\n{}\n", "07".repeat(32), "08".repeat(32))).unwrap();
        let read = JoinToken::read_of_pod(&token, &trust).unwrap().unwrap();
        assert_eq!(read.pins(), [[7; 32], [8; 32]]);
        std::fs::write(&trust, vec!["07".repeat(32); ROOTS_MAX + 1].join("\n")).unwrap();
        assert!(matches!(JoinToken::read_of_pod(&token, &trust), Err(JoinTokenError::MalformedPin(_))));
        std::fs::write(&trust, "07").unwrap();
        assert!(matches!(JoinToken::read_of_pod(&token, &trust), Err(JoinTokenError::MalformedPin(_))));
        std::fs::write(&token, "").unwrap();
        assert!(matches!(JoinToken::read_of_pod(&token, &trust), Err(JoinTokenError::Malformed)));
    }

    #[test]
    fn other_text_is_no_token() {
        for text in ["", "peerdist1:aa:bb", "peerdist2::", &format!("peerdist1:{0}:{0}:", "0".repeat(64))] {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }
}
