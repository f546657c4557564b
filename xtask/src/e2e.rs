//! Scenarios that need more than a compiler. `cargo xtask test` runs the short form of that with kubelets as root.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::beside::{Beside, Priority};
use crate::deploy::tools;
use crate::test_program::test_program;
use crate::{debian, images, step};

/// What to run.
#[derive(Subcommand)]
pub(crate) enum Scenario {
    /// The operator, the server and clients against a real API server, and the images on a cluster with kubelets in
    /// network namespaces; builds Kubernetes with Go the first time, which takes minutes. With `KUBECONFIG` set, only
    /// what a user does, on that cluster.
    Cluster(ClusterOptions),
}

/// How to run the scenarios in a cluster.
#[derive(Args, Default)]
pub(crate) struct ClusterOptions {
    /// Kill and pause operators 50 times each instead of 3, and keep the API server away for 5 minutes instead of 30
    /// seconds; takes an hour
    #[arg(long)]
    long: bool,
    /// Use the images that users get instead of debug builds
    #[arg(long)]
    release_images: bool,
}

/// How often operators are killed and paused in a long run, and for how long the API server is away.
const LONG: [&str; 2] = ["PEERDIST_E2E_ROUNDS=50", "PEERDIST_E2E_AWAY_SECONDS=300"];

/// How many tests of the operator run at a time. Each has a control plane of its own and waits for leases most of the time.
const OPERATOR_TESTS_AT_ONCE: usize = 3;

/// Runs it: the operator on control planes alone, then the images on nodes, and the delivery beside all of that.
pub(crate) fn run(root: &Path, scenario: &Scenario) -> Result<()> {
    let Scenario::Cluster(options) = scenario;
    if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        return run_test(root, &test(root, options, &programs(root)?, "cluster", 1)?);
    }
    let delivery = start_delivery(root, options)?;
    let others = on_control_plane(root, options).and_then(|()| Nodes::prepare(root, options)?.run(root));
    let (delivered, _) = delivery.wait();
    match (others, delivered) {
        (Err(error), Err(delivery)) => Err(error.context(format!("the delivery failed, too: {delivery:#}"))),
        (others, delivered) => others.and(delivered),
    }
}

/// Operator, server and clients beside a real API server, without kubelets. It waits for leases and links most of the time,
/// and has fixed addresses on loopback, so that its own tests run one after the other: it goes on beside all that follows.
pub(crate) fn start_delivery(root: &Path, options: &ClusterOptions) -> Result<Beside> {
    // All of the workspace: a part of it would be built with other features, and everything twice.
    step::run(root, &step::cargo(), &["build", "--locked", "--workspace", "--bins"])?;
    // Otherwise each test that finds no Kubernetes would begin to build it.
    step::run(root, &kubernetes_builder(root), &[])?;
    Beside::start(root, "delivery", Priority::Normal, test(root, options, &[], "delivery", 1)?)
}

/// The operator beside a real API server, after the start of the delivery has built what it needs.
pub(crate) fn on_control_plane(root: &Path, options: &ClusterOptions) -> Result<()> {
    run_test(root, &test(root, options, &programs(root)?, "operator", OPERATOR_TESTS_AT_ONCE)?)
}

/// The program that builds Kubernetes if this machine has not yet.
pub(crate) fn kubernetes_builder(root: &Path) -> String {
    step::target_folder(root).join("debug/peerdist-e2e-kubernetes").to_string_lossy().into_owned()
}

/// The images on nodes of our own with kubelets: everything is built, and only has to be run.
pub(crate) struct Nodes(Vec<String>);

impl Nodes {
    /// Builds whatever the scenario needs.
    pub(crate) fn prepare(root: &Path, options: &ClusterOptions) -> Result<Self> {
        if !debian::is_root()? {
            bail!("nodes are made of namespaces, mounts and control groups: run as root, or set KUBECONFIG");
        }
        debian::install_missing_for_nodes()?;
        let images = setting("IMAGES", &images::for_tests(root, options.release_images)?);
        // A cluster that somebody uses is disturbed only by who asks for that in so many words.
        let settings = [programs(root)?, monitoring(root)?, vec![images, "KUBECONFIG=".to_owned()]].concat();
        test(root, options, &settings, "cluster", 1).map(Self)
    }

    /// Runs the scenario.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        run_test(root, &self.0)
    }
}

/// What a user types.
fn programs(root: &Path) -> Result<Vec<String>> {
    let [helm, helm_of_old, kubectl] = tools::of_users(root)?;
    Ok(vec![setting("HELM", &helm), setting("HELM_OF_OLD", &helm_of_old), setting("KUBECTL", &kubectl)])
}

/// A Prometheus, and this program to ask it what the dashboards ask: as the build of all programs left it, which may have
/// put another file in the place of the one that runs.
fn monitoring(root: &Path) -> Result<Vec<String>> {
    let asking = step::target_folder(root).join("debug/xtask");
    Ok(vec![setting("PROMETHEUS", &tools::prometheus(root)?), setting("XTASK", &asking)])
}

fn setting(name: &str, path: &Path) -> String {
    format!("PEERDIST_E2E_{name}={}", path.display())
}

/// The call of one test program.
fn test(root: &Path, options: &ClusterOptions, settings: &[String], name: &str, at_once: usize) -> Result<Vec<String>> {
    let long = if options.long { &LONG[..] } else { &[] };
    let settings: Vec<String> = settings.iter().cloned().chain(long.iter().map(|&text| text.to_owned())).collect();
    let program = test_program(root, name, &settings)?;
    Ok(program.into_iter().chain(["--nocapture".to_owned(), format!("--test-threads={at_once}")]).collect())
}

fn run_test(root: &Path, call: &[String]) -> Result<()> {
    let words: Vec<&str> = call.iter().map(String::as_str).collect();
    step::run(root, words[0], &words[1..])
}
