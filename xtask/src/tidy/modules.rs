//! A source file that no `mod` names is neither compiled nor tested, and nobody notices. Modules inside functions and
//! `#[path]` attributes are not understood: there are none here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tree;

/// Folders of a crate in which every file directly inside is a target of its own.
const TARGET_FOLDERS: [&str; 5] = ["tests", "benches", "examples", "src/bin", "fuzz_targets"];

/// One complaint for each file that is not reachable from a crate's root files.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut unreached: BTreeSet<PathBuf> = tree::files(root, &["rs"])?.into_iter().collect();
    for manifest in tree::files(root, &["toml"])?.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let folder = manifest.parent().unwrap_or(root);
        for file in roots(folder, &unreached) {
            reach(&file, true, &mut unreached)?;
        }
    }
    let name = |path: &PathBuf| tree::relative(root, path).to_string();
    Ok(unreached
        .iter()
        .map(|path| format!("{}: no `mod` names this file, so nothing compiles it", name(path)))
        .collect())
}

fn roots(folder: &Path, files: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let fixed = ["build.rs", "src/lib.rs", "src/main.rs"].map(|file| folder.join(file));
    let is_target = |path: &&PathBuf| TARGET_FOLDERS.iter().any(|name| path.parent() == Some(&folder.join(name)));
    let folder_targets = |path: &&PathBuf| {
        path.ends_with("main.rs")
            && TARGET_FOLDERS.iter().any(|name| path.parent().and_then(Path::parent) == Some(&folder.join(name)))
    };
    let targets = files.iter().filter(|path| is_target(path) || folder_targets(path)).cloned();
    fixed.into_iter().filter(|path| files.contains(path)).chain(targets.clone()).collect()
}

/// Strikes out `file` and all that its `mod` lines name.
fn reach(file: &Path, is_root: bool, unreached: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !unreached.remove(file) {
        return Ok(());
    }
    let beside = file.parent().unwrap_or(Path::new(""));
    let folder = if is_root { beside.to_path_buf() } else { file.with_extension("") };
    for name in module_names(&tree::read(file)?) {
        reach(&folder.join(format!("{name}.rs")), false, unreached)?;
    }
    Ok(())
}

/// Names of the modules whose bodies lie in files of their own.
fn module_names(text: &str) -> Vec<&str> {
    text.lines().filter_map(module_name).collect()
}

fn module_name(line: &str) -> Option<&str> {
    let declaration = line.trim().strip_suffix(';')?;
    let after_visibility = match declaration.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => declaration,
    };
    let name = after_visibility.trim_start().strip_prefix("mod ")?;
    name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_whatever_their_visibility() {
        let text = "mod a;\npub mod b;\n    pub(crate) mod c;\nmod tests {\n// mod d;\nmodulus;\n";
        assert_eq!(module_names(text), ["a", "b", "c"]);
    }
}
