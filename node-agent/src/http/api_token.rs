//! A token for the server's API in a file: the server's own, which only the server's user can read, or one of a cluster.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngCore;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is taken from a file, in characters.
const TOKEN_CHARACTERS_MIN: usize = 16;
/// Longest token that is taken from a file, in characters.
const TOKEN_CHARACTERS_MAX: usize = 16 << 10;

/// A bearer token. It does not show up in logs.
#[derive(Clone)]
pub struct ApiToken(Arc<str>);

/// The file cannot be used as a token.
#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    /// Reading or writing failed.
    #[error("API token file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "API token file {path}: expected one line of {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} printable \
         characters; if it is the server's own, delete it and restart the server for a new one"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl ApiToken {
    /// Reads the token, or makes one when the file is absent, readable by this user alone.
    ///
    /// # Errors
    /// [`ApiTokenError`] when the file can neither be read nor made, or holds no token.
    pub fn create(path: &Path) -> Result<Self, ApiTokenError> {
        let mut secret = [0; TOKEN_BYTES];
        rand::rng().fill_bytes(&mut secret);
        let token = hex::encode(secret);
        match write_new(path, &token) {
            Ok(()) => Ok(Self(token.into())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(source) => Err(ApiTokenError::File { path: path.to_owned(), source }),
        }
    }

    /// Reads the token.
    ///
    /// # Errors
    /// [`ApiTokenError`] when the file cannot be read or holds no token.
    pub fn read(path: &Path) -> Result<Self, ApiTokenError> {
        let text = fs::read_to_string(path).map_err(|source| ApiTokenError::File { path: path.to_owned(), source })?;
        let token = text.trim_end();
        let length_fits = (TOKEN_CHARACTERS_MIN..=TOKEN_CHARACTERS_MAX).contains(&token.len());
        if !length_fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiTokenError::Malformed { path: path.to_owned() });
        }
        Ok(Self(token.into()))
    }

    /// The secret, for the header of a request.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the claim is this token. Digests are compared, in constant time, so that the time tells nothing.
    pub fn matches(&self, claimed: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(claimed.as_bytes())
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiToken(..)")
    }
}

/// Written beside and linked into place: a reader sees the whole token or no file.
fn write_new(path: &Path, token: &str) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let linked = file
        .write_all(format!("{token}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    linked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn token_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api-token");
        let token = ApiToken::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ApiToken::create(&path).unwrap().matches(token.as_str()));
        assert!(!token.matches("") && !token.matches(&token.as_str()[1..]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(format!("{token:?}"), "ApiToken(..)");
    }

    #[test]
    fn empty_file_is_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api-token");
        fs::write(&path, "\n").unwrap();
        assert!(ApiToken::create(&path).unwrap_err().to_string().contains("api-token"));
    }
}
