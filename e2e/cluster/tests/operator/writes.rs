//! What appears, and how few writes it takes.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use peerdist_e2e_cluster::objects::NAMESPACE;
use peerdist_e2e_cluster::objects::object;
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_operator::check::{CheckOptions, check};
use peerdist_operator::options::LeaseOptions;
use serde_json::json;

use crate::scene::{LEASE, LEASE_NAMESPACE, Scene};

/// How long an idle operator is watched.
const IDLE: Duration = Duration::from_secs(60);
/// Most writes for one change of a PackageDistribution, from its edit until it is everywhere.
const WRITES_OF_A_CHANGE_MAX: usize = 3;
/// Offices below the hub beside the store, whose clients are reported without any node.
const SHOPS: [&str; 3] = ["shop-1", "shop-2", "shop-3"];
/// All offices.
const OFFICES: usize = 2 + SHOPS.len();
/// Nodes of all of them, by the reports about their DaemonSets.
const NODES: i32 = 6;
/// Between two reports of the server. Each object is written once a second at most: what the operator has to say about one
/// report is written before the next one comes.
const REPORT_PAUSE: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn offices_become_daemon_sets_and_nothing_is_written_when_nothing_changed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let operator = scene.operator("first", "example/peerdist:1").await?;
    scene.apply_offices().await?;
    let source = json!({"uri": "https://example.com/app.tar"});
    scene.apply_package("app", json!({"version": "1", "source": source})).await?;
    scene.hand.apply(&scene.vescs, object("VescEndpoint", "hq", json!({"address": "10.0.5.9"}))).await?;
    for (kind, status, reason) in
        [("Accepted", "True", "Valid"), ("Ready", "False", "KindNotServed"), ("Stalled", "True", "KindNotServed")]
    {
        scene.vesc_says("hq", kind, status, reason).await?;
    }
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    scene.office_says("store", "Ready", "False", "RolloutPending").await?;
    check_objects(&scene).await?;
    check_labels(&scene).await?;
    scene.run_pods().await?;
    open_shops(&scene).await?;
    scene.package_says("app", "Ready", "False", "NotReported").await?;
    distribute(&scene).await?;
    scene.settled().await?;

    tokio::time::sleep(IDLE).await;
    assert_eq!(scene.audit.new_writes()?, [], "an idle operator writes nothing");
    check_says_that_all_is_well(&scene, &operator.url).await?;

    scene.apply_package("app", json!({"version": "2", "source": source})).await?;
    scene.package_says("app", "Ready", "False", "NotReported").await?;
    distribute(&scene).await?;
    let writes = scene.settled().await?;
    println!("a new version of a package: {} writes: {writes:?}", writes.len());
    assert!(writes.len() <= WRITES_OF_A_CHANGE_MAX, "from the edit until it is everywhere: {writes:?}");
    operator.stop().await?;

    let operator = scene.operator("second", "example/peerdist:2").await?;
    let daemon_sets: Api<DaemonSet> = Api::namespaced(scene.hand.client.clone(), NAMESPACE);
    eventually("the store has the new image", async || {
        let store = daemon_sets.get("peerdist-office-store").await?;
        Ok(serde_json::to_string(&store)?.contains("example/peerdist:2"))
    })
    .await?;
    let writes = scene.settled().await?;
    let daemon_set_writes = writes.iter().filter(|write| write.resource == "daemonsets").count();
    assert_eq!(daemon_set_writes, OFFICES, "one an office: {writes:?}");
    assert!(writes.len() <= OFFICES + 2, "one an office, and the server: {writes:?}");
    scene.office_says("hub", "Ready", "True", "NodesReady").await?;
    println!("a new image for {OFFICES} offices: {} writes: {writes:?}", writes.len());

    tell_of_ports_in_use(&scene, &daemon_sets).await?;
    heal(&mut scene, &daemon_sets).await?;
    operator.stop().await
}

/// What `helm test` runs.
async fn check_says_that_all_is_well(scene: &Scene, url: &str) -> Result<()> {
    let lease = LeaseOptions { lease_namespace: LEASE_NAMESPACE.to_owned(), lease_name: LEASE.to_owned() };
    let options = CheckOptions { operator_url: url.to_owned(), patience_seconds: 30, lease };
    let lines = check(scene.hand.client.clone(), &options).await?;
    assert!(lines.iter().all(|line| line.is_ok), "{lines:?}");
    let nobody = CheckOptions { operator_url: "http://127.0.0.1:1".to_owned(), patience_seconds: 0, ..options };
    let lines = check(scene.hand.client.clone(), &nobody).await?;
    assert!(lines.iter().any(|line| !line.is_ok && line.check == "operator"), "{lines:?}");
    Ok(())
}

async fn check_objects(scene: &Scene) -> Result<()> {
    let client = || scene.hand.client.clone();
    for name in ["peerdist-office-hub", "peerdist-office-store"] {
        eventually(&format!("all objects of {name}"), async || {
            let set = Api::<DaemonSet>::namespaced(client(), NAMESPACE).get_opt(name).await?;
            let account = Api::<ServiceAccount>::namespaced(client(), NAMESPACE).get_opt(name).await?;
            Ok(set.is_some_and(|set| set.owner_references().len() == 1) && account.is_some())
        })
        .await?;
    }
    eventually("the server's StatefulSet", async || {
        Ok(Api::<StatefulSet>::namespaced(client(), NAMESPACE).get_opt("peerdist-server").await?.is_some())
    })
    .await
}

async fn check_labels(scene: &Scene) -> Result<()> {
    let nodes: Api<Node> = Api::all(scene.hand.client.clone());
    let label = "peerdist.io/assigned-office";
    eventually("the tills are labelled and the hub is not", async || {
        let office = async |name| Ok::<_, kube::Error>(nodes.get(name).await?.labels().get(label).cloned());
        let store = Some("store".to_owned());
        Ok(office("till-1").await? == store && office("till-2").await? == store && office("hub-1").await?.is_none())
    })
    .await
}

/// Offices that only count: no node of the cluster is theirs.
async fn open_shops(scene: &Scene) -> Result<()> {
    for shop in SHOPS {
        let spec = json!({"parent": "hub", "nodeSelector": {"matchLabels": {"site": shop}}});
        scene.apply_office(shop, spec).await?;
        scene.office_says(shop, "Ready", "False", "RolloutPending").await?;
        scene.hand.report_daemon_set(&format!("peerdist-office-{shop}"), 1).await?;
        scene.office_says(shop, "Ready", "True", "NodesReady").await?;
    }
    Ok(())
}

/// Stands for the server from the fetch of a package until every node holds it.
async fn distribute(scene: &Scene) -> Result<()> {
    for (is_signed, percent, complete) in
        [(false, 0, 0), (false, 0, 0), (true, 0, 0), (true, 40, 1), (true, 80, 4), (true, 100, NODES)]
    {
        let mut status = json!({
            "percent": percent,
            "bytes": {"total": 1000, "origin": 1000, "wan": 10 * percent, "lan": 0},
            "nodes": {"targeted": NODES, "complete": complete, "failed": 0, "unreachable": 0},
        });
        if is_signed {
            status["digest"] = json!("blake3:00");
        }
        scene.report_package("app", status).await?;
        tokio::time::sleep(REPORT_PAUSE).await;
    }
    scene.package_says("app", "Ready", "True", "Complete").await
}

/// Stands for kubelet on a node where somebody else has a port: the preflight ended with its holder.
async fn tell_of_ports_in_use(scene: &Scene, daemon_sets: &Api<DaemonSet>) -> Result<()> {
    let template = daemon_sets.get("peerdist-office-store").await?.spec.template;
    let (metadata, mut spec) = (template.metadata.unwrap_or_default(), template.spec.unwrap_or_default());
    spec.node_name = Some("till-2".to_owned());
    let pod = json!({"metadata": {"name": "store-till-2", "labels": metadata.labels}, "spec": spec});
    let pods: Api<Pod> = Api::namespaced(scene.hand.client.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let ended =
        json!({"terminated": {"exitCode": 2, "message": "PortInUse: 10.42.0.2:34760/udp is held by user 0: stop it"}});
    let container = json!({
        "name": "preflight", "image": "", "imageID": "", "ready": false, "restartCount": 1, "lastState": ended,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    });
    let status = json!({"status": {"phase": "Pending", "initContainerStatuses": [container]}});
    pods.patch_status("store-till-2", &PatchParams::default(), &Patch::Merge(status)).await?;
    scene.hand.report_daemon_set("peerdist-office-store", 2).await?;
    let counted = json!({"status": {"numberAvailable": 1, "numberReady": 1}});
    daemon_sets.patch_status("peerdist-office-store", &PatchParams::default(), &Patch::Merge(counted)).await?;
    scene.office_says("store", "Ready", "False", "PortInUse").await?;
    let status = json!({"status": {"phase": "Running"}});
    pods.patch_status("store-till-2", &PatchParams::default(), &Patch::Merge(status)).await?;
    scene.office_says("store", "Ready", "False", "NodesNotReady").await
}

/// What somebody's hand changed or removed comes back, and the objects of a removed office are its own.
async fn heal(scene: &mut Scene, daemon_sets: &Api<DaemonSet>) -> Result<()> {
    let edit = json!({"spec": {"template": {"spec": {"hostNetwork": false}}}});
    daemon_sets.patch("peerdist-office-store", &PatchParams::default(), &Patch::Merge(edit)).await?;
    eventually("the store is as it was", async || {
        let pod = daemon_sets.get("peerdist-office-store").await?.spec.template.spec.unwrap_or_default();
        Ok(pod.host_network == Some(true))
    })
    .await?;
    // The second time it is only moments old.
    for _ in 0..2 {
        let deleted = daemon_sets.get("peerdist-office-hub").await?.metadata.uid;
        daemon_sets.delete("peerdist-office-hub", &DeleteParams::default()).await?;
        eventually("the DaemonSet of the hub is made anew", async || {
            let hub = daemon_sets.get_opt("peerdist-office-hub").await?;
            Ok(hub.is_some_and(|hub| hub.metadata.uid != deleted))
        })
        .await?;
    }
    scene.settled().await?;
    Ok(())
}
