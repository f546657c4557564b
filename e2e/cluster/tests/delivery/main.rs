//! Packages through a real API server: operator, server and clients are the real programs with the rights that the
//! installation gives them. Kubelets and controllers are not there: the test starts the processes that pods would be,
//! with tokens that are bound to pods, and reports counts as the controllers would.

mod credentials;
mod departure;
mod mount;
mod origin;
mod provided_root;
mod reading;
mod rights;
mod rotation;
mod site;
mod traces;
mod trust;
mod writes;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::json;

use crate::origin::Origin;
use crate::site::{NODES, Site};

/// Size of the package.
const PACKAGE_BYTES: usize = 24 << 20;
/// Most writes of the operator for another version of a package, from its edit until every node has it, events included.
const WRITES_OF_A_VERSION_MAX: usize = 3;

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
    reading::only_who_has_the_right_reads(&site).await?;

    site.apply_package("gone", json!({"version": "1", "source": {"uri": origin.missing_url()}})).await?;
    eventually("the failure is in the status", async || {
        let status = site.package("gone").await?.status.unwrap_or_default();
        Ok(status.failure.is_some_and(|failure| failure.reason == "SourceMissing" && !failure.needs_edit))
    })
    .await?;
    let of_another_file = json!({"uri": origin.url(), "digest": format!("sha256:{}", "0".repeat(64))});
    site.apply_package("forged", json!({"version": "1", "source": of_another_file})).await?;
    eventually("what no other try would mend stalls the object", async || {
        let status = site.package("forged").await?.status.unwrap_or_default();
        let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
        Ok(stalled.is_some_and(|stalled| stalled.status == "True" && stalled.reason == "DigestMismatch"))
    })
    .await?;
    site.apply_package("forged", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("forged", "Ready").await?;
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

    let other_version = json!({"version": "2", "source": {"uri": origin.other_url()}});
    let writes = writes::of_another_version(&site, other_version).await?;
    for node in NODES {
        let published = site.published(node.name, "retail/app/current")?;
        ensure!(published == origin.other_content(), "{}: the published file of version 2 differs", node.name);
    }
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
        ensure!(published == origin.content(), "{} has not published it again", node.name);
    }
    writes::both_wrote_again(&site.audit_log())?;
    site.stop().await?;
    assert!(writes.len() <= WRITES_OF_A_VERSION_MAX, "{} writes for a new version: {writes:?}", writes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_enrol_nobody() -> Result<()> {
    let origin = Origin::start(1 << 10).await?;
    let mut site = Site::start(origin.address()).await?;
    let (hub, store) = ("peerdist-office-hub", "peerdist-office-store");
    let kubernetes = "https://kubernetes.default.svc";
    // Whose the token is, what the server says of it, and on which object: on the pod that it knows, or else the Office.
    let of_office = site.token(hub, Some("hub-1"), "peerdist").await?;
    let of_node = site.token(store, Some("till-1"), "peerdist").await?;
    let for_kubernetes = site.token(store, Some("till-2"), kubernetes).await?;
    let unbound = site.token(store, None, "peerdist").await?;
    let own = site.token(store, Some("till-2"), "peerdist").await?;
    let (forged, expired) = (format!("{own}x"), site.expired(&own)?);
    for (what, token, said, regarding) in [
        ("of another office", of_office, "which is not that of office store", ("Pod", "hub-1")),
        ("of another node's pod", of_node, "is bound to node till-1", ("Pod", "till-1")),
        ("for another audience", for_kubernetes, "is invalid for the target audiences", ("Office", "store")),
        ("that is not bound to a pod", unbound, "is not bound to a pod on a node", ("Office", "store")),
        ("that was forged", forged, "not valid for the audience peerdist", ("Office", "store")),
        ("that has expired", expired, "service account token has expired", ("Office", "store")),
    ] {
        let refused = site.expect_refusal("till-2", &token, said, regarding).await;
        refused.with_context(|| format!("a token {what}"))?;
    }
    site.stop().await
}
