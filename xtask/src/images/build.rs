//! The programs: static and optimised in a build folder of their own, or those of the debug build that tests use anyway.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::{Options, PRODUCTS};
use crate::step;

/// Where the programs are.
pub(super) struct Programs {
    folder: PathBuf,
    /// The commit that they were built from, if this is a checkout without changes.
    pub(super) revision: Option<String>,
}

impl Programs {
    pub(super) fn file(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// Builds all of them.
pub(super) fn programs(root: &Path, options: &Options) -> Result<Programs> {
    let folder = match options.development {
        true => development(root)?,
        false => optimised(root, &options.target)?,
    };
    Ok(Programs { folder, revision: revision(root) })
}

/// What the container world calls a target.
pub(super) fn architecture(target: &str) -> &'static str {
    match target.split('-').next() {
        Some("aarch64") => "arm64",
        _ => "amd64",
    }
}

/// All of the workspace: a part of it would be built with other features, and everything twice.
fn development(root: &Path) -> Result<PathBuf> {
    step::run(root, &step::cargo(), &["build", "--locked", "--workspace", "--bins"])?;
    Ok(step::target_folder(root).join("debug"))
}

/// The C library is linked in, so that an image needs none. Paths of this machine are replaced, and lines of the source
/// left out: names of functions stay for what a panic tells.
fn optimised(root: &Path, target: &str) -> Result<PathBuf> {
    if !target.contains("-linux-") {
        bail!("--target {target}: expected a Linux target");
    }
    let folder = step::target_folder(root).join("static");
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_else(|_| "/".to_owned());
    let flags = format!(
        "RUSTFLAGS=-C target-feature=+crt-static --remap-path-prefix={home}=/cargo --remap-path-prefix={}=/peerdist",
        root.display()
    );
    let (cargo, folder_text) = (step::cargo(), folder.to_string_lossy().into_owned());
    let mut arguments = vec![&flags, "CARGO_PROFILE_RELEASE_STRIP=debuginfo", &cargo];
    arguments.extend(["build", "--locked", "--release", "--target", target, "--target-dir", &folder_text]);
    for product in &PRODUCTS {
        arguments.extend(["--package", product.package, "--bin", product.program]);
    }
    step::run(root, "env", &arguments)?;
    Ok(folder.join(target).join("release"))
}

fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    git(&["status", "--porcelain"])?.is_empty().then(|| git(&["rev-parse", "HEAD"]))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_as_registries_name_them() {
        assert_eq!(architecture("x86_64-unknown-linux-gnu"), "amd64");
        assert_eq!(architecture("aarch64-unknown-linux-gnu"), "arm64");
    }
}
