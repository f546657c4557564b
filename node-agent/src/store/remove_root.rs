//! Takes away everything that a role keeps below its root, when peerdist is uninstalled. Only what is ours: packages as
//! the journal has them, then the files and folders that a role makes. What somebody else put there stays and is named.
//! No link is followed.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::beneath;
use super::error::{StoreError, io_error};
use super::node_store::{NodeStore, StoreLimits};

/// What a client or a server makes in its root, besides `packages`: the journal last, which knows what is ours.
const OURS: [&str; 10] = [
    "staging",
    "identity",
    "join-token",
    "api-token",
    "api.json",
    "last-good.json",
    "metadata.sqlite-wal",
    "metadata.sqlite-shm",
    "metadata.sqlite",
    "journal",
];
/// Most names of others that are given back.
const FOREIGN_NAMED_MAX: usize = 20;

impl NodeStore {
    /// Removes all that is ours below `root`, and `root` itself if that leaves it empty and its parent lets go of it.
    /// Gives back what is left. A root that is not there is fine; doing it again continues.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while a role runs there, otherwise what failed on disk.
    pub fn remove_root(root: &Path) -> Result<Vec<String>, StoreError> {
        if !fs::symlink_metadata(root).is_ok_and(|found| found.is_dir()) {
            return Ok(Vec::new());
        }
        if root.join("journal").is_dir() {
            let store = Self::open(root, StoreLimits::default())?;
            // One that cannot be deleted keeps no other one here.
            let deleted: Vec<_> = store.inventory().iter().map(|package| store.delete(package.digest)).collect();
            deleted.into_iter().collect::<Result<(), StoreError>>()?;
        }
        let directory = open_root(root)?;
        for name in OURS {
            beneath::remove_all(&directory, name.as_bytes()).map_err(io_error("remove", root.join(name)))?;
        }
        // Not empty: somebody else keeps something there.
        let _ = rustix::fs::unlinkat(&directory, "packages", AtFlags::REMOVEDIR);
        let left = beneath::names_in(&directory).map_err(io_error("list", root))?;
        // It may be a mount, or lie in a folder of root's.
        let _ = fs::remove_dir(root);
        Ok(left.iter().take(FOREIGN_NAMED_MAX).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }
}

fn open_root(root: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|error| io_error("open", root)(error.into()))
}
