//! Licences, bans, sources and advisories of every dependency, by cargo-deny and `deny.toml`. The tool is taken from
//! `PATH`, otherwise built once into `target/tools`. Advisories need the RustSec database, a git repository on the
//! internet: where it cannot be had, the other checks run and the output says what was not checked.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::step::{self, Outcome};

/// The release that `deny.toml` was written for.
const VERSION: &str = "0.20.2";
/// How long the advisory database may take: an unreachable host must not hold up the run.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(90);
/// Checks that need nothing but the lock file and the sources of the dependencies.
const OFFLINE_CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// Both halves, for `cargo xtask deny`.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_offline(root)?;
    if let Outcome::NotRun(why) = check_advisories(root)? {
        println!("NOT RUN: advisories: {why}");
    }
    Ok(())
}

/// Licences, bans and sources, of the dependencies of every target: a build fetches those of this machine's only.
pub(crate) fn check_offline(root: &Path) -> Result<()> {
    step::run(root, &step::cargo(), &["fetch", "--locked"])?;
    run(root, &OFFLINE_CHECKS)
}

/// Advisories, when their database can be had.
pub(crate) fn check_advisories(root: &Path) -> Result<Outcome> {
    match fetch_database(root) {
        Ok(()) => run(root, &["--disable-fetch", "advisories"]).map(|()| Outcome::Passed),
        Err(error) => Ok(Outcome::NotRun(format!("the RustSec database cannot be had: {error:#}"))),
    }
}

fn run(root: &Path, checks: &[&str]) -> Result<()> {
    let tool = tool(root)?;
    step::run(root, &tool.to_string_lossy(), &[&["--offline", "--workspace", "check"], checks].concat())
}

/// cargo-deny from `PATH`, or our own build of it.
fn tool(root: &Path) -> Result<PathBuf> {
    if let Some(call) = installation(root) {
        step::run(root, &call[0], &call[1..].iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(if is_on_path() { PathBuf::from("cargo-deny") } else { own(root).join("bin/cargo-deny") })
}

/// What builds the tool; `None`: it is there. Without optimisation: it runs for a second and is built far longer.
pub(crate) fn installation(root: &Path) -> Option<Vec<String>> {
    let folder = own(root);
    let is_needed = !is_on_path() && !folder.join("bin/cargo-deny").is_file();
    let (cargo, build) = (step::cargo(), folder.join("build"));
    let (folder, build) = (folder.to_string_lossy(), build.to_string_lossy());
    let words = [&cargo, "install", "cargo-deny", "--locked", "--version", VERSION, "--debug"];
    // A build folder of its own: in a common one it would hold up the tests beside which it is built.
    let folders = ["--root", &folder, "--target-dir", &build];
    is_needed.then(|| words.iter().chain(&folders).map(|&word| word.to_owned()).collect())
}

fn is_on_path() -> bool {
    let installed = Command::new("cargo-deny").arg("--version").stdin(Stdio::null()).output();
    installed.is_ok_and(|output| output.status.success())
}

fn own(root: &Path) -> PathBuf {
    root.join("target/tools")
}

fn fetch_database(root: &Path) -> Result<()> {
    let tool = tool(root)?;
    println!("$ {} fetch db", tool.display());
    let child = Command::new(&tool)
        .args(["fetch", "db"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", tool.display()))?;
    match wait_at_most(child, DATABASE_TIMEOUT)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("`cargo-deny fetch db` ended with {status}"),
        None => bail!("no answer within {} s", DATABASE_TIMEOUT.as_secs()),
    }
}

/// `None`: it took longer and was ended.
fn wait_at_most(mut child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(200));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
