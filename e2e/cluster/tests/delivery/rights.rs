//! The rights that the installation gives: every role and binding of the plain manifests, and the Lease that the
//! operator may take but not make, applied as they are, but for the name of the root's Secret.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use peerdist_operator::names::ROOT_SECRET;
use serde_json::Value;

/// Kinds that are about rights, and whether they have a namespace.
const KINDS: [(&str, bool); 6] = [
    ("ServiceAccount", true),
    ("ClusterRole", false),
    ("ClusterRoleBinding", false),
    ("Role", true),
    ("RoleBinding", true),
    ("Lease", true),
];

/// Applies them, as the chart renders them where somebody else keeps the root in a Secret of this name.
pub(crate) async fn install(client: &Client, root_secret: Option<&str>) -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/manifests/operator.yaml");
    let text = std::fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let text = text.replace(ROOT_SECRET, root_secret.unwrap_or(ROOT_SECRET));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    for document in documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        let Some(&(_, namespaced)) = KINDS.iter().find(|(name, _)| *name == kind) else { continue };
        let (group, version) = match document["apiVersion"].as_str().and_then(|version| version.split_once('/')) {
            Some((group, version)) => (group, version),
            None => ("", "v1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("peerdist");
        let api: Api<DynamicObject> = match namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &resource),
            false => Api::all_with(client.clone(), &resource),
        };
        let name = document["metadata"]["name"].as_str().context("a name")?;
        let parameters = PatchParams::apply("installer").force();
        api.patch(name, &parameters, &Patch::Apply(&document)).await.with_context(|| format!("{kind} {name}"))?;
    }
    Ok(())
}
