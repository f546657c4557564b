//! Nodes that leave the cluster for good: nobody waits for them, and their certificates are not renewed.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use peerdist_crds::names::client_objects;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE};
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::json;

use crate::origin::Origin;
use crate::site::{NODES, SERVER_IDENTITY, Site};
use crate::trust::{ENROLLED, count_in_log, server_follows};

/// Size of the package.
const PACKAGE_BYTES: usize = 1 << 20;
/// The node that leaves.
const TILL: &str = "till-2";
/// Its office.
const STORE: &str = "store";
/// How many nodes there are with it.
const ALL: i32 = NODES.len() as i32;

#[tokio::test(flavor = "multi_thread")]
async fn node_that_left_is_not_waited_for_and_its_certificate_is_not_renewed() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let mut site = Site::start(origin.address()).await?;
    let hand = Hand { client: site.administrator() };
    let nodes: Api<Node> = Api::all(site.administrator());
    let pods: Api<Pod> = Api::namespaced(site.administrator(), NAMESPACE);
    let (node, pod) = (nodes.get(TILL).await?, pods.get(TILL).await?);
    eventually("every node is known", async || Ok(count_in_log(&site, ENROLLED)? >= NODES.len())).await?;

    // As when a node is removed: what was given to its pod is worth nothing once that is gone.
    let token = site.token(&client_objects(STORE), Some(TILL), "peerdist").await?;
    pods.delete(TILL, &DeleteParams::default().grace_period(0)).await?;
    site.expect_refusal(TILL, &token, "not valid for the audience peerdist", ("Office", STORE)).await?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    counts_are(&site, ALL - 1, ALL, &[TILL]).await.context("a node that is only away is waited for")?;

    nodes.delete(TILL, &DeleteParams::default()).await?;
    counts_are(&site, ALL - 1, ALL - 1, &[]).await.context("a node without a Node is not waited for")?;
    let status = site.package("app").await?.status.context("a status")?;
    let offices = status.offices.unwrap_or_default();
    assert_eq!((offices.targeted, offices.complete, status.percent), (2, 2, Some(100)));
    hand.report_daemon_set(&client_objects(STORE), 1).await?;
    site.package_is("app", "Ready").await?;

    // It comes back under the same name, with nothing on its disk.
    hand.add_node(TILL, ("site", STORE), &address_of(node)?).await?;
    make_again(&pods, pod).await?;
    site.start_client_from_nothing(TILL).await?;
    counts_are(&site, ALL, ALL, &[]).await.context("a node that is back is counted again")?;
    ensure!(site.published(TILL, "retail/app/current")? == origin.content(), "the published file differs");

    // Its Node goes, while its client runs on with the certificate that it has.
    nodes.delete(TILL, &DeleteParams::default()).await?;
    every_client_renews(&site).await?;
    let refused = eventually("an event says that its certificate is not renewed", async || {
        Ok(!refused_renewals(&site).await?.is_empty())
    });
    refused.await.with_context(|| site.client_log(TILL).unwrap_or_default())?;
    let told = refused_renewals(&site).await?;
    assert!(told.iter().all(|note| note.contains("node till-2: the cluster has no Node of this name")), "{told:?}");
    site.stop().await
}

/// What events on the Office say of nodes without a Node.
async fn refused_renewals(site: &Site) -> Result<Vec<String>> {
    let notes = site.notes("EnrolmentRefused", "Office", STORE).await?;
    Ok(notes.into_iter().filter(|note| note.starts_with("node-gone: ")).collect())
}

/// Waits until so many nodes of so many have the package, and these are behind.
async fn counts_are(site: &Site, complete: i32, targeted: i32, slowest: &[&str]) -> Result<()> {
    let mut last = None;
    let found = eventually(&format!("{complete} of {targeted} nodes have the package"), async || {
        let status = site.package("app").await?.status.unwrap_or_default();
        let nodes = status.nodes.unwrap_or_default();
        let behind: Vec<&str> = status.slowest.iter().map(|slow| slow.node.as_str()).collect();
        let is_so = (nodes.complete, nodes.targeted) == (complete, targeted) && behind == slowest;
        last = Some(status);
        Ok(is_so)
    })
    .await;
    found.with_context(|| format!("{last:?}"))
}

fn address_of(node: Node) -> Result<String> {
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    Ok(addresses.into_iter().next().context("an address")?.address)
}

/// Makes a pod that was there before.
async fn make_again(pods: &Api<Pod>, pod: Pod) -> Result<()> {
    let metadata = ObjectMeta { name: pod.metadata.name, ..ObjectMeta::default() };
    pods.create(&PostParams::default(), &Pod { metadata, spec: pod.spec, status: None }).await?;
    Ok(())
}

/// A manifest key that no client knows, since it is the second one in a row, makes each of them ask for a certificate.
async fn every_client_renews(site: &Site) -> Result<()> {
    for (request, times) in [("a", 1), ("b", 2)] {
        let annotations = json!({"peerdist.io/rotate-manifest-key": request});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        site.secrets().patch(SERVER_IDENTITY, &PatchParams::default(), &patch).await?;
        server_follows(site, times).await?;
    }
    Ok(())
}
