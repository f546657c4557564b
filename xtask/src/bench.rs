//! Starts the comparison of `e2e/bench` with release builds of it and of the product. What is compared, and how it is
//! printed, is written there.

use std::path::Path;

use anyhow::Result;

use crate::step;

/// Builds both in release and runs the comparison.
pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = step::cargo();
    step::run(root, &cargo, &["build", "--locked", "--release", "--bin", "peerdist"])?;
    step::run(root, &cargo, &["run", "--locked", "--release", "--package", "peerdist-e2e-bench"])
}
