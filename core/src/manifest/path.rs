//! Paths of entries and targets of links: raw bytes that cannot name anything outside the tree.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use super::{COMPONENT_BYTES_MAX, DEPTH_MAX, PATH_BYTES_MAX};

/// Characters of a refused path that an error shows.
const SHOWN_CHARACTERS_MAX: usize = 160;

/// A relative path of raw bytes: components joined by `/`, none of them empty, `.` or `..`.
///
/// Paths order by component, so that a directory is directly followed by what is in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelativePath(Bytes);

/// A path or link target that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} is refused: {fault}")]
pub struct PathError {
    /// The path, printable and cut.
    pub path: String,
    /// What is wrong with it.
    pub fault: PathFault,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("it is longer than 4095 bytes")]
    TooLong,
    /// A component longer than [`COMPONENT_BYTES_MAX`].
    #[error("a component is longer than 255 bytes")]
    ComponentTooLong,
    /// More components than [`DEPTH_MAX`].
    #[error("it is nested deeper than 128 directories")]
    TooDeep,
    /// Starts with `/`.
    #[error("it is absolute, expected a path relative to the package")]
    Absolute,
    /// `a//b` or a trailing `/`.
    #[error("it has an empty component")]
    EmptyComponent,
    /// A `.` component.
    #[error("it has a '.' component")]
    DotComponent,
    /// A `..` component in a path.
    #[error("it has a '..' component, which could leave the package")]
    ParentComponent,
    /// A NUL byte.
    #[error("it contains a NUL byte")]
    Nul,
    /// A link whose target lies above the package.
    #[error("the link's target lies outside the package")]
    TargetOutside,
    /// A link target with `..` behind a name: through another link it could leave the package.
    #[error("the link's target has '..' behind a name, which could leave the package through another link")]
    TargetClimbsLate,
}

impl PathFault {
    fn at(self, path: &[u8]) -> PathError {
        PathError { path: printable(path), fault: self }
    }
}

/// A path as text for messages: lossy, and cut.
fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(SHOWN_CHARACTERS_MAX).collect()
}

impl RelativePath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`PathError`] with the rule that it breaks.
    pub fn new(path: impl Into<Bytes>) -> Result<Self, PathError> {
        let path = path.into();
        match fault_of(&path) {
            Some(fault) => Err(fault.at(&path)),
            None => Ok(Self(path)),
        }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The directory the path lies in; `None` for the top of the package.
    pub fn parent(&self) -> Option<&[u8]> {
        self.0.iter().rposition(|&byte| byte == b'/').map(|slash| &self.0[..slash])
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// How many directories lie above it.
    pub fn depth(&self) -> usize {
        self.components().count() - 1
    }
}

fn fault_of(path: &[u8]) -> Option<PathFault> {
    if path.is_empty() {
        return Some(PathFault::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Some(PathFault::TooLong);
    }
    if path[0] == b'/' {
        return Some(PathFault::Absolute);
    }
    if path.contains(&0) {
        return Some(PathFault::Nul);
    }
    let mut components = path.split(|&byte| byte == b'/');
    components.clone().find_map(component_fault).or_else(|| components.nth(DEPTH_MAX).map(|_| PathFault::TooDeep))
}

fn component_fault(component: &[u8]) -> Option<PathFault> {
    match component {
        b"" => Some(PathFault::EmptyComponent),
        b"." => Some(PathFault::DotComponent),
        b".." => Some(PathFault::ParentComponent),
        long if long.len() > COMPONENT_BYTES_MAX => Some(PathFault::ComponentTooLong),
        _ => None,
    }
}

impl Ord for RelativePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

impl PartialOrd for RelativePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares by component: the separator ranks below every byte of a name (a name has no NUL).
pub(super) fn compare_paths(left: &[u8], right: &[u8]) -> Ordering {
    let rank = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    left.iter().map(rank).cmp(right.iter().map(rank))
}

impl fmt::Display for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Target of a symbolic link that stays inside the package whatever other links exist.
///
/// `..` is allowed only in front: from the link's own directory, which is no link itself, it climbs real directories.
/// Behind a name it would climb from wherever that name leads.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LinkTarget(Bytes);

impl LinkTarget {
    /// Checks the target of the link at `link`.
    ///
    /// # Errors
    /// [`PathError`] when the target is empty, too long, absolute, contains NUL or could leave the package.
    pub fn new(target: impl Into<Bytes>, link: &RelativePath) -> Result<Self, PathError> {
        let target = target.into();
        match target_fault(&target, link.depth()) {
            Some(fault) => Err(fault.at(&target)),
            None => Ok(Self(target)),
        }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn target_fault(target: &[u8], depth: usize) -> Option<PathFault> {
    match target.first() {
        None => return Some(PathFault::Empty),
        Some(b'/') => return Some(PathFault::Absolute),
        Some(_) if target.len() > PATH_BYTES_MAX => return Some(PathFault::TooLong),
        Some(_) if target.contains(&0) => return Some(PathFault::Nul),
        Some(_) => {}
    }
    let (mut climbed, mut named) = (0, false);
    for component in target.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if named => return Some(PathFault::TargetClimbsLate),
            b".." if climbed == depth => return Some(PathFault::TargetOutside),
            b".." => climbed += 1,
            long if long.len() > COMPONENT_BYTES_MAX => return Some(PathFault::ComponentTooLong),
            _ => named = true,
        }
    }
    None
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests;
