//! The alerts: promtool reads and tests them, each has a page that says what to do, each page has an alert, and each
//! alert has a test.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

use super::series;
use super::tools::Tools;
use crate::{step, tree};

/// The alerts, as the chart has them.
const ALERTS: &str = "charts/peerdist/files/alerts.yaml";
/// Where they are tested.
const FOLDER: &str = "deploy/prometheus";
/// Where the pages lie.
const RUNBOOKS: &str = "docs/runbooks";

/// Runs all of it.
pub(super) fn check(root: &Path, tools: &Tools) -> Result<()> {
    let (promtool, folder) = (tools.promtool.to_string_lossy(), root.join(FOLDER));
    step::run(&folder, &promtool, &["check", "rules", "alerts.yaml"])?;
    step::run(&folder, &promtool, &["test", "rules", "alerts_test.yaml"])?;
    let (alerts, tests) = (tree::read(&root.join(ALERTS))?, tree::read(&folder.join("alerts_test.yaml"))?);
    let mut complaints: Vec<String> =
        series::unknown(&alerts, &series::registered(root)?).iter().map(|name| not_registered(name)).collect();
    complaints.extend(compare(&alerts, &tests, &pages(root)?));
    if !complaints.is_empty() {
        bail!("{ALERTS}: {}", complaints.join("; "));
    }
    println!("{} alerts: each with a runbook page and a test", values(&alerts, "- alert:").len());
    Ok(())
}

fn not_registered(name: &str) -> String {
    format!("no program registers the series {name}")
}

fn pages(root: &Path) -> Result<BTreeSet<String>> {
    let files = tree::files(&root.join(RUNBOOKS), &["md"])?;
    let names = files.iter().filter_map(|path| path.file_stem()?.to_str());
    Ok(names.filter(|name| *name != "README").map(str::to_owned).collect())
}

fn compare(alerts: &str, tests: &str, pages: &BTreeSet<String>) -> Vec<String> {
    let names = values(alerts, "- alert:");
    let tested: BTreeSet<&str> = values(tests, "alertname:").into_iter().collect();
    let mut complaints = Vec::new();
    let links: BTreeSet<&str> =
        values(alerts, "runbook_url:").iter().filter_map(|url| url.rsplit('/').next()).collect();
    for name in &names {
        if !pages.contains(*name) || !links.contains(format!("{name}.md").as_str()) {
            complaints.push(format!("{name} has no page {RUNBOOKS}/{name}.md, or no runbook_url that leads there"));
        }
        if !tested.contains(name) {
            complaints.push(format!("{name} has no test"));
        }
    }
    let orphans = pages.iter().filter(|page| !names.contains(&page.as_str()));
    complaints.extend(orphans.map(|page| format!("{RUNBOOKS}/{page}.md is the page of no alert")));
    complaints
}

/// What follows a key at the beginning of a line, for every such line.
fn values<'text>(text: &'text str, key: &str) -> Vec<&'text str> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix(key)?.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_without_page_or_test_and_a_page_without_alert_are_found() {
        let alerts = "- alert: A\n  runbook_url: https://x/A.md\n- alert: B\n";
        let pages = ["A", "C"].map(str::to_owned).into();
        let complaints = compare(alerts, "alertname: A\n", &pages);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[0].starts_with("B has no page") && complaints[1].starts_with("B has no test"));
        assert!(complaints[2].contains("C.md is the page of no alert"));
    }
}
