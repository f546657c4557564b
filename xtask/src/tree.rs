//! The files of this repository: where it is, and which source files it holds. Build output and hidden folders other
//! than those of the project itself are left out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders that hold no source: build output, state of a trial run, version control.
const SKIPPED: [&str; 3] = ["target", "peerdist-state", ".git"];

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Every file under `folder` whose extension is one of `extensions`, in name order.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = all_files(folder)?;
    let is_wanted = |path: &PathBuf| path.extension().is_some_and(|own| extensions.iter().any(|wanted| own == *wanted));
    found.retain(is_wanted);
    Ok(found)
}

/// Every file under `folder`, in name order.
pub(crate) fn all_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, &mut found)?;
    found.sort();
    Ok(found)
}

/// `path` as it reads from `root`, for messages.
pub(crate) fn relative<'a>(root: &Path, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(root).unwrap_or(path).display()
}

/// Reads a text file, with its name in the error.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|name| path.ends_with(name)) {
                collect(&path, found)?;
            }
        } else {
            found.push(path);
        }
    }
    Ok(())
}
