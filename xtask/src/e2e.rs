//! Scenarios that need more than a compiler. They are no part of `cargo xtask test`.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use crate::step;

/// What to run.
#[derive(Subcommand)]
pub(crate) enum Scenario {
    /// The operator against a real API server; builds etcd and kube-apiserver with Go the first time, which takes
    /// minutes.
    Cluster,
}

/// Runs it, one test after the other: each starts a control plane of its own.
pub(crate) fn run(root: &Path, scenario: &Scenario) -> Result<()> {
    match scenario {
        Scenario::Cluster => {
            let test =
                ["test", "--locked", "--package", "peerdist-e2e-cluster", "--test", "operator", "--no-fail-fast"];
            step::run(root, &step::cargo(), &[&test[..], &["--", "--test-threads=1", "--nocapture"]].concat())
        }
    }
}
