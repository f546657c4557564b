//! peerdist's side: `peerdist up --once` from an empty state to the end of the process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::folder::Folder;

/// Room for library and trees.
const ROOM: &str = "state";
/// Loopback addresses that no test uses.
const PREFIX: &str = "127.79";

/// One run.
pub(crate) struct Run {
    /// From start to end of the process.
    pub(crate) time: Duration,
    /// What it reports about itself.
    pub(crate) summary: String,
    /// Where it says that the time went.
    pub(crate) busy: String,
}

/// Distributes the source once, from nothing.
pub(crate) fn run(folder: &Folder) -> Result<Run> {
    let state = folder.fresh(ROOM)?;
    let start = Instant::now();
    let output = Command::new(program()?)
        .arg("up")
        .arg(folder.objects())
        .arg("--state")
        .arg(&state)
        .args(["--once", "--output", "json", "--prefix", PREFIX])
        .stdin(Stdio::null())
        .output()
        .context("cannot start peerdist")?;
    let time = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "peerdist ended with {}: {said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context("peerdist did not print JSON")?;
    let (summary, busy) = (summary(&report)?, busy(&report)?);
    folder.remove(ROOM)?;
    Ok(Run { time, summary, busy })
}

/// Complete nodes and bytes of each office; an error when a node lacks the package.
fn summary(report: &Value) -> Result<String> {
    let offices = report["packages"][0]["offices"].as_array().context("the report has no offices")?;
    let mut parts = Vec::new();
    for office in offices {
        ensure!(office["complete"] == office["nodes"], "not complete: {office}");
        parts.push(format!(
            "{}: {} nodes, {} B WAN, {} B LAN",
            office["name"].as_str().unwrap_or_default(),
            office["nodes"],
            office["wanBytesReceived"],
            office["lanBytesReceived"]
        ));
    }
    Ok(parts.join("; "))
}

/// How long the parts of the data path were busy, all nodes and the server together: they work at the same time.
fn busy(report: &Value) -> Result<String> {
    let seconds = |part: &str| -> Result<String> {
        let seconds = report["time"][format!("{part}Seconds")].as_f64();
        Ok(format!("{part} {:.1} s", seconds.with_context(|| format!("the report does not say the time of {part}"))?))
    };
    Ok(["source", "hash", "network", "disk"].map(seconds).into_iter().collect::<Result<Vec<_>>>()?.join(", "))
}

/// Beside this program, where the build put it.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("peerdist");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask bench`", program.display());
    Ok(program)
}
