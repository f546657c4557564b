//! What is left when everything is taken away: nothing, also where nodes are away; and of what is said of nodes nothing
//! either, so that the next operator begins anew.

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

/// A package that is deleted after the installation, and one that the next installation finds.
const PACKAGES: [&str; 2] = ["app", "kept"];

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_leaves_nothing_although_nobody_runs_the_pods() -> Result<()> {
    let mut scene = Scene::new().await?;
    let operator = scene.operator("first", "example/peerdist:1").await?;
    scene.apply_offices().await?;
    for package in PACKAGES {
        let source = json!({"uri": "https://example.com/app.tar"});
        scene.apply_package(package, json!({"version": "1", "source": source})).await?;
    }
    scene.office_says("store", "Ready", "False", "RolloutPending").await?;
    scene.run_pods().await?;
    distribute(&scene).await?;
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
    nothing_is_said_of_nodes(&scene).await?;
    let before = versions(&scene).await?;
    cleanup(client(), &options).await?;
    assert_eq!(versions(&scene).await?, before, "once is enough");

    scene.packages.delete("app", &DeleteParams::default()).await?;
    assert!(scene.packages.get_opt("app").await?.is_none(), "nothing keeps the object");
    the_next_operator_believes_nothing(&scene).await
}

/// Stands for the server whose nodes all hold the packages.
async fn distribute(scene: &Scene) -> Result<()> {
    for package in PACKAGES {
        let nodes = json!({"targeted": 3, "complete": 3, "failed": 0, "unreachable": 0});
        let everywhere = json!({"digest": "blake3:00", "percent": 100, "nodes": nodes});
        scene.report_package(package, everywhere).await?;
        scene.package_says(package, "Ready", "True", "Complete").await?;
    }
    Ok(())
}

async fn nothing_is_said_of_nodes(scene: &Scene) -> Result<()> {
    for package in PACKAGES {
        for kind in ["Ready", "Distributed", "Ingested"] {
            scene.package_says(package, kind, "Unknown", "Uninstalled").await?;
        }
        scene.package_says(package, "Accepted", "True", "Valid").await?;
        let status = scene.packages.get(package).await?.status.unwrap_or_default();
        assert_eq!((status.progress_generation, status.percent, status.nodes), (None, None, None), "{package}");
    }
    for office in ["hub", "store"] {
        scene.office_says(office, "Ready", "Unknown", "Uninstalled").await?;
        scene.office_says(office, "Accepted", "True", "Valid").await?;
        assert_eq!(scene.offices.get(office).await?.status.unwrap_or_default().nodes, None, "{office}");
    }
    Ok(())
}

async fn versions(scene: &Scene) -> Result<Vec<Option<String>>> {
    let packages = scene.packages.list(&ListParams::default()).await?.into_iter();
    let offices = scene.offices.list(&ListParams::default()).await?.into_iter();
    let versions = packages.map(|package| package.resource_version());
    Ok(versions.chain(offices.map(|office| office.resource_version())).collect())
}

/// Its nodes are counted before any server has said what they hold.
async fn the_next_operator_believes_nothing(scene: &Scene) -> Result<()> {
    let operator = scene.operator("second", "example/peerdist:1").await?;
    scene.office_says("hub", "Ready", "False", "RolloutPending").await?;
    scene.office_says("store", "Ready", "False", "RolloutPending").await?;
    scene.hand.report_daemon_set("peerdist-office-hub", 1).await?;
    scene.hand.report_daemon_set("peerdist-office-store", 2).await?;
    scene.office_says("store", "Ready", "True", "NodesReady").await?;
    scene.package_says("kept", "Ready", "False", "NotReported").await?;
    operator.stop().await
}
