//! One step of a run: a headline, a program, its time. Output of the program is shown as it comes, because the lines of
//! `cargo test` are what people and CI want to read; where nobody looks on, the summary repeats why a step failed. There
//! is never a standard input.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::log::Log;
use crate::tree;

/// How the names of the variables begin by which cargo tells a program of its package.
const OF_OUR_PACKAGE: [&str; 4] = ["CARGO_MANIFEST", "CARGO_PKG_", "CARGO_BIN_", "CARGO_PRIMARY_PACKAGE"];

/// Steps that were run, for the summary.
pub(crate) struct Steps {
    start: Instant,
    done: Vec<(&'static str, Duration, Result<Outcome>)>,
}

/// How a step ended that did not fail.
pub(crate) enum Outcome {
    /// It was run to its end.
    Passed,
    /// It could not be run, and that is no failure: the summary says why.
    NotRun(String),
}

impl Steps {
    /// None yet.
    pub(crate) fn begin() -> Self {
        Self { start: Instant::now(), done: Vec::new() }
    }

    /// Runs a step and remembers how it went. The following steps run even when this one failed, so that one run
    /// tells everything that is wrong.
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Outcome>) {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = step();
        self.add(name, start.elapsed(), outcome);
    }

    /// Remembers how a step went that ran elsewhere.
    pub(crate) fn add(&mut self, name: &'static str, time: Duration, outcome: Result<Outcome>) {
        match &outcome {
            Ok(Outcome::Passed) => {}
            Ok(Outcome::NotRun(why)) => println!("NOT RUN: {why}"),
            Err(error) => eprintln!("error: {name}: {error:#}"),
        }
        self.done.push((name, time, outcome));
    }

    /// Prints one line a step and a closing line; an error when a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n==> summary");
        let seconds = self.start.elapsed().as_secs_f64();
        let mut failed = Vec::new();
        for (name, time, outcome) in &self.done {
            let (word, detail) = match outcome {
                Ok(Outcome::Passed) => ("ok", String::new()),
                Ok(Outcome::NotRun(why)) => ("NOT RUN", format!("  {why}")),
                Err(error) => {
                    failed.push(*name);
                    ("FAILED", format!("  {error:#}"))
                }
            };
            println!("{word:>8} {:>8.1} s  {name}{detail}", time.as_secs_f64());
        }
        if failed.is_empty() {
            println!("xtask test: all steps that ran passed, {seconds:.0} s in total");
            return Ok(());
        }
        println!("xtask test: {} of {} steps failed, {seconds:.0} s in total", failed.len(), self.done.len());
        bail!("failed: {}", failed.join(", "));
    }
}

/// A program that does not see what cargo told this one of its own package: build scripts that look at such variables
/// would run again, and much of the workspace be built again, whenever a step comes after a cargo call of one's own.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO" || OF_OUR_PACKAGE.iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `program` in `folder` and shows what it prints.
pub(crate) fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    println!("$ {program} {}", arguments.join(" "));
    let mut command = command(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let failed = || format!("cannot run {program}");
    let (status, reasons) = if std::io::stdout().is_terminal() {
        (command.status().with_context(failed)?, String::new())
    } else {
        let log = Log::create(&target_folder(&tree::workspace_root()), "step")?;
        let status = log.follow(&mut command).with_context(failed)?;
        (status, log.reasons())
    };
    if !status.success() {
        bail!("`{program} {}` ended with {status}{reasons}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a program and gives back what it prints; what it complains about goes through.
pub(crate) fn output(folder: &Path, program: &Path, arguments: &[String]) -> Result<String> {
    let output = command(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("`{} {}` ended with {}", program.display(), arguments.join(" "), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", program.display()))
}

/// The cargo that started us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}
