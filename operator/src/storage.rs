//! Which folders of a node an Office may name for its packages. An init container with root's rights gives that folder
//! away, so whoever may write an Office must not choose freely. Links on the node itself are not looked at.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use peerdist_crds::office::normal_path;

use crate::settings::{FileRoots, ServerStorage, overlap};

/// Most prefixes; one for each disk of a large node.
pub const STORAGE_PREFIXES_MAX: usize = 64;
/// The prefix that is allowed when nobody says otherwise.
const DEFAULT_PREFIX: &str = "/var/lib/peerdist";

/// Folders that may be used with all below them, at least one, but for those whose files may be sources, and the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePrefixes {
    prefixes: Vec<String>,
    published: FileRoots,
    server: Option<PathBuf>,
}

/// Prefixes that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoragePrefixError {
    /// One of them is no folder below the root.
    #[error("{0:?} is no storage prefix: expected an absolute path below / without '.' and '..'; correct it")]
    NoPath(String),
    /// There are too many.
    #[error("there are {0} storage prefixes: expected at most {STORAGE_PREFIXES_MAX}; remove some")]
    TooMany(usize),
}

impl StoragePrefixes {
    fn of(prefixes: Vec<String>) -> Self {
        Self { prefixes, published: FileRoots::default(), server: None }
    }

    /// The same, without what the server publishes: it and the clients are one user, so that it could read their keys.
    pub fn apart_from(self, published: FileRoots) -> Self {
        Self { published, ..self }
    }

    /// The same, without where the server stores: on a node with both, it and the client would share one folder.
    pub fn apart_from_server(self, storage: &ServerStorage) -> Self {
        let server = match storage {
            ServerStorage::HostPath(path) => Some(PathBuf::from(path)),
            ServerStorage::Claim { .. } => None,
        };
        Self { server, ..self }
    }

    /// Whether a normal path is one of the folders or lies below one.
    pub fn allow(&self, path: &str) -> bool {
        let below =
            |prefix: &String| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.prefixes.iter().any(below)
    }

    /// The folder of sources that holds a normal path or lies in it.
    pub fn published(&self, path: &str) -> Option<&Path> {
        self.published.overlapping(Path::new(path))
    }

    /// The folder of the server, if it holds a normal path or lies in it.
    pub fn of_server(&self, path: &str) -> Option<&Path> {
        self.server.as_deref().filter(|server| overlap(server, Path::new(path)))
    }
}

impl Default for StoragePrefixes {
    fn default() -> Self {
        Self::of(vec![DEFAULT_PREFIX.to_owned()])
    }
}

impl FromStr for StoragePrefixes {
    type Err = StoragePrefixError;

    /// Reads a list with commas between its entries.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries: Vec<&str> = text.split(',').map(str::trim).collect();
        if entries.len() > STORAGE_PREFIXES_MAX {
            return Err(StoragePrefixError::TooMany(entries.len()));
        }
        let normal = |entry: &str| normal_path(entry).ok_or_else(|| StoragePrefixError::NoPath(entry.to_owned()));
        entries.into_iter().map(normal).collect::<Result<_, _>>().map(Self::of)
    }
}

impl fmt::Display for StoragePrefixes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.prefixes.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folders_and_what_lies_below_them_are_allowed() {
        let prefixes: StoragePrefixes = "/var/lib/peerdist, /data/".parse().unwrap();
        for path in ["/var/lib/peerdist", "/var/lib/peerdist/a/b", "/data", "/data/x"] {
            assert!(prefixes.allow(path), "{path}");
        }
        for path in ["/", "/var/lib", "/var/lib/peerdist-server", "/database", "/etc", "/var/lib/kubelet"] {
            assert!(!prefixes.allow(path), "{path}");
        }
        assert_eq!(prefixes.to_string(), "/var/lib/peerdist,/data");
        assert_eq!("/var/lib/peerdist".parse(), Ok(StoragePrefixes::default()));
    }

    #[test]
    fn what_is_published_is_named_and_leaves_the_prefixes_as_they_are() {
        let published: FileRoots = serde_json::from_value(serde_json::json!(["/data/packages"])).unwrap();
        let prefixes = "/data".parse::<StoragePrefixes>().unwrap().apart_from(published);
        assert_eq!(prefixes.published("/data/packages/x"), Some(Path::new("/data/packages")));
        assert_eq!(prefixes.published("/data/x"), None);
        assert!(prefixes.allow("/data/packages/x"), "the two are asked one after the other");
        assert_eq!(StoragePrefixes::default().published("/data/packages"), None);
    }

    #[test]
    fn the_folder_of_the_server_is_named_if_it_has_one() {
        let prefixes = |storage: &ServerStorage| StoragePrefixes::default().apart_from_server(storage);
        let folder = prefixes(&ServerStorage::HostPath("/var/lib/peerdist/server".to_owned()));
        assert_eq!(folder.of_server("/var/lib/peerdist"), Some(Path::new("/var/lib/peerdist/server")));
        assert_eq!(folder.of_server("/var/lib/peerdist/serv"), None);
        let claim = ServerStorage::Claim { size: "1Gi".parse().unwrap(), storage_class_name: None };
        assert_eq!(prefixes(&claim).of_server("/var/lib/peerdist-server"), None, "a volume is no folder of the node");
        assert_eq!(StoragePrefixes::default().of_server("/var/lib/peerdist"), None);
    }

    #[test]
    fn what_is_no_folder_is_no_prefix() {
        for text in ["", "/", "data", "/a,,/b", "/a/../etc"] {
            assert!(matches!(text.parse::<StoragePrefixes>(), Err(StoragePrefixError::NoPath(_))), "{text}");
        }
        let many = vec!["/a"; STORAGE_PREFIXES_MAX + 1].join(",");
        assert_eq!(many.parse::<StoragePrefixes>(), Err(StoragePrefixError::TooMany(STORAGE_PREFIXES_MAX + 1)));
    }
}
