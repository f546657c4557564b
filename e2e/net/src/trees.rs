//! Judges what arrived: the digest of a tree, and whether a node's published packages are whole.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use blake3::{Hash, Hasher};

/// What a node publishes of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// No version is there.
    Absent,
    /// These versions are there, each equal to what was distributed.
    Whole(Vec<String>),
}

/// Digest over paths, kinds, contents, link targets and executable bits of everything under `folder`. Owner, times and
/// other permissions do not count: they are not distributed.
///
/// # Errors
/// When something cannot be read.
pub fn digest(folder: &Path) -> Result<Hash> {
    let mut entries = Vec::new();
    list(folder, &mut entries)?;
    entries.sort();
    let mut hasher = Hasher::new();
    for path in entries {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        update_framed(&mut hasher, name.as_os_str().as_bytes());
        hash_entry(&mut hasher, &path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(hasher.finalize())
}

/// Looks at the published versions of a package under a node's root. Half a tree is an error, and so is a link
/// `current` to nothing.
///
/// # Errors
/// As said.
pub fn look(root: &Path, namespace: &str, name: &str, expected: &[(String, Hash)]) -> Result<Published> {
    let folder = root.join("packages").join(namespace).join(name);
    let versions = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Published::Absent),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let mut whole = Vec::new();
    for entry in versions {
        let path = entry?.path();
        let version = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() {
            check_link(&path)?;
        } else {
            check_version(&path, &version, expected)?;
            whole.push(version);
        }
    }
    whole.sort();
    Ok(if whole.is_empty() { Published::Absent } else { Published::Whole(whole) })
}

/// Whether `current` of a package points at `version`.
pub fn is_current(root: &Path, namespace: &str, name: &str, version: &str) -> bool {
    let link = root.join("packages").join(namespace).join(name).join("current");
    fs::read_link(&link).is_ok_and(|target| target == Path::new(version)) && link.exists()
}

fn check_link(path: &Path) -> Result<()> {
    let is_temporary = path.file_name().is_some_and(|name| name != "current");
    if is_temporary || path.exists() {
        return Ok(());
    }
    bail!("{} points at nothing", path.display())
}

fn check_version(path: &Path, version: &str, expected: &[(String, Hash)]) -> Result<()> {
    let Some((_, wanted)) = expected.iter().find(|(known, _)| known == version) else {
        bail!("{}: nothing was distributed under that name", path.display())
    };
    if digest(path)? != *wanted {
        bail!("{} is published and differs from what was distributed", path.display());
    }
    Ok(())
}

fn list(folder: &Path, entries: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), entries)?;
        }
        entries.push(entry.path());
    }
    Ok(())
}

fn hash_entry(hasher: &mut Hasher, path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        update_framed(hasher, b"link");
        update_framed(hasher, fs::read_link(path)?.as_os_str().as_bytes());
    } else if metadata.is_dir() {
        update_framed(hasher, b"directory");
    } else {
        let is_executable = metadata.permissions().mode() & 0o100 != 0;
        update_framed(hasher, if is_executable { b"executable" } else { b"file" });
        let mut contents = Hasher::new();
        contents.update_reader(fs::File::open(path)?)?;
        update_framed(hasher, contents.finalize().as_bytes());
    }
    Ok(())
}

/// With its length before it, so that no two lists of parts read alike.
fn update_framed(hasher: &mut Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("peerdist-trees-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_missing_and_a_changed_file_are_found() {
        let root = folder("changed");
        let (source, published) = (root.join("source"), root.join("packages/default/app/1"));
        content::write_tree(&source, 100_000, 1).unwrap();
        content::write_tree(&published, 100_000, 1).unwrap();
        let expected = [("1".to_owned(), digest(&source).unwrap())];
        let look = || super::look(&root, "default", "app", &expected);
        assert_eq!(look().unwrap(), Published::Whole(vec!["1".to_owned()]));
        fs::write(published.join("empty"), b"x").unwrap();
        assert!(look().is_err());
        fs::remove_file(published.join("empty")).unwrap();
        assert!(look().is_err());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_current_link_to_nothing_is_an_error() {
        let root = folder("link");
        let package = root.join("packages/default/app");
        fs::create_dir_all(&package).unwrap();
        assert_eq!(look(&root, "default", "app", &[]).unwrap(), Published::Absent);
        std::os::unix::fs::symlink("1", package.join("current")).unwrap();
        assert!(look(&root, "default", "app", &[]).is_err());
        assert!(!is_current(&root, "default", "app", "1"));
        fs::remove_dir_all(&root).unwrap();
    }
}
