//! What is generated, and from what: the definitions in the chart from `crds/`, the manifests in `deploy/` from the
//! chart. Helm 4 renders, Helm 3 must say the same.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::tools::Tools;
use crate::step::output;
use crate::tree;

/// Where the chart lies; its folder `ci` holds sets of values that are rendered only to be checked.
pub(super) const CHART: &str = "charts/peerdist";
/// What the rendered manifests begin with.
const HEADER: &str = "# Rendered from charts/peerdist: cargo xtask deploy\n";
/// Lines that would claim that Helm manages an object.
const HELM_LINES: [&str; 2] = ["app.kubernetes.io/managed-by: Helm", "helm.sh/chart: "];

/// The test of the chart and what it does before it is uninstalled are no part of plain manifests, where they would run at
/// once.
const NO_HOOKS: &str = "--no-hooks";

/// A file as it should be.
pub(super) struct Generated {
    /// From the root.
    pub(super) path: PathBuf,
    /// All of it.
    pub(super) text: String,
}

/// Manifests: file, templates that make it (none: all), and values that differ from the defaults.
const MANIFESTS: [(&str, &[&str], &[&str]); 5] = [
    ("manifests/crds.yaml", &["crds.yaml"], &["crds.keep=false"]),
    ("manifests/operator.yaml", &[], &["crds.install=false"]),
    (
        "monitoring/monitors.yaml",
        &["monitoring/podmonitor.yaml", "monitoring/prometheusrule.yaml", "monitoring/servicemonitor.yaml"],
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.prometheusRule.enabled=true",
            "monitoring.serviceMonitor.enabled=true",
        ],
    ),
    ("monitoring/dashboards.yaml", &["monitoring/dashboards.yaml"], &["monitoring.dashboards.enabled=true"]),
    ("openshift/scc.yaml", &["scc.yaml"], &["openshift.scc=true"]),
];

/// The definitions that the chart installs.
pub(super) fn definitions(root: &Path) -> Result<Vec<Generated>> {
    let folder = Path::new(CHART).join("files/crds");
    let mut files = Vec::new();
    for path in tree::files(&root.join("crds/crds"), &["yaml"])? {
        let name = path.file_name().unwrap_or_default();
        files.push(Generated { path: folder.join(name), text: tree::read(&path)? });
    }
    for path in tree::files(&root.join(&folder), &["yaml"])? {
        if !files.iter().any(|file| path.ends_with(&file.path)) {
            bail!("{}: no definition of crds/ is called so: remove it", tree::relative(root, &path));
        }
    }
    Ok(files)
}

/// All manifests.
pub(super) fn manifests(root: &Path, tools: &Tools) -> Result<Vec<Generated>> {
    let mut files = Vec::new();
    for (path, templates, values) in MANIFESTS {
        let templates = templates.iter().flat_map(|name| ["--show-only".to_owned(), format!("templates/{name}")]);
        let values = values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]);
        let options: Vec<String> = templates.chain(values).chain([NO_HOOKS.to_owned()]).collect();
        files.push(Generated { path: Path::new("deploy").join(path), text: agreed(root, tools, path, &options)? });
    }
    Ok(files)
}

/// The whole chart with each of the sets of values that are made for that, its test included.
pub(super) fn variants(root: &Path, tools: &Tools) -> Result<Vec<Generated>> {
    let mut files = Vec::new();
    for values in tree::files(&root.join(CHART).join("ci"), &["yaml"])? {
        let name = values.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let options = ["--values".to_owned(), values.to_string_lossy().into_owned()];
        files.push(Generated { path: tools.folder.join(&name), text: agreed(root, tools, &name, &options)? });
    }
    Ok(files)
}

/// The whole chart as both Helms render it.
pub(super) fn agreed(root: &Path, tools: &Tools, name: &str, options: &[String]) -> Result<String> {
    let text = rendered(root, &tools.helm, options)?;
    if rendered(root, &tools.helm_of_old, options)? != text {
        bail!("Helm 3 and Helm 4 render {name} differently: write the template so that both agree");
    }
    Ok(text)
}

fn rendered(root: &Path, helm: &Path, options: &[String]) -> Result<String> {
    let arguments = ["template", "peerdist", CHART, "--namespace", "peerdist"].map(str::to_owned);
    Ok(plain(&output(root, helm, &[&arguments[..], options].concat())?))
}

/// Without what speaks of Helm, and without empty lines around objects, which Helm 3 and 4 set differently.
fn plain(rendered: &str) -> String {
    let mut text = HEADER.to_owned();
    let mut empty_lines = 0;
    for line in rendered.lines() {
        if line.trim().is_empty() {
            empty_lines += 1;
            continue;
        }
        if line != "---" {
            text.extend(std::iter::repeat_n('\n', empty_lines));
        }
        empty_lines = 0;
        if !HELM_LINES.iter().any(|unwanted| line.trim_start().starts_with(unwanted)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_helm_and_empty_lines_between_objects_are_left_out() {
        let rendered = "---\nlabels:\n  app.kubernetes.io/managed-by: Helm\n  helm.sh/chart: x-1\n  a: b\n\n\n---\nc: d\n\ne: f\n\n";
        assert_eq!(plain(rendered), format!("{HEADER}---\nlabels:\n  a: b\n---\nc: d\n\ne: f\n"));
    }
}
