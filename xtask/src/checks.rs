//! The list behind `cargo xtask test`. Every cargo call names the whole workspace, so that dependencies are built
//! once with one set of features; only clippy needs a second, metadata-only pass over them.

use std::path::Path;

use anyhow::Result;

use crate::step::{self, Steps};
use crate::{debian, deny, tidy};

/// Runs every step, prints their times and fails when one of them failed.
pub(crate) fn run_all(root: &Path) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || cargo(root, &["fmt", "--all", "--check"]));
    steps.run("tidy", || tidy::check(root));
    steps.run("tests", || cargo(root, &["test", "--locked", "--workspace", "--no-fail-fast"]));
    if debian::is_root()? {
        steps.run("network scenarios", || network_scenarios(root));
    } else {
        steps.skip("network scenarios", "they make network namespaces: run as root");
    }
    steps.run("clippy", || {
        cargo(root, &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    });
    steps.run("deny", || deny::check(root));
    steps.finish()
}

/// Processes in network namespaces behind a firewall that lets exactly the rows of the port tables pass.
fn network_scenarios(root: &Path) -> Result<()> {
    debian::install_missing()?;
    cargo(root, &["build", "--locked", "--workspace", "--bins"])?;
    let serially = ["--test-threads=1", "--nocapture"];
    let test = ["test", "--locked", "--workspace", "--test", "scenarios", "--no-fail-fast", "--"];
    cargo(root, &[&test[..], &serially[..]].concat())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    step::run(root, &step::cargo(), arguments)
}
