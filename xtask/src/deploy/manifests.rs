//! Manifests, samples and variants of the chart against the schemas of Kubernetes and of our own definitions, and the
//! chart by Helm's lint. What depends on the cluster is in [`apis`], what people read after installing in [`notes`].

mod apis;
mod notes;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::render::{self, CHART, Generated};
use super::tools::Tools;
use crate::{step, tree};

/// Releases of Kubernetes that a user may have.
const KUBERNETES: &str = "1.33,1.34,1.35,1.36";
/// Validates with the library behind `kubernetes-validate --strict`.
const VALIDATE: &str = "xtask/src/deploy/validate.py";
/// Where our own definitions lie.
const DEFINITIONS: &str = "crds/crds";

/// Fails on an unknown or missing field.
pub(super) fn check(root: &Path, tools: &Tools) -> Result<()> {
    for helm in [&tools.helm, &tools.helm_of_old] {
        step::run(root, &helm.to_string_lossy(), &["lint", "--strict", "--quiet", CHART])?;
    }
    notes::check(root, tools)?;
    let mut arguments = [VALIDATE, KUBERNETES, DEFINITIONS].map(str::to_owned).to_vec();
    for folder in ["deploy/manifests", "deploy/monitoring", "deploy/openshift", "deploy/samples"] {
        let files = tree::files(&root.join(folder), &["yaml"])?;
        arguments.extend(files.iter().map(|path| tree::relative(root, path).to_string()));
    }
    let variants = render::variants(root, tools)?.into_iter().chain([apis::variant(root, tools)?]);
    for Generated { path, text } in variants {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        arguments.push(path.to_string_lossy().into_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    step::run(root, &tools.python.to_string_lossy(), &arguments)
}
