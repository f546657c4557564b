//! What is left when everything is taken away: nothing, also where nodes are away.

use anyhow::Result;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use peerdist_e2e_cluster::objects::NAMESPACE;
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_operator::cleanup::{CleanupOptions, cleanup};
use peerdist_operator::options::LeaseOptions;
use serde_json::json;

use crate::scene::{LEASE, LEASE_NAMESPACE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_leaves_nothing_although_nobody_runs_the_pods() -> Result<()> {
    let mut scene = Scene::new().await?;
    let operator = scene.operator("first", "example/peerdist:1").await?;
    scene.apply_offices().await?;
    let source = json!({"uri": "https://example.com/app.tar"});
    scene.apply_package("app", json!({"version": "1", "source": source})).await?;
    scene.office_says("store", "Ready", "False", "RolloutPending").await?;
    scene.run_pods().await?;
    eventually("the package has our finalizer", async || {
        Ok(scene.packages.get("app").await?.finalizers() == ["peerdist.io/eviction"])
    })
    .await?;
    scene.settled().await?;
    operator.stop().await?;

    let lease = LeaseOptions { lease_namespace: LEASE_NAMESPACE.to_owned(), lease_name: LEASE.to_owned() };
    let options = CleanupOptions {
        namespace: NAMESPACE.to_owned(),
        deployment: "peerdist-operator".to_owned(),
        patience_seconds: 4,
        keep_claim: false,
        lease,
    };
    let client = || scene.hand.client.clone();
    cleanup(client(), &options).await?;
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=peerdist-operator");
    assert!(Api::<DaemonSet>::namespaced(client(), NAMESPACE).list(&ours).await?.items.is_empty());
    assert!(Api::<StatefulSet>::namespaced(client(), NAMESPACE).list(&ours).await?.items.is_empty());
    assert!(Api::<ConfigMap>::namespaced(client(), NAMESPACE).list(&ours).await?.items.is_empty());
    assert!(Api::<ServiceAccount>::namespaced(client(), NAMESPACE).list(&ours).await?.items.is_empty());
    assert!(Api::<Secret>::namespaced(client(), NAMESPACE).list(&ours).await?.items.is_empty());
    for node in Api::<Node>::all(client()).list(&ListParams::default()).await? {
        assert!(!node.labels().contains_key("peerdist.io/assigned-office"), "{}", node.name_any());
    }
    assert_eq!(scene.lease_holder().await?, "", "the lease is given back");
    cleanup(client(), &options).await?;

    scene.packages.delete("app", &DeleteParams::default()).await?;
    assert!(scene.packages.get_opt("app").await?.is_none(), "nothing keeps the object");
    Ok(())
}
