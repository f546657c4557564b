//! Nodes that live only in the API server and still beat like a kubelet's: kwok, built once by Go and kept in the user's
//! cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::binaries;
use crate::control_plane::start_program;
use crate::process::Process;

/// Its module, and the release of it.
const MODULE: &str = "sigs.k8s.io/kwok";
const VERSION: &str = "v0.8.0";
/// Its program.
const PROGRAM: &str = "kwok";
/// What a node does, in files of the module: become ready, and report its status as seldom as a kubelet that renews a
/// lease besides (a kubelet every five minutes, these nodes every ten).
const STAGES: [&str; 2] = [
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
];
/// How a node says that it lives: its lease, renewed four times as often as it would run out.
const LEASE_SECONDS: u32 = 40;

/// Answers for all nodes of a cluster until it is dropped.
pub struct FakeNodes {
    _process: Process,
}

impl FakeNodes {
    /// Starts it with a folder of its own for what it reads and logs.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(folder: &Path, kubeconfig: &Path) -> Result<Self> {
        let program = built()?;
        let stages = folder.join("kwok-stages.yaml");
        fs::write(&stages, stage_texts()?.join("\n---\n"))?;
        std::os::unix::fs::symlink(program, folder.join(PROGRAM)).context("cannot link kwok")?;
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--config={}", stages.display()),
            "--manage-all-nodes=true".to_owned(),
            format!("--node-lease-duration-seconds={LEASE_SECONDS}"),
        ];
        Ok(Self { _process: start_program(folder, PROGRAM, &arguments)? })
    }
}

fn built() -> Result<PathBuf> {
    let folder = binaries::cache()?.join("peerdist/kwok").join(VERSION);
    let program = folder.join(PROGRAM);
    if !program.is_file() {
        println!("building kwok {VERSION}; this takes minutes, once");
        let status = go().args(["install", &format!("{MODULE}/cmd/kwok@{VERSION}")]).env("GOBIN", &folder).status();
        ensure!(status.context("cannot start go: it builds kwok, install it")?.success(), "go install of kwok failed");
    }
    Ok(program)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

fn stage_texts() -> Result<Vec<String>> {
    let output = go().args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).output()?;
    ensure!(output.status.success(), "go mod download of kwok: {}", String::from_utf8_lossy(&output.stderr));
    let module: Downloaded = serde_json::from_slice(&output.stdout).context("what go says of the module of kwok")?;
    let text = |stage: &&str| {
        let path = module.dir.join(stage);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    STAGES.iter().map(text).collect()
}

/// Outside any module, so that it takes the one that is named.
fn go() -> Command {
    let mut command = Command::new("go");
    command.current_dir(std::env::temp_dir()).env("CGO_ENABLED", "0").stdin(Stdio::null());
    command
}
