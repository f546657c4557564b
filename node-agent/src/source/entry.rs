//! The rules for entries of a package: which names, links and kinds are accepted. Names and links follow the manifest's
//! own rules; what this adds is how archives write names, and the kinds that exist outside packages. Applied to
//! directories and archives alike, before anything is written.

use peerdist_core::manifest::{LinkTarget, PathFault, RelativePath};

/// The rule that an entry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    /// Its name.
    #[error("its name is not accepted: {0}")]
    Name(PathFault),
    /// The target of a symbolic link.
    #[error("it is a symbolic link that is not accepted: {0}")]
    Link(PathFault),
    /// A hard link in an archive.
    #[error("it is a hard link: pack the archive without hard links (tar --hard-dereference)")]
    HardLink,
    /// A device node.
    #[error("it is a device: remove it, packages have files, directories and symbolic links")]
    Device,
    /// A named pipe.
    #[error("it is a named pipe: remove it, packages have files, directories and symbolic links")]
    NamedPipe,
    /// A socket.
    #[error("it is a socket: remove it, packages have files, directories and symbolic links")]
    Socket,
    /// Any other kind.
    #[error("it is of a kind that packages do not have: remove it")]
    UnknownKind,
    /// The name was there before.
    #[error("its name appears twice")]
    Duplicate,
    /// A component of its path is a symbolic link of the same archive.
    #[error("its path goes through a symbolic link")]
    ThroughLink,
    /// A component of its path is a file of the same archive.
    #[error("its path goes through a file")]
    ThroughFile,
    /// A sparse file in an archive format that tells its holes apart.
    #[error("it is a sparse file: pack the archive without --sparse")]
    Sparse,
    /// Encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// The archive carries less than it announces.
    #[error(
        "the archive announces {announced_bytes} bytes and carries {carried_bytes}: it may be cut short; make it anew"
    )]
    CutShort {
        /// What its header says.
        announced_bytes: u64,
        /// What is there.
        carried_bytes: u64,
    },
    /// The archive carries more than it announces.
    #[error("it is longer than the archive announces: make the archive anew")]
    TooLong,
    /// Broken data of one entry.
    #[error("its data is damaged")]
    Damaged,
    /// Compressed in a way that is not supported.
    #[error("its compression is not supported: use deflate or store")]
    Compression,
}

/// An archive's name for an entry as a path: without `.` components and surplus slashes. `None` is the top of the tree
/// itself, which archives like to list as `./`.
///
/// # Errors
/// The rule that the name breaks.
pub fn archive_path(name: &[u8]) -> Result<Option<RelativePath>, EntryRefusal> {
    let fault = match name {
        [] => PathFault::Empty,
        [b'/', ..] => PathFault::Absolute,
        _ => {
            let components = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            let path = components.collect::<Vec<_>>().join(&b'/');
            return if path.is_empty() { Ok(None) } else { entry_path(&path).map(Some) };
        }
    };
    Err(EntryRefusal::Name(fault))
}

/// The path of an entry that exists in a directory.
///
/// # Errors
/// The rule that the path breaks.
pub fn entry_path(path: &[u8]) -> Result<RelativePath, EntryRefusal> {
    RelativePath::new(path.to_vec()).map_err(|error| EntryRefusal::Name(error.fault))
}

/// The target of the symbolic link at `path`.
///
/// # Errors
/// The rule that the target breaks.
pub fn link_target(path: &RelativePath, target: Vec<u8>) -> Result<LinkTarget, EntryRefusal> {
    LinkTarget::new(target, path).map_err(|error| EntryRefusal::Link(error.fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_names_become_paths() {
        for (name, path) in [("a", "a"), ("./a/b/", "a/b"), ("a//b/./c", "a/b/c"), ("...", "...")] {
            assert_eq!(archive_path(name.as_bytes()).unwrap().unwrap().as_bytes(), path.as_bytes(), "{name}");
        }
        assert_eq!(archive_path(b"\xff\xfe").unwrap().unwrap().as_bytes(), b"\xff\xfe");
        assert_eq!(archive_path(b"./"), Ok(None));
        assert_eq!(archive_path(b"."), Ok(None));
    }

    #[test]
    fn names_that_leave_the_tree_are_refused() {
        let check = |name: &[u8], fault| assert_eq!(archive_path(name), Err(EntryRefusal::Name(fault)), "{name:?}");
        check(b"", PathFault::Empty);
        check(b"/etc/passwd", PathFault::Absolute);
        check(b"..", PathFault::ParentComponent);
        check(b"a/../../b", PathFault::ParentComponent);
        check(b"a\0b", PathFault::Nul);
        check(&[b'a'; 256], PathFault::ComponentTooLong);
        check(&b"a/".repeat(129), PathFault::TooDeep);
        check(&[[b'a'; 200].as_slice(), b"/"].concat().repeat(21), PathFault::TooLong);
    }
}
