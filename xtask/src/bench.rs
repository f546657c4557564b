//! Starts the measurements with release builds. What is measured, and how it is printed, is written where they are: in
//! `e2e/bench` and in `e2e/cluster`.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::step;

/// What is measured.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Subject {
    /// 1 GiB to five nodes in two offices, interleaved with six parallel `dd conv=fsync`
    #[default]
    Transfer,
    /// Memory and start of an operator with 1,000 offices on 10,000 nodes, against a real API server
    Operator,
}

/// Builds in release and measures.
pub(crate) fn run(root: &Path, subject: Subject) -> Result<()> {
    let (product, measurement) = match subject {
        Subject::Transfer => ("peerdist", "peerdist-e2e-bench"),
        Subject::Operator => ("peerdist-operator", "peerdist-e2e-scale"),
    };
    let cargo = step::cargo();
    step::run(root, &cargo, &["build", "--locked", "--release", "--bin", product, "--bin", measurement])?;
    step::run(root, &cargo, &["run", "--locked", "--release", "--bin", measurement])
}
