//! `peerdist prepare-storage`: makes a storage directory and gives it to the user that the agent runs as, for an init
//! container. Only the directory itself is given away: what is inside was made by that user.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use clap::Args;

use super::ExitStatus;

/// Which directory, and whose.
#[derive(Debug, Args)]
pub(super) struct PrepareStorageOptions {
    /// Directory of a client's packages or of the server
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT")]
    root: PathBuf,
    /// Number of the user and of the group that it is given to
    #[arg(long, value_name = "NUMBER")]
    owner: u32,
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no directory: expected a directory or nothing; remove it", .0.display())]
    NoDirectory(PathBuf),
}

pub(super) fn run(options: &PrepareStorageOptions) -> ExitStatus {
    match prepare(&options.root, options.owner) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            eprintln!("peerdist prepare-storage: {error}");
            ExitStatus::Failed
        }
    }
}

fn prepare(root: &Path, owner: u32) -> Result<(), PrepareError> {
    let failed = |action| move |source| PrepareError::File { action, path: root.to_owned(), source };
    fs::create_dir_all(root).map_err(failed("make"))?;
    let found = fs::symlink_metadata(root).map_err(failed("look at"))?;
    if !found.is_dir() {
        return Err(PrepareError::NoDirectory(root.to_owned()));
    }
    if (found.uid(), found.gid()) != (owner, owner) {
        lchown(root, Some(owner), Some(owner)).map_err(failed("give away"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_made_once_and_a_second_call_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        // Only root may give away; everybody may keep.
        let found = fs::metadata(folder.path()).unwrap();
        let owner = found.uid();
        if owner != found.gid() {
            return;
        }
        prepare(&root, owner).unwrap();
        fs::write(root.join("kept"), "x").unwrap();
        prepare(&root, owner).unwrap();
        assert!(root.join("kept").is_file());
        assert_eq!(fs::metadata(&root).unwrap().uid(), owner);
    }

    #[test]
    fn a_link_is_not_followed_and_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link, file) = (folder.path().join("t"), folder.path().join("l"), folder.path().join("f"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        fs::write(&file, "x").unwrap();
        assert!(matches!(prepare(&link, 0), Err(PrepareError::NoDirectory(_))));
        assert!(matches!(prepare(&file, 0), Err(PrepareError::File { .. })));
    }
}
