//! The authority that a server is given: a folder that somebody else writes, such as kubelet from a Secret. There all
//! files are replaced together by turning one link, so they are read behind that link, and anew when it was turned
//! meanwhile: the folder that it led to before is removed then, file by file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peerdist_authority::ServerIdentity;
use peerdist_authority::server_identity::FILES;

use super::AuthorityError;
use crate::private_file::{self, FileError};

/// The link that kubelet turns.
const CURRENT: &str = "..data";
/// How often is read until the link stays: kubelet turns it once a minute at most.
const READS_MAX: u32 = 4;

/// All files by their names, as far as they are there.
type Files = BTreeMap<&'static str, Vec<u8>>;

/// Reads the folder as it is now.
pub(super) fn read(folder: &Path) -> Result<ServerIdentity, AuthorityError> {
    let files = settled(folder, files_in)?;
    ServerIdentity::read(|name| files.get(name).cloned())
        .map_err(|source| AuthorityError::Given { folder: folder.to_path_buf(), source })
}

/// What is read behind the link while it leads to one place.
fn settled(folder: &Path, mut read: impl FnMut(&Path) -> Result<Files, FileError>) -> Result<Files, FileError> {
    let mut current = behind_link(folder);
    for _ in 1..READS_MAX {
        let files = read(&current);
        let later = behind_link(folder);
        if later == current {
            return files;
        }
        current = later;
    }
    read(&current)
}

fn behind_link(folder: &Path) -> PathBuf {
    folder.join(CURRENT).canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

fn files_in(folder: &Path) -> Result<Files, FileError> {
    let read = |name| Ok(private_file::read(&folder.join(name))?.map(|content| (name, content)));
    FILES.into_iter().filter_map(|name| read(name).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Does what kubelet does for another form of the Secret.
    fn turn(folder: &Path, form: &str) {
        let before = folder.join(CURRENT).canonicalize();
        fs::create_dir(folder.join(form)).unwrap();
        for name in FILES {
            fs::write(folder.join(form).join(name), form).unwrap();
        }
        symlink(form, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join(CURRENT)).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(before).unwrap();
        }
    }

    #[test]
    fn files_are_of_one_form_although_the_link_is_turned_while_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        turn(folder.path(), "first");
        let mut reads = 0;
        let files = settled(folder.path(), |current| {
            reads += 1;
            if reads == 1 {
                turn(folder.path(), "second");
            }
            files_in(current)
        });
        let files = files.unwrap();
        assert_eq!((reads, files.len()), (2, FILES.len()));
        assert!(files.values().all(|content| content == b"second"));
    }

    #[test]
    fn a_link_that_never_stays_is_not_followed_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        turn(folder.path(), "0");
        let mut reads = 0;
        let read = settled(folder.path(), |current| {
            reads += 1;
            let files = files_in(current);
            turn(folder.path(), &reads.to_string());
            files
        });
        assert_eq!((reads, read.unwrap().len()), (READS_MAX, FILES.len()));
    }

    #[test]
    fn a_plain_folder_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILES[0]), "x").unwrap();
        let mut reads = 0;
        let read = settled(folder.path(), |current| {
            reads += 1;
            files_in(current)
        });
        assert_eq!((reads, read.unwrap().len()), (1, 1));
    }
}
