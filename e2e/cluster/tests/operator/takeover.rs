//! Who writes when two operators run.

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::json;

use crate::scene::{LEASE, LEASE_NAMESPACE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn the_second_operator_takes_over_at_once_after_a_clean_end_and_writes_nothing_new() -> Result<()> {
    let mut scene = Scene::new().await?;
    let first = scene.operator("first", "example/peerdist:1").await?;
    eventually("the first leads", async || Ok(scene.lease_holder().await? == "first")).await?;
    let second = scene.operator("second", "example/peerdist:1").await?;
    let elsewhere = scene.operator_in("retail", "third", "example/peerdist:1").await?.task.await?;
    let error = elsewhere.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("installation of peerdist in the namespace peerdist"), "a second installation: {error}");
    scene.apply_offices().await?;
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    scene.run_pods().await?;
    scene.settled().await?;
    first.stop().await?;
    eventually("the second leads", async || Ok(scene.lease_holder().await? == "second")).await?;
    let writes = scene.settled().await?;
    assert_eq!(writes, [], "everything is as it should be already");

    scene.apply_office("store", json!({"parent": "hub", "subnets": ["10.42.0.2/32"]})).await?;
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    second.stop().await?;
    assert_eq!(scene.lease_holder().await?, "", "the lease is given back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_lease_was_taken_ends_and_writes_nothing_more() -> Result<()> {
    let mut scene = Scene::new().await?;
    let operator = scene.operator("first", "example/peerdist:1").await?;
    scene.apply_offices().await?;
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    scene.settled().await?;
    let leases: Api<Lease> = Api::namespaced(scene.hand.client.clone(), LEASE_NAMESPACE);
    let taken = json!({"spec": {"holderIdentity": "another"}});
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(taken)).await?;
    let ended = operator.task.await?;
    assert!(ended.is_err(), "who loses the lease ends with an error");
    scene.apply_office("late", json!({"parent": "hub", "subnets": ["10.50.0.0/24"]})).await?;
    assert_eq!(scene.settled().await?, []);
    Ok(())
}
