//! The list behind `cargo xtask test`. Every cargo call names the whole workspace, so that dependencies are built
//! once with one set of features; only clippy needs a second, metadata-only pass over them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::beside::{Beside, Priority};
use crate::step::{self, Outcome, Steps};
use crate::{debian, deny, deploy, e2e, fuzz, tidy};

/// Tests that are started by name only.
const SCENARIOS: [&str; 8] = ["--test", "scenarios", "--test", "operator", "--test", "delivery", "--test", "cluster"];

/// Runs every step, prints their times and fails when one of them failed.
pub(crate) fn run_all(root: &Path) -> Result<()> {
    let mut steps = Steps::begin();
    steps.run("format", || cargo(root, &["fmt", "--all", "--check"]));
    steps.run("tidy", || tidy::check(root).map(|()| Outcome::Passed));
    steps.run("chart and deploy", || deploy::check(root).map(|()| Outcome::Passed));
    steps.run("programs that tests call", programs);
    steps.run("lock file of the fuzz targets", || fuzz::check_lock(root).map(|()| Outcome::Passed));
    steps.run("build", || build(root));
    let beside = start_beside(root);
    steps.run("tests", || cargo(root, &["test", "--locked", "--workspace", "--no-fail-fast"]));
    steps.run("network scenarios", || as_root(|| network_scenarios(root)));
    let [kubernetes, deny] = beside;
    join(kubernetes, &mut steps);
    let mut delivery = None;
    steps.run("delivery begins", || as_root(|| start_delivery(root, &mut delivery)));
    steps.run("control plane", || as_root(|| e2e::on_control_plane(root, &e2e::ClusterOptions::default())));
    let mut nodes = None;
    steps.run("images for the cluster", || as_root(|| prepare_nodes(root, &mut nodes)));
    // From here on nothing but clippy calls cargo.
    let clippy = Beside::start(root, "clippy", Priority::Lowest, clippy());
    steps.run("cluster with nodes", || match &nodes {
        Some(nodes) => nodes.run(root).map(|()| Outcome::Passed),
        None => Ok(Outcome::NotRun("there are no images for it".to_owned())),
    });
    join(delivery.map(Ok), &mut steps);
    join(Some(clippy), &mut steps);
    steps.run("clippy of scenarios", || clippy_of_scenarios(root));
    join(deny, &mut steps);
    steps.run("licences, bans, sources", || deny::check_offline(root).map(|()| Outcome::Passed));
    steps.run("advisories", || deny::check_advisories(root));
    steps.finish()
}

fn start_delivery(root: &Path, delivery: &mut Option<Beside>) -> Result<()> {
    *delivery = Some(e2e::start_delivery(root, &e2e::ClusterOptions::default())?);
    Ok(())
}

fn prepare_nodes(root: &Path, nodes: &mut Option<e2e::Nodes>) -> Result<()> {
    *nodes = Some(e2e::Nodes::prepare(root, &e2e::ClusterOptions::default())?);
    Ok(())
}

fn clippy() -> Vec<String> {
    let cargo = step::cargo();
    let words = [&cargo, "clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    words.map(str::to_owned).to_vec()
}

/// Those that `--all-targets` leaves out, since no plain `cargo test` runs them.
fn clippy_of_scenarios(root: &Path) -> Result<Outcome> {
    let clippy = ["clippy", "--locked", "--workspace"];
    cargo(root, &[&clippy[..], &SCENARIOS, &["--", "--deny", "warnings"]].concat())
}

/// Everything that tests are made of, so that no later call compiles.
fn build(root: &Path) -> Result<Outcome> {
    cargo(root, &["build", "--locked", "--workspace", "--bins"])?;
    cargo(root, &[&["test", "--locked", "--workspace", "--no-run"][..], &SCENARIOS].concat())?;
    cargo(root, &["test", "--locked", "--workspace", "--no-run"])
}

/// What takes minutes and nothing waits for at once: Kubernetes from Go modules, and cargo-deny; clippy follows when no
/// step needs cargo any more. `None`: it is there, or nobody will ask for it.
fn start_beside(root: &Path) -> [Option<Result<Beside>>; 2] {
    let is_root = debian::is_root().unwrap_or_default();
    [
        is_root.then(|| Beside::start(root, "Kubernetes", Priority::Lowest, vec![e2e::kubernetes_builder(root)])),
        deny::installation(root).map(|call| Beside::start(root, "cargo-deny", Priority::Lowest, call)),
    ]
}

fn join(beside: Option<Result<Beside>>, steps: &mut Steps) {
    match beside {
        Some(Ok(beside)) => beside.join(steps),
        Some(Err(error)) => steps.add("what runs beside", Duration::ZERO, Err(error)),
        None => {}
    }
}

/// Root gets what is missing; everybody else goes without the tests that need it, which then say so.
fn programs() -> Result<Outcome> {
    if !debian::is_root()? {
        return Ok(Outcome::NotRun("only root can install what may be missing".to_owned()));
    }
    debian::install_missing().map(|()| Outcome::Passed)
}

/// Processes in network namespaces behind a firewall that lets exactly the rows of the port tables pass.
fn network_scenarios(root: &Path) -> Result<()> {
    let test = ["test", "--locked", "--workspace", "--test", "scenarios", "--no-fail-fast", "--"];
    cargo(root, &[&test[..], &["--test-threads=1", "--nocapture"]].concat()).map(drop)
}

/// Links and nodes are made of namespaces, mounts and control groups.
fn as_root(scenario: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    if !debian::is_root()? {
        return Ok(Outcome::NotRun("it makes network namespaces: run as root".to_owned()));
    }
    scenario().map(|()| Outcome::Passed)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Outcome> {
    step::run(root, &step::cargo(), arguments).map(|()| Outcome::Passed)
}
