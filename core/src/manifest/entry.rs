//! Entries of a package's tree and the order in which they follow each other.

use std::cmp::Ordering;

use bytes::Bytes;

use super::path::{LinkTarget, PathError, RelativePath, compare_paths};
use crate::wire::proto;

/// One file, directory or link of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies in the package.
    pub path: RelativePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Devices, sockets and hard links cannot be expressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its size.
        bytes: u64,
        /// Published as 0555 instead of 0444.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: LinkTarget,
    },
}

/// An entry of a message that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its path or link target.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A kind that does not exist.
    #[error("entry {path} has kind {kind}, expected file, directory or symlink")]
    UnknownKind {
        /// The entry.
        path: RelativePath,
        /// The number that arrived.
        kind: i32,
    },
    /// A field that this kind does not have.
    #[error("entry {path} carries {field}, which its kind does not have")]
    UnexpectedField {
        /// The entry.
        path: RelativePath,
        /// The field.
        field: &'static str,
    },
}

impl Entry {
    /// A regular file.
    pub fn file(path: RelativePath, bytes: u64, executable: bool) -> Self {
        Self { path, kind: EntryKind::File { bytes, executable } }
    }

    /// A directory.
    pub fn directory(path: RelativePath) -> Self {
        Self { path, kind: EntryKind::Directory }
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// [`PathError`] when the target could leave the package.
    pub fn symlink(path: RelativePath, target: impl Into<Bytes>) -> Result<Self, PathError> {
        let target = LinkTarget::new(target, &path)?;
        Ok(Self { path, kind: EntryKind::Symlink { target } })
    }

    /// Content bytes: the size of a file, nothing for other kinds.
    pub fn bytes(&self) -> u64 {
        match self.kind {
            EntryKind::File { bytes, .. } => bytes,
            EntryKind::Directory | EntryKind::Symlink { .. } => 0,
        }
    }

    pub(super) fn to_message(&self) -> proto::Entry {
        let path = self.path.as_bytes().to_vec().into();
        let plain = proto::Entry { path, ..Default::default() };
        match &self.kind {
            EntryKind::File { bytes, executable } => {
                proto::Entry { kind: proto::EntryKind::File.into(), bytes: *bytes, executable: *executable, ..plain }
            }
            EntryKind::Directory => proto::Entry { kind: proto::EntryKind::Directory.into(), ..plain },
            EntryKind::Symlink { target } => proto::Entry {
                kind: proto::EntryKind::Symlink.into(),
                link_target: target.as_bytes().to_vec().into(),
                ..plain
            },
        }
    }
}

impl TryFrom<proto::Entry> for Entry {
    type Error = EntryError;

    fn try_from(message: proto::Entry) -> Result<Self, EntryError> {
        let path = RelativePath::new(message.path)?;
        let kind = proto::EntryKind::try_from(message.kind).unwrap_or(proto::EntryKind::Unspecified);
        let is_file = kind == proto::EntryKind::File;
        let surplus = [
            ("bytes", !is_file && message.bytes != 0),
            ("executable", !is_file && message.executable),
            ("link_target", kind != proto::EntryKind::Symlink && !message.link_target.is_empty()),
        ];
        if let Some((field, _)) = surplus.into_iter().find(|(_, present)| *present) {
            return Err(EntryError::UnexpectedField { path, field });
        }
        match kind {
            proto::EntryKind::File => Ok(Self::file(path, message.bytes, message.executable)),
            proto::EntryKind::Directory => Ok(Self::directory(path)),
            proto::EntryKind::Symlink => Ok(Self::symlink(path, message.link_target)?),
            proto::EntryKind::Unspecified => Err(EntryError::UnknownKind { path, kind: message.kind }),
        }
    }
}

/// Checks that entries come strictly ascending and below directories that came before. Memory: one path.
#[derive(Debug, Clone, Default)]
pub struct TreeOrder {
    last: Vec<u8>,
    /// Lengths of the prefixes of `last` that are directories, from the top.
    directories: Vec<usize>,
}

/// An entry at a wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The same path twice.
    #[error("entry {path} appears twice")]
    Duplicate {
        /// The entry.
        path: RelativePath,
    },
    /// Paths must ascend by component.
    #[error("entry {path} comes too late: expected paths in ascending order")]
    NotAscending {
        /// The entry.
        path: RelativePath,
    },
    /// Its parent is missing, a file, or a link.
    #[error("entry {path} does not lie in a directory of the package")]
    ParentIsNoDirectory {
        /// The entry.
        path: RelativePath,
    },
}

impl TreeOrder {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`OrderError`] when it is a duplicate, out of order, or not below a directory.
    pub fn check(&mut self, entry: &Entry) -> Result<(), OrderError> {
        let path = &entry.path;
        match compare_paths(&self.last, path.as_bytes()) {
            Ordering::Less => {}
            Ordering::Equal => return Err(OrderError::Duplicate { path: path.clone() }),
            Ordering::Greater => return Err(OrderError::NotAscending { path: path.clone() }),
        }
        let parent = path.parent();
        while self.directories.last().is_some_and(|&length| Some(&self.last[..length]) != parent) {
            self.directories.pop();
        }
        if parent.is_some() && self.directories.is_empty() {
            return Err(OrderError::ParentIsNoDirectory { path: path.clone() });
        }
        self.last.clear();
        self.last.extend_from_slice(path.as_bytes());
        if entry.kind == EntryKind::Directory {
            self.directories.push(self.last.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &'static str) -> RelativePath {
        RelativePath::new(text.as_bytes()).unwrap()
    }

    fn check(entries: &[Entry]) -> Result<(), OrderError> {
        let mut order = TreeOrder::default();
        entries.iter().try_for_each(|entry| order.check(entry))
    }

    fn file(text: &'static str) -> Entry {
        Entry::file(path(text), 1, false)
    }

    fn directory(text: &'static str) -> Entry {
        Entry::directory(path(text))
    }

    #[test]
    fn a_tree_in_path_order_is_accepted() {
        let entries = [directory("a"), directory("a/b"), file("a/b/c"), file("a/d"), file("a-b"), directory("e")];
        assert_eq!(check(&entries), Ok(()));
    }

    #[test]
    fn duplicates_disorder_and_missing_parents_are_refused() {
        let refused = |entries: &[Entry]| check(entries).unwrap_err();
        assert_eq!(refused(&[file("a"), file("a")]), OrderError::Duplicate { path: path("a") });
        assert_eq!(refused(&[directory("a"), file("a")]), OrderError::Duplicate { path: path("a") });
        assert_eq!(refused(&[file("b"), file("a")]), OrderError::NotAscending { path: path("a") });
        assert_eq!(refused(&[file("a/b")]), OrderError::ParentIsNoDirectory { path: path("a/b") });
        assert_eq!(refused(&[file("a"), file("a/b")]), OrderError::ParentIsNoDirectory { path: path("a/b") });
        let link = Entry::symlink(path("a"), &b"b"[..]).unwrap();
        assert_eq!(
            refused(&[link, file("a/b"), directory("b")]),
            OrderError::ParentIsNoDirectory { path: path("a/b") }
        );
        let left = [directory("a"), directory("b"), file("a/c")];
        assert_eq!(refused(&left), OrderError::NotAscending { path: path("a/c") });
    }

    #[test]
    fn messages_with_foreign_kinds_or_fields_are_refused() {
        let message = |kind: i32| proto::Entry { path: Bytes::from_static(b"x"), kind, ..Default::default() };
        assert!(matches!(Entry::try_from(message(0)), Err(EntryError::UnknownKind { .. })));
        assert!(matches!(Entry::try_from(message(9)), Err(EntryError::UnknownKind { kind: 9, .. })));
        let directory_with_bytes = proto::Entry { bytes: 5, ..message(2) };
        assert!(matches!(
            Entry::try_from(directory_with_bytes),
            Err(EntryError::UnexpectedField { field: "bytes", .. })
        ));
        let link_out = proto::Entry { link_target: Bytes::from_static(b"../x"), ..message(3) };
        assert!(matches!(Entry::try_from(link_out), Err(EntryError::Path(_))));
    }
}
