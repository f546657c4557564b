//! The folder of the comparison: source, objects and room for copies, removed at the end.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// On a disk; `PEERDIST_BENCH_FOLDER` names another one.
const DEFAULT_PARENT: &str = "/var/tmp";
/// Written at once.
const BLOCK_BYTES: usize = 1024 * 1024;
/// A Central Office with two nodes and a store with three.
const OFFICES: &str = "\
apiVersion: peerdist.io/v1alpha1
kind: Office
metadata: {name: central, annotations: {peerdist.io/embedded-nodes: \"2\"}}
spec: {type: Wired}
---
apiVersion: peerdist.io/v1alpha1
kind: Office
metadata: {name: store, annotations: {peerdist.io/embedded-nodes: \"3\"}}
spec: {type: Wired, parent: central}
";

/// The folder.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Writes the source and the objects.
    pub(crate) fn new(file_bytes: u64, copies: usize) -> Result<Self> {
        let parent = std::env::var_os("PEERDIST_BENCH_FOLDER").map_or_else(|| DEFAULT_PARENT.into(), PathBuf::from);
        let folder = Self { root: parent.join(format!("peerdist-bench-{}", std::process::id())) };
        println!("{}: one source of {file_bytes} bytes and {copies} copies", folder.root.display());
        fs::create_dir_all(folder.objects()).with_context(|| format!("cannot make {}", folder.root.display()))?;
        write_random(&folder.source(), file_bytes)?;
        fs::write(folder.objects().join("objects.yaml"), format!("{OFFICES}---\n{}", distribution(&folder.source())))?;
        Ok(folder)
    }

    /// The file that is distributed and copied.
    pub(crate) fn source(&self) -> PathBuf {
        self.root.join("source.bin")
    }

    /// What `peerdist up` gets.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Room for one run, emptied first and with nothing left to write back.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        self.remove(name)?;
        fs::create_dir_all(&path)?;
        std::process::Command::new("sync").status().context("cannot start sync")?;
        Ok(path)
    }

    /// Gives the room of a run back.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        if path.exists() {
            make_writable(&path)?;
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = make_writable(&self.root).and_then(|()| Ok(fs::remove_dir_all(&self.root)?));
        if let Err(error) = removed {
            eprintln!("{} stays behind: {error}", self.root.display());
        }
    }
}

fn distribution(source: &Path) -> String {
    format!(
        "apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\nmetadata: {{name: bench, namespace: default}}\n\
         spec: {{version: \"1\", source: {{uri: \"file://{}\"}}}}\n",
        source.display()
    )
}

fn write_random(path: &Path, bytes: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut block = vec![0; BLOCK_BYTES];
    for _ in 0..bytes / BLOCK_BYTES as u64 {
        random.fill_bytes(&mut block);
        file.write_all(&block)?;
    }
    Ok(file.sync_all()?)
}

/// Published folders are read-only, which keeps everybody but root from removing them.
fn make_writable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}
