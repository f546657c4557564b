//! A private key in a file that only its owner reads: opened, or made when there is none.

use std::path::{Path, PathBuf};

use peerdist_authority::private_key::key;
use rcgen::KeyPair;

use crate::private_file::{self, FileError};

/// Opens the key, or makes one and writes it first.
///
/// # Errors
/// What `damaged` makes of the path when the file holds no key; an error of the file or of the new key.
pub(super) fn open<E: From<FileError> + From<rcgen::Error>>(
    path: &Path,
    damaged: impl FnOnce(PathBuf) -> E,
) -> Result<KeyPair, E> {
    match private_file::read(path)? {
        Some(pem) => key(&pem).ok_or_else(|| damaged(path.to_path_buf())),
        None => {
            let key = KeyPair::generate()?;
            private_file::replace(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
    }
}
