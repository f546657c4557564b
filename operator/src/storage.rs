//! Which folders of a node an Office may name for its packages. An init container with root's rights gives that folder
//! away, so whoever may write an Office must not choose freely. Links on the node itself are not looked at.

use std::fmt;
use std::str::FromStr;

use peerdist_crds::office::normal_path;

/// Most prefixes; one for each disk of a large node.
pub const STORAGE_PREFIXES_MAX: usize = 64;
/// The prefix that is allowed when nobody says otherwise.
const DEFAULT_PREFIX: &str = "/var/lib/peerdist";

/// Folders that may be used with all below them, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePrefixes(Vec<String>);

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
    /// Whether a normal path is one of the folders or lies below one.
    pub fn allow(&self, path: &str) -> bool {
        let below =
            |prefix: &String| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.0.iter().any(below)
    }
}

impl Default for StoragePrefixes {
    fn default() -> Self {
        Self(vec![DEFAULT_PREFIX.to_owned()])
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
        entries.into_iter().map(normal).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for StoragePrefixes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(","))
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
    fn what_is_no_folder_is_no_prefix() {
        for text in ["", "/", "data", "/a,,/b", "/a/../etc"] {
            assert!(matches!(text.parse::<StoragePrefixes>(), Err(StoragePrefixError::NoPath(_))), "{text}");
        }
        let many = vec!["/a"; STORAGE_PREFIXES_MAX + 1].join(",");
        assert_eq!(many.parse::<StoragePrefixes>(), Err(StoragePrefixError::TooMany(STORAGE_PREFIXES_MAX + 1)));
    }
}
