//! Who writes when two operators run, or one ends.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use peerdist_e2e_cluster::objects::settings_text;
use peerdist_e2e_cluster::process::Process;
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
async fn a_program_that_is_told_to_end_gives_the_lease_back_and_ends_without_an_error() -> Result<()> {
    let scene = Scene::new().await?;
    let settings = scene.plane.folder().join("settings.yaml");
    std::fs::write(&settings, settings_text("example/peerdist:1"))?;
    let program = Path::new(env!("CARGO_BIN_EXE_peerdist-e2e-operator"));
    let mut operator = Process::start_operator(program, "first", &scene.plane.kubeconfig("first")?, &settings, &[])?;
    eventually("the program leads", async || Ok(scene.lease_holder().await?.starts_with("first-"))).await?;
    scene.apply_offices().await?;
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    operator.terminate()?;
    eventually("the program ended", async || Ok(operator.ended()?.is_some())).await?;
    let status = operator.ended()?.context("it ended")?;
    assert!(status.success(), "{status}:\n{}", operator.last_lines());
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
