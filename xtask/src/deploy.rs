//! What people install: renders `deploy/` from the chart, or compares it, and checks all of it with the programs that
//! will read it. No cluster is needed. The operator on a real API server is the business of `e2e/cluster`.
//!
//! In reading order: [`render`] says what is generated from what, [`manifests`], [`alerts`] and [`dashboards`] check,
//! [`tools`] brings the programs.

mod alerts;
mod dashboards;
mod manifests;
mod render;
mod series;
pub(crate) mod tools;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::render::Generated;
use self::tools::Tools;
use crate::tree;

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Fail when a generated file is not up to date, instead of writing it
    #[arg(long)]
    check: bool,
    /// Only ask this Prometheus every query and variable of the dashboards; it should have scraped a package on its way
    /// within the last minute
    #[arg(long, value_name = "URL", conflicts_with = "check")]
    prometheus: Option<String>,
}

/// Renders and checks, or asks.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    match &options.prometheus {
        Some(url) => dashboards::ask(root, &tools::promtool(root)?, url),
        None => render_and_check(root, options.check),
    }
}

/// For `cargo xtask test`.
pub(crate) fn check(root: &Path) -> Result<()> {
    render_and_check(root, true)
}

fn render_and_check(root: &Path, check: bool) -> Result<()> {
    let tools = Tools::at_hand(root)?;
    // The chart contains the definitions, so that they come first.
    settle(root, &render::definitions(root)?, check)?;
    settle(root, &render::manifests(root, &tools)?, check)?;
    manifests::check(root, &tools)?;
    alerts::check(root, &tools)?;
    dashboards::check(root, &tools)
}

/// Writes what differs, or fails when something does.
fn settle(root: &Path, files: &[Generated], check: bool) -> Result<()> {
    let differs = |file: &&Generated| tree::read(&root.join(&file.path)).ok().as_ref() != Some(&file.text);
    let stale: Vec<&Generated> = files.iter().filter(differs).collect();
    if check && !stale.is_empty() {
        let names: Vec<String> = stale.iter().map(|file| file.path.display().to_string()).collect();
        bail!("not up to date: {}: run `cargo xtask deploy`", names.join(", "));
    }
    for file in stale {
        let path = root.join(&file.path);
        fs::create_dir_all(path.parent().unwrap_or(root)).context("cannot make a folder under deploy")?;
        fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", file.path.display());
    }
    Ok(())
}
