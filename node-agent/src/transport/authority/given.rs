//! The authority that a server is given: a folder that somebody else writes, such as kubelet from a Secret. There all
//! files are replaced together by turning one link, so they are read behind that link.

use std::collections::BTreeMap;
use std::path::Path;

use peerdist_authority::ServerIdentity;
use peerdist_authority::server_identity::FILES;

use super::AuthorityError;
use crate::private_file;

/// The link that kubelet turns.
const CURRENT: &str = "..data";

/// Reads the folder as it is now.
pub(super) fn read(folder: &Path) -> Result<ServerIdentity, AuthorityError> {
    let current = folder.join(CURRENT).canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut files = BTreeMap::new();
    for name in FILES {
        if let Some(content) = private_file::read(&current.join(name))? {
            files.insert(name, content);
        }
    }
    ServerIdentity::read(|name| files.get(name).cloned())
        .map_err(|source| AuthorityError::Given { folder: folder.to_path_buf(), source })
}
