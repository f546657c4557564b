//! `STATE/server/api.json`: where the server's API is and which file holds its token, for commands on the same host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the file in the server's root.
const FILE_NAME: &str = "api.json";

/// Where the API of a running (or stopped) server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiFile {
    /// Base URL without a path, for example `http://127.34.0.1:9760`.
    pub url: String,
    /// The token's file; a relative path is relative to the server's root.
    pub token_file: PathBuf,
}

/// The file cannot be read, written or understood.
#[derive(Debug, thiserror::Error)]
pub enum ApiFileError {
    /// There is no server here, or never was.
    #[error("{path} does not exist: start a server there, or give the right --state or --server")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {source}: expected an object with url and tokenFile, as the server writes it at its start")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: serde_json::Error,
    },
}

impl ApiFile {
    /// Writes the file into the server's root, whole by rename.
    ///
    /// # Errors
    /// [`ApiFileError`] when the root cannot be written to.
    pub fn write(&self, server_root: &Path) -> Result<(), ApiFileError> {
        let path = server_root.join(FILE_NAME);
        let beside = server_root.join(format!("{FILE_NAME}.new"));
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| ApiFileError::Malformed { path: path.clone(), source })?;
        fs::write(&beside, text + "\n")
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| ApiFileError::File { path, source })
    }

    /// Reads the file from the server's root; the token's path is made absolute.
    ///
    /// # Errors
    /// [`ApiFileError`] when it is absent or not as the server writes it.
    pub fn read(server_root: &Path) -> Result<Self, ApiFileError> {
        let path = server_root.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ApiFileError::Absent { path: path.clone() },
            _ => ApiFileError::File { path: path.clone(), source },
        })?;
        let file: Self = serde_json::from_str(&text).map_err(|source| ApiFileError::Malformed { path, source })?;
        Ok(Self { token_file: server_root.join(file.token_file), ..file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_finds_the_token_beside_the_file() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(ApiFile::read(root.path()), Err(ApiFileError::Absent { .. })));
        let file = ApiFile { url: "http://127.34.0.1:9760".into(), token_file: "api-token".into() };
        file.write(root.path()).unwrap();
        let read = ApiFile::read(root.path()).unwrap();
        assert_eq!((read.url, read.token_file), (file.url, root.path().join("api-token")));
    }
}
