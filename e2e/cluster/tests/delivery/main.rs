//! Packages through a real API server: operator, server and clients are the real programs with the rights that the
//! installation gives them. Kubelets and controllers are not there: the test starts the processes that pods would be,
//! with tokens that are bound to pods, and reports counts as the controllers would.

mod credentials;
mod mount;
mod origin;
mod reading;
mod rights;
mod rotation;
mod site;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams};
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::json;

use crate::origin::Origin;
use crate::site::{NODES, Site};

/// Size of the package.
const PACKAGE_BYTES: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_package_reaches_every_node_and_says_so() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let site = Site::start(origin.address()).await?;
    let package = json!({"version": "1", "source": {"uri": origin.url()}});
    site.apply_package("app", package).await?;
    site.package_is("app", "Ready").await?;
    let status = site.package("app").await?.status.context("a status")?;
    let (nodes, offices, bytes) =
        (status.nodes.unwrap_or_default(), status.offices.unwrap_or_default(), status.bytes.unwrap_or_default());
    assert_eq!((nodes.targeted, nodes.complete, nodes.failed), (NODES.len() as i32, NODES.len() as i32, 0));
    assert_eq!((offices.targeted, offices.complete, status.percent), (2, 2, Some(100)));
    assert_eq!(bytes.total, PACKAGE_BYTES as i64);
    assert!(bytes.wan as f64 <= 1.005 * PACKAGE_BYTES as f64, "over the WAN: {bytes:?}");
    for node in NODES {
        let published = site.published(node.name, "retail/app/current")?;
        ensure!(published == origin.content(), "{}: the published file differs", node.name);
    }
    let writes = site.status_writes_a_second("app")?;
    assert!(writes <= 2, "once a second, on whichever side of the clock's tick: {writes}");
    reading::only_who_has_the_right_reads(&site).await?;

    site.apply_package("gone", json!({"version": "1", "source": {"uri": origin.missing_url()}})).await?;
    eventually("the failure is in the status", async || {
        let status = site.package("gone").await?.status.unwrap_or_default();
        Ok(status.failure.is_some_and(|failure| failure.reason == "SourceMissing"))
    })
    .await?;
    site.apply_package("inside", json!({"version": "1", "source": {"uri": "http://127.0.0.1:1/x"}})).await?;
    eventually("the forbidden address is named", async || {
        let status = site.package("inside").await?.status.unwrap_or_default();
        Ok(status.failure.is_some_and(|failure| failure.reason == "AddressForbidden"))
    })
    .await?;

    site.apply_package("odd", json!({"version": "1", "source": {"uri": "s3://bucket/app"}})).await?;
    eventually("the server says why it does not act upon an object", async || {
        let status = site.package("odd").await?.status.unwrap_or_default();
        Ok(status.failure.is_some_and(|failure| failure.reason == "UnsupportedScheme"))
    })
    .await?;

    credentials::source_gets_its_credentials_when_the_server_may_read_them(&site, &origin).await?;

    site.apply_package("app", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    site.packages().delete("app", &DeleteParams::default()).await?;
    eventually("every node lets go of a deleted package, older versions included", async || {
        Ok(NODES.iter().all(|node| !site.root(node.name).join("packages/retail/app").exists()))
    })
    .await?;
    eventually("a deleted object goes when the nodes have let go", async || {
        Ok(site.packages().get_opt("app").await?.is_none())
    })
    .await?;

    // Made anew under the same name: nothing is known of it before it is there again.
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    for node in NODES {
        let published = site.published(node.name, "retail/app/current")?;
        ensure!(published == origin.content(), "{}: the file that was published again differs", node.name);
    }
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_enrol_nobody() -> Result<()> {
    let origin = Origin::start(1 << 10).await?;
    let mut site = Site::start(origin.address()).await?;
    let (hub, store) = ("peerdist-office-hub", "peerdist-office-store");
    for (what, account, pod, audience, said) in [
        ("the token of another office", hub, "hub-1", "peerdist", "service account"),
        ("the token of another node's pod", store, "till-1", "peerdist", "bound to node"),
        ("the token for another audience", store, "till-2", "https://kubernetes.default.svc", "not valid"),
    ] {
        let token = site.token(account, Some(pod), audience).await?;
        site.expect_refusal("till-2", &token, said).await.context(what)?;
    }
    let unbound = site.token(store, None, "peerdist").await?;
    site.expect_refusal("till-2", &unbound, "not bound").await?;
    let forged = format!("{}x", site.token(store, Some("till-2"), "peerdist").await?);
    site.expect_refusal("till-2", &forged, "not valid").await?;
    eventually("events tell whom the server refused, and where", async || {
        let events: Api<Event> = Api::all(site.packages().into_client());
        let events = events.list(&Default::default()).await?;
        let refused = events.iter().filter(|event| event.reason.as_deref() == Some("EnrolmentRefused"));
        let kinds: BTreeSet<String> = refused.filter_map(|event| event.regarding.as_ref()?.kind.clone()).collect();
        Ok(kinds.contains("Pod") && kinds.contains("Office"))
    })
    .await?;
    site.stop().await
}
