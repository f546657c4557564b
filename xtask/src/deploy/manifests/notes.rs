//! What Helm prints after installing. It leaves that out of what it renders without a cluster, so that a copy of the
//! chart gets one more template, which shows it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apis::{OPENSHIFT, present};
use crate::deploy::render::CHART;
use crate::deploy::tools::Tools;
use crate::step::output;
use crate::tree;

/// The added template, and what is in it: the notes as one line of JSON.
const SHOWN: &str = "templates/shown.yaml";
const TEMPLATE: &str = "notes: {{ include (print .Template.BasePath \"/NOTES.txt\") . | toJson }}\n";
/// Another release in another namespace than the chart's own name, so that a word that stands for either is noticed.
const RELEASE: &str = "edge";
const NAMESPACE: &str = "shops";
/// What is said whatever the cluster has.
const ALWAYS: [&str; 3] = [
    "is installed in the namespace shops.",
    "\n   kubectl label namespace shops pod-security.kubernetes.io/enforce=privileged --overwrite\n",
    "\nTo see whether the operator works: helm test edge --namespace shops\n",
];
/// What is said only on OpenShift, and there only if the chart was told not to do it.
const FORBIDDEN_PODS: &str = "\nsystem:serviceaccounts:shops host network, host ports and host paths.\n";

/// Fails when the notes name another release or namespace, or what the cluster does not have.
pub(super) fn check(root: &Path, tools: &Tools) -> Result<()> {
    let chart = with_shown_notes(&root.join(CHART), &tools.folder.join("chart-with-notes"))?;
    let without_constraints = ["--set", "openshift.scc=false"].map(str::to_owned).to_vec();
    for (options, are_pods_forbidden) in [
        (Vec::new(), false),
        (present(OPENSHIFT).to_vec(), false),
        (without_constraints.clone(), false),
        ([present(OPENSHIFT).to_vec(), without_constraints].concat(), true),
    ] {
        let said = notes(root, &tools.helm, &chart, &options)?;
        if said != notes(root, &tools.helm_of_old, &chart, &options)? {
            bail!("Helm 3 and Helm 4 print different notes with {options:?}: write NOTES.txt so that both agree");
        }
        complain(&said, are_pods_forbidden).with_context(|| format!("the notes of the chart with {options:?}"))?;
    }
    Ok(())
}

/// One complaint about the notes, if there is one.
fn complain(notes: &str, are_pods_forbidden: bool) -> Result<()> {
    if let Some(missing) = ALWAYS.iter().find(|words| !notes.contains(**words)) {
        bail!("they do not say {missing:?}");
    }
    match (are_pods_forbidden, notes.contains(FORBIDDEN_PODS)) {
        (true, false) => bail!("they do not say {FORBIDDEN_PODS:?}"),
        (false, true) => bail!("they say {FORBIDDEN_PODS:?}, which is not so"),
        _ => Ok(()),
    }
}

fn notes(root: &Path, helm: &Path, chart: &Path, options: &[String]) -> Result<String> {
    let chart = chart.to_string_lossy();
    let arguments = ["template", RELEASE, &chart, "--namespace", NAMESPACE, "--show-only", SHOWN].map(str::to_owned);
    let rendered = output(root, helm, &[&arguments[..], options].concat())?;
    let line = rendered.lines().find_map(|line| line.strip_prefix("notes: ")).context("Helm rendered no notes")?;
    serde_json::from_str(line).context("Helm rendered notes that are no JSON")
}

/// Copies the chart and adds the template.
fn with_shown_notes(chart: &Path, copy: &Path) -> Result<PathBuf> {
    if copy.exists() {
        fs::remove_dir_all(copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    for path in tree::all_files(chart)? {
        let target = copy.join(path.strip_prefix(chart)?);
        fs::create_dir_all(target.parent().unwrap_or(copy)).context("cannot make a folder of the copied chart")?;
        fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    fs::write(copy.join(SHOWN), TEMPLATE).with_context(|| format!("cannot write {SHOWN} of the copied chart"))?;
    Ok(copy.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_to_say_what_holds_and_nothing_else() {
        let usual = ALWAYS.concat();
        let openshift = usual.clone() + FORBIDDEN_PODS;
        assert!(complain(&usual, false).is_ok() && complain(&openshift, true).is_ok());
        assert!(complain(&usual, true).is_err() && complain(&openshift, false).is_err());
        assert!(complain(&usual.replace("shops", "peerdist"), false).is_err());
    }
}
