//! The control groups in which a node's pods run: one in every hierarchy of version 1, or one in version 2. They bear the
//! process id of the test. They go when the value goes; those of a test that was killed go at the next start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use peerdist_e2e_net::ownership;

/// Where the kernel shows them.
const HIERARCHIES: &str = "/sys/fs/cgroup";
/// Which processors and memory a group has; empty in a new one of version 1.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
/// Groups of killed processes take a moment to become empty.
const REMOVAL_ATTEMPTS: u32 = 50;
const REMOVAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// The groups of one node.
pub struct ControlGroups {
    name: String,
}

impl ControlGroups {
    /// Makes them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(node: &str) -> Result<Self> {
        remove_abandoned()?;
        let groups = Self { name: ownership::name(node) };
        for hierarchy in hierarchies()? {
            let group = hierarchy.join(&groups.name);
            fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
            for setting in CPUSET.iter().filter(|setting| hierarchy.join(setting).exists()) {
                fs::write(group.join(setting), fs::read(hierarchy.join(setting))?)
                    .with_context(|| format!("cannot write {setting} of {}", group.display()))?;
            }
        }
        Ok(groups)
    }

    /// Their name in every hierarchy.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        for hierarchy in hierarchies().unwrap_or_default() {
            let group = hierarchy.join(&self.name);
            for _ in 0..REMOVAL_ATTEMPTS {
                if remove(&group).is_ok() {
                    break;
                }
                std::thread::sleep(REMOVAL_PAUSE);
            }
            if group.exists() {
                eprintln!("{} stays behind", group.display());
            }
        }
    }
}

/// The one hierarchy of version 2, or all of version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = PathBuf::from(HIERARCHIES);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let entries = fs::read_dir(&root).with_context(|| format!("cannot list {HIERARCHIES}"))?;
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // Several names may lead to one.
    Ok(folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect())
}

/// A group can go when it has no processes and no groups inside.
fn remove(group: &Path) -> std::io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn remove_abandoned() -> Result<()> {
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(&hierarchy)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ownership::is_abandoned(&name) {
                // Another test may be removing it at the same time.
                let _ = remove(&path);
            }
        }
    }
    Ok(())
}
