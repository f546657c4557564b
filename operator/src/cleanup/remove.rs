//! Removes finalizers, objects and labels. What is gone already is fine.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use peerdist_crds::PackageDistribution;
use peerdist_crds::readable::Readable;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CleanupError, failed};
use crate::apply::unless_gone;
use crate::names::{ASSIGNED_OFFICE_LABEL, EVICTION_FINALIZER, MANAGED_SELECTOR, POD_SELECTOR};
use crate::pages::for_all;

/// Volume of the server's only pod.
const CLAIM: &str = "storage-peerdist-server-0";
/// What is done with objects, in errors.
const DELETE: &str = "delete what the operator made";

/// Packages that are deleted later wait for nobody. Somebody may write an object in between: then all are read anew.
pub(super) async fn finalizers(client: &Client) -> Result<(), CleanupError> {
    const ACTION: &str = "remove the finalizers of PackageDistributions";
    let all: Api<Readable<PackageDistribution>> = Api::all(client.clone());
    loop {
        let conflict = AtomicBool::new(false);
        for_all(&all, ListParams::default(), async |Readable(object): Readable<PackageDistribution>| {
            match free(client, object).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    conflict.store(true, Ordering::Relaxed);
                    Ok(())
                }
                freed => freed,
            }
        })
        .await
        .map_err(failed(ACTION))?;
        if !conflict.into_inner() {
            return Ok(());
        }
    }
}

async fn free(client: &Client, object: PackageDistribution) -> Result<(), kube::Error> {
    let others: Vec<&String> =
        object.finalizers().iter().filter(|finalizer| *finalizer != EVICTION_FINALIZER).collect();
    if others.len() == object.finalizers().len() {
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": others}});
    let api: Api<Readable<PackageDistribution>> =
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    unless_gone(api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await).map(drop)
}

/// Everything that the operator made, the sets first, and the server's volume.
pub(super) async fn objects(client: &Client, namespace: &str, keep_claim: bool) -> Result<(), CleanupError> {
    managed::<DaemonSet>(client, namespace).await?;
    managed::<StatefulSet>(client, namespace).await?;
    managed::<Pod>(client, namespace).await?;
    managed::<ConfigMap>(client, namespace).await?;
    managed::<ServiceAccount>(client, namespace).await?;
    managed::<Secret>(client, namespace).await?;
    if keep_claim {
        return Ok(());
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let deleted = unless_gone(claims.delete(CLAIM, &DeleteParams::background()).await);
    deleted.map(drop).map_err(failed(DELETE))
}

async fn managed<K>(client: &Client, namespace: &str) -> Result<(), CleanupError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(MANAGED_SELECTOR);
    for_all(&api, ours, async |object: K| {
        unless_gone(api.delete(&object.name_any(), &DeleteParams::background()).await).map(drop)
    })
    .await
    .map_err(failed(DELETE))
}

/// Pods on other nodes than these: nobody there would end them, and their objects would stay for good. The kubelet of a
/// node that comes back ends what runs there.
pub(super) async fn pods_elsewhere(
    client: &Client,
    namespace: &str,
    there: &BTreeSet<String>,
) -> Result<(), CleanupError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = ListParams::default().labels(POD_SELECTOR);
    for_all(&api, pods, async |pod: Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if node.is_none_or(|node| there.contains(node)) {
            return Ok(());
        }
        unless_gone(api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await).map(drop)
    })
    .await
    .map_err(failed("forget the pods of nodes that are away"))
}

/// The operator's own label, from every node.
pub(super) async fn labels(client: &Client) -> Result<(), CleanupError> {
    let api: Api<Node> = Api::all(client.clone());
    let labelled = ListParams::default().labels(ASSIGNED_OFFICE_LABEL);
    for_all(&api, labelled, async |node: Node| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {ASSIGNED_OFFICE_LABEL: null}}}));
        unless_gone(api.patch(&node.name_any(), &PatchParams::default(), &patch).await).map(drop)
    })
    .await
    .map_err(failed("remove the label of nodes"))
}
