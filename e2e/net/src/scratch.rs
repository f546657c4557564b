//! The folder of one scenario: a copy of the binary, manifests, packages, roots and logs. It lies outside the build
//! folder, because the processes run as a user who may not reach that one. It goes when the value goes; the logs stay
//! when the scenario did not pass.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ownership;

/// User and group of every process under test.
pub const AGENT_ID: u32 = 65532;
/// On a disk, unlike `/tmp` on some machines; `PEERDIST_E2E_FOLDER` overrides it.
const DEFAULT_PARENT: &str = "/var/tmp";

/// The folder of one scenario.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    keep_logs: bool,
}

impl Scratch {
    /// Makes the folder, when `needed_bytes` are free.
    ///
    /// # Errors
    /// When there is less room, naming need and have, or the folder cannot be made.
    pub fn new(scenario: &str, needed_bytes: u64) -> Result<Self> {
        let parent = std::env::var_os("PEERDIST_E2E_FOLDER").map_or_else(|| DEFAULT_PARENT.into(), PathBuf::from);
        remove_abandoned(&parent)?;
        let free = free_bytes(&parent)?;
        if free < needed_bytes {
            let folder = parent.display();
            bail!("{folder}: {needed_bytes} bytes needed, {free} free: set PEERDIST_E2E_FOLDER to another folder");
        }
        let root = parent.join(ownership::name(scenario));
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root, keep_logs: true })
    }

    /// A folder inside, made when absent, that the processes under test own.
    ///
    /// # Errors
    /// When it cannot be made or given away.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut path = folder.as_path();
        while path != self.root {
            chown(path, Some(AGENT_ID), Some(AGENT_ID))
                .with_context(|| format!("cannot give {} away", path.display()))?;
            path = path.parent().unwrap_or(&self.root);
        }
        Ok(folder)
    }

    /// Copies a program to where every user may execute it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn program(&self, original: &Path) -> Result<PathBuf> {
        let copy = self.folder("bin")?.join(original.file_name().context("a program has a name")?);
        fs::copy(original, &copy).with_context(|| format!("cannot copy {}", original.display()))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    /// The scenario passed: nothing needs to stay.
    pub fn discard_logs(&mut self) {
        self.keep_logs = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let logs = self.root.join("logs");
        if self.keep_logs && logs.exists() {
            let kept = self.root.with_extension("logs");
            match fs::rename(&logs, &kept) {
                Ok(()) => eprintln!("logs of each process: {}", kept.display()),
                Err(error) => eprintln!("cannot keep {}: {error}", logs.display()),
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("{} stays behind: {error}", self.root.display());
        }
    }
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let numbers =
        rustix::fs::statvfs(folder).with_context(|| format!("cannot ask how much {} holds", folder.display()))?;
    Ok(numbers.f_bavail * numbers.f_frsize)
}

/// Removes folders whose test process is no more. Kept logs stay.
fn remove_abandoned(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("cannot list {}", parent.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if ownership::is_abandoned(&name) && path.extension().is_none() {
            // Another test may be removing it at the same time.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}
