//! The list behind `cargo xtask test`. Every cargo call names the whole workspace, so that dependencies are built
//! once with one set of features; only clippy needs a second, metadata-only pass over them.

use std::path::Path;

use anyhow::Result;

use crate::step::{self, Outcome, Steps};
use crate::{debian, deny, deploy, e2e, tidy};

/// Runs every step, prints their times and fails when one of them failed.
pub(crate) fn run_all(root: &Path) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || cargo(root, &["fmt", "--all", "--check"]));
    steps.run("tidy", || tidy::check(root).map(|()| Outcome::Passed));
    steps.run("chart and deploy", || deploy::check(root).map(|()| Outcome::Passed));
    steps.run("programs that tests call", programs);
    steps.run("tests", || cargo(root, &["test", "--locked", "--workspace", "--no-fail-fast"]));
    steps.run("network scenarios", || network_scenarios(root));
    steps.run("cluster with nodes", || cluster(root));
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    steps.run("clippy", || cargo(root, &clippy));
    steps.run("licences, bans, sources", || deny::check_offline(root).map(|()| Outcome::Passed));
    steps.run("advisories", || deny::check_advisories(root));
    steps.finish()
}

/// Root gets what is missing; everybody else goes without the tests that need it, which then say so.
fn programs() -> Result<Outcome> {
    if !debian::is_root()? {
        return Ok(Outcome::NotRun("only root can install what may be missing".to_owned()));
    }
    debian::install_missing().map(|()| Outcome::Passed)
}

/// Processes in network namespaces behind a firewall that lets exactly the rows of the port tables pass.
fn network_scenarios(root: &Path) -> Result<Outcome> {
    if !debian::is_root()? {
        return Ok(Outcome::NotRun("they make network namespaces: run as root".to_owned()));
    }
    cargo(root, &["build", "--locked", "--workspace", "--bins"])?;
    let test = ["test", "--locked", "--workspace", "--test", "scenarios", "--no-fail-fast", "--"];
    cargo(root, &[&test[..], &["--test-threads=1", "--nocapture"]].concat())
}

/// What a user does with chart and images, on nodes in namespaces.
fn cluster(root: &Path) -> Result<Outcome> {
    if !debian::is_root()? {
        return Ok(Outcome::NotRun(
            "its nodes are made of namespaces, mounts and control groups: run as root".to_owned(),
        ));
    }
    e2e::on_nodes(root, &e2e::ClusterOptions::default()).map(|()| Outcome::Passed)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Outcome> {
    step::run(root, &step::cargo(), arguments).map(|()| Outcome::Passed)
}
