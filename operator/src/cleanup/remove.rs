//! Removes finalizers, objects and labels. What is gone already is fine.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use peerdist_crds::PackageDistribution;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{CleanupError, failed};
use crate::names::{ASSIGNED_OFFICE_LABEL, EVICTION_FINALIZER, MANAGED_SELECTOR, POD_SELECTOR, TRUST};

/// Objects that are read at a time.
const PAGE: u32 = 500;
/// Volume of the server's only pod.
const CLAIM: &str = "storage-peerdist-server-0";

/// All objects that a list names, page by page.
pub(super) async fn list_all<K>(api: &Api<K>, parameters: ListParams) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let (mut found, mut page) = (Vec::new(), parameters.limit(PAGE));
    loop {
        let list = api.list(&page).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Packages that are deleted later wait for nobody. Somebody may write an object in between: then it is read anew.
pub(super) async fn finalizers(client: &Client) -> Result<(), CleanupError> {
    const ACTION: &str = "remove the finalizers of PackageDistributions";
    let all: Api<PackageDistribution> = Api::all(client.clone());
    loop {
        let mut conflict = false;
        for object in list_all(&all, ListParams::default()).await.map_err(failed(ACTION))? {
            let others: Vec<&String> =
                object.finalizers().iter().filter(|finalizer| *finalizer != EVICTION_FINALIZER).collect();
            if others.len() == object.finalizers().len() {
                continue;
            }
            let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": others}});
            let api: Api<PackageDistribution> =
                Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
            match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 => conflict = true,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                patched => drop(patched.map_err(failed(ACTION))?),
            }
        }
        if !conflict {
            return Ok(());
        }
    }
}

/// Everything that the operator made, and what the server made, the sets first.
pub(super) async fn objects(client: &Client, namespace: &str, keep_claim: bool) -> Result<(), CleanupError> {
    managed::<DaemonSet>(client, namespace).await?;
    managed::<StatefulSet>(client, namespace).await?;
    managed::<ConfigMap>(client, namespace).await?;
    managed::<ServiceAccount>(client, namespace).await?;
    managed::<Secret>(client, namespace).await?;
    one::<ConfigMap>(client, namespace, TRUST).await?;
    if !keep_claim {
        one::<PersistentVolumeClaim>(client, namespace, CLAIM).await?;
    }
    Ok(())
}

async fn managed<K>(client: &Client, namespace: &str) -> Result<(), CleanupError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(MANAGED_SELECTOR);
    for object in list_all(&api, ours).await.map_err(failed("list what the operator made"))? {
        one::<K>(client, namespace, &object.name_any()).await?;
    }
    Ok(())
}

async fn one<K>(client: &Client, namespace: &str, name: &str) -> Result<(), CleanupError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed("delete what the operator made")(error)),
    }
}

/// Pods on other nodes than these: nobody there would end them, and their objects would stay for good. The kubelet of a
/// node that comes back ends what runs there.
pub(super) async fn pods_elsewhere(
    client: &Client,
    namespace: &str,
    there: &BTreeSet<String>,
) -> Result<(), CleanupError> {
    const ACTION: &str = "forget the pods of nodes that are away";
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in list_all(&api, ListParams::default().labels(POD_SELECTOR)).await.map_err(failed(ACTION))? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if node.is_none_or(|node| there.contains(node)) {
            continue;
        }
        match api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(failed(ACTION))?),
        }
    }
    Ok(())
}

/// The operator's own label, from every node.
pub(super) async fn labels(client: &Client) -> Result<(), CleanupError> {
    const ACTION: &str = "remove the label of nodes";
    let api: Api<Node> = Api::all(client.clone());
    let labelled = ListParams::default().labels(ASSIGNED_OFFICE_LABEL);
    for node in list_all(&api, labelled).await.map_err(failed(ACTION))? {
        let patch = Patch::Merge(json!({"metadata": {"labels": {ASSIGNED_OFFICE_LABEL: null}}}));
        match api.patch(&node.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => drop(patched.map_err(failed(ACTION))?),
        }
    }
    Ok(())
}
