//! Scenarios that need more than a compiler. They are no part of `cargo xtask test`.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use crate::step;

/// What to run.
#[derive(Subcommand)]
pub(crate) enum Scenario {
    /// The operator, the server and clients against a real API server; builds etcd and kube-apiserver with Go the first
    /// time, which takes minutes.
    Cluster {
        /// Kill and pause operators 50 times each instead of 3, which takes an hour
        #[arg(long)]
        long: bool,
    },
}

/// How often operators are killed and paused in a long run.
const LONG_ROUNDS: &str = "PEERDIST_E2E_ROUNDS=50";

/// Runs it, one test after the other: each starts a control plane of its own.
pub(crate) fn run(root: &Path, scenario: &Scenario) -> Result<()> {
    match scenario {
        Scenario::Cluster { long } => {
            // All of the workspace: a part of it would be built with other features, and everything twice.
            step::run(root, &step::cargo(), &["build", "--locked", "--workspace", "--bins"])?;
            let test =
                ["test", "--locked", "--workspace", "--test", "operator", "--test", "delivery", "--no-fail-fast"];
            let arguments = [&test[..], &["--", "--test-threads=1", "--nocapture"]].concat();
            match long {
                true => step::run(root, "env", &[&[LONG_ROUNDS, &step::cargo()][..], &arguments].concat()),
                false => step::run(root, &step::cargo(), &arguments),
            }
        }
    }
}
