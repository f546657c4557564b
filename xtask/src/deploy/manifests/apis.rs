//! What the chart leaves to the cluster: values that are `auto` make objects where the cluster has the API for them, and
//! on OpenShift no user is fixed. Rendered with these APIs and without, the difference has to be that and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

use crate::deploy::render::{self, CHART, Generated};
use crate::deploy::tools::Tools;
use crate::tree;

/// Of OpenShift, as Helm hears of it.
pub(super) const OPENSHIFT: &str = "security.openshift.io/v1";
/// Of the Prometheus Operator. A cluster tells Helm of groups, and of each kind in them.
const PROMETHEUS: [&str; 4] = [
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
];
/// What that makes besides a ConfigMap for each dashboard.
const MADE: [&str; 4] = [
    "PodMonitor peerdist-agent",
    "PrometheusRule peerdist",
    "SecurityContextConstraints peerdist-agent",
    "ServiceMonitor peerdist-operator",
];
/// How complaints begin.
const WITH_APIS: &str = "with the APIs of OpenShift and the Prometheus Operator the chart";
/// How a pod says as whom it runs. OpenShift takes a user of the namespace's range, and refuses others.
const FIXED_USER: &str = "runAsUser: 65532";

/// The chart with its default values on a cluster with all of these APIs.
pub(super) fn variant(root: &Path, tools: &Tools) -> Result<Generated> {
    let name = "all-apis.yaml";
    let options: Vec<String> = [OPENSHIFT].iter().chain(&PROMETHEUS).flat_map(|api| present(api)).collect();
    let with = render::agreed(root, tools, name, &options)?;
    let without = render::agreed(root, tools, "the chart with its default values", &[])?;
    compare(&without, &with, &expected(root)?)?;
    Ok(Generated { path: tools.folder.join(name), text: with })
}

/// Helm's option for a cluster that has an API.
pub(super) fn present(api: &str) -> [String; 2] {
    ["--api-versions".to_owned(), api.to_owned()]
}

fn expected(root: &Path) -> Result<BTreeSet<String>> {
    let mut expected: BTreeSet<String> = MADE.iter().map(|object| (*object).to_owned()).collect();
    for board in tree::files(&root.join(CHART).join("files/dashboards"), &["json"])? {
        let name = board.file_stem().unwrap_or_default().to_string_lossy();
        expected.insert(format!("ConfigMap peerdist-dashboard-{name}"));
    }
    Ok(expected)
}

/// Fails unless the APIs add these objects, take none away, and have users of pods left to the cluster.
fn compare(without: &str, with: &str, expected: &BTreeSet<String>) -> Result<()> {
    let (before, after) = (objects(without), objects(with));
    let added: BTreeSet<String> = after.difference(&before).cloned().collect();
    if added != *expected {
        bail!("{WITH_APIS} adds {added:?}: expected {expected:?}");
    }
    if let Some(gone) = before.difference(&after).next() {
        bail!("{WITH_APIS} leaves out {gone}: expected it to stay");
    }
    let foreign: BTreeSet<&str> = MADE.iter().map(|object| kind(object)).collect();
    if let Some(object) = before.iter().find(|object| foreign.contains(kind(object))) {
        bail!("the chart makes {object} without its API: expected it only where the cluster has that");
    }
    if !without.contains(FIXED_USER) || with.contains(FIXED_USER) {
        bail!("pods have to say {FIXED_USER}, but not where the cluster has the API of OpenShift: correct them");
    }
    Ok(())
}

fn kind(object: &str) -> &str {
    object.split(' ').next().unwrap_or_default()
}

/// Kind and name of every object, as both stand at the beginning of their lines in what Helm renders.
fn objects(rendered: &str) -> BTreeSet<String> {
    let object = |document: &str| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: "))?;
        let name = document.lines().find_map(|line| line.strip_prefix("  name: "))?;
        Some(format!("{kind} {name}"))
    };
    rendered.split("\n---\n").filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, name: &str) -> String {
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n    kind: x\n    name: y\n")
    }

    #[test]
    fn only_what_is_expected_may_depend_on_the_cluster() {
        let fixed = "# a pod\n    runAsUser: 65532\n";
        let usual = document("Deployment", "operator") + &document("Service", "operator");
        let monitor = document("PodMonitor", "peerdist-agent");
        let expected = BTreeSet::from(["PodMonitor peerdist-agent".to_owned()]);
        let check =
            |without: String, with: String| compare(&without, &with, &expected).map_err(|error| error.to_string());
        let (before, after) = (usual.clone() + fixed, usual.clone() + &monitor);
        assert_eq!(check(before.clone(), after.clone()), Ok(()));
        let other = document("PodMonitor", "other");
        for (without, with, words) in [
            (before.clone(), usual.clone(), "adds {}"),
            (before.clone(), after.clone() + &document("Role", "more"), "Role more"),
            (before.clone(), document("Service", "operator") + &monitor, "leaves out Deployment operator"),
            (before.clone() + &other, after.clone() + &other, "makes PodMonitor other without its API"),
            (before, after.clone() + fixed, "runAsUser"),
            (usual, after, "runAsUser"),
        ] {
            let told = check(without, with).unwrap_err();
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
