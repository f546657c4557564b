//! Keys that change while packages are on their way: intermediate, manifest key, and at last the root.

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use crate::origin::Origin;
use crate::site::{NODES, SERVER_IDENTITY, Site};

/// Size of the package: 22 seconds of the thin link.
const PACKAGE_BYTES: usize = 32 << 20;
/// The thin link.
const LINK: &str = "12M";
/// What the server says when it follows.
const FOLLOWED: &str = "the keys of the authority changed";
/// The operator's moment that a change of the root waits from.
const ROOTS_SINCE: &str = "peerdist.io/roots-since";

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_a_package_is_on_its_way() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let site = Site::start_behind(origin.address(), Some(LINK)).await?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    wait_for_percent(&site, 15).await?;

    let before = identity(&site).await?;
    annotate(&site, json!({"peerdist.io/rotate-intermediate": "a", "peerdist.io/rotate-manifest-key": "a"})).await?;
    server_follows(&site, 1).await?;
    let after = identity(&site).await?;
    ensure!(key(&after, "manifest.key") == key(&before, "manifest-next.key"), "the next one signs now");
    for name in ["intermediate.pem", "intermediate.key", "manifest-next.key"] {
        ensure!(key(&after, name) != key(&before, name), "{name} is another one");
    }
    ensure!(key(&after, "roots.pem") == key(&before, "roots.pem"), "the root is the same");
    // A second time: now no client knows the key that signs.
    annotate(&site, json!({"peerdist.io/rotate-manifest-key": "b"})).await?;
    server_follows(&site, 2).await?;
    let status = site.package("app").await?.status.context("a status")?;
    ensure!(status.percent < Some(100), "keys changed while the package was on its way: {status:?}");

    site.package_is("app", "Ready").await?;
    eventually("the last bytes are counted", async || {
        let status = site.package("app").await?.status.unwrap_or_default();
        Ok(status.bytes.unwrap_or_default().wan >= PACKAGE_BYTES as i64)
    })
    .await?;
    let status = site.package("app").await?.status.context("a status")?;
    let (nodes, bytes) = (status.nodes.unwrap_or_default(), status.bytes.unwrap_or_default());
    assert_eq!((nodes.complete, nodes.failed), (NODES.len() as i32, 0));
    let repeated = bytes.wan as f64 / PACKAGE_BYTES as f64;
    println!("keys changed in mid-package: {repeated:.4} of the package over the WAN");
    assert!(repeated <= 1.02, "over the WAN: {bytes:?}");
    published_everywhere(&site, "retail/app/current", &origin)?;

    // Plans that the latest key signs are taken by every node.
    site.apply_package("app", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    let rotated: Vec<String> = identity(&site).await?.annotations().values().cloned().collect();
    ensure!(rotated.iter().filter(|value| *value == "b").count() == 2, "the request is answered: {rotated:?}");
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_takes_over_and_nobody_enrols_again() -> Result<()> {
    let origin = Origin::start(1 << 20).await?;
    let mut site = Site::start(origin.address()).await?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    let [old] = <[String; 1]>::try_from(site.trusted_roots()?).map_err(|roots| anyhow::anyhow!("{roots:?}"))?;

    site.secrets().delete("peerdist-root", &DeleteParams::default()).await?;
    trusts(&site, "both roots", |roots| roots.len() == 2 && roots[0] == old).await?;
    let new = site.trusted_roots()?.remove(1);
    server_follows(&site, 1).await?;
    site.restart_clients_without_tokens()?;
    renewed(&site, &new).await?;

    pass_days(&site, 8).await?;
    trusts(&site, "the new root first", |roots| *roots == [new.clone(), old.clone()]).await?;
    server_follows(&site, 2).await?;
    site.apply_package("app", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;

    let refused = site.server_log()?.lines().filter(|line| line.contains("enrolment refused")).count();
    assert_eq!(refused, 0, "nobody enrolled with a token that is worth nothing");

    site.start_client_from_nothing("till-2").await?;
    eventually("a node with nothing on its disk enrols under the new root and has the package", async || {
        Ok(site.published("till-2", "retail/app/current").is_ok_and(|content| content == origin.content()))
    })
    .await?;
    pass_days(&site, 38).await?;
    trusts(&site, "the new root alone", |roots| *roots == [new.clone()]).await?;
    site.stop().await
}

async fn identity(site: &Site) -> Result<Secret> {
    Ok(site.secrets().get(SERVER_IDENTITY).await?)
}

fn key(secret: &Secret, name: &str) -> Option<ByteString> {
    secret.data.as_ref()?.get(name).cloned()
}

/// As `kubectl annotate --overwrite`.
async fn annotate(site: &Site, annotations: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    site.secrets().patch(SERVER_IDENTITY, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Makes the last step of a change so many days old.
async fn pass_days(site: &Site, days: i64) -> Result<()> {
    let then = Timestamp::now() - SignedDuration::from_hours(24 * days);
    annotate(site, json!({ROOTS_SINCE: then.to_string()})).await
}

async fn wait_for_percent(site: &Site, percent: i32) -> Result<()> {
    eventually(&format!("{percent} percent have arrived"), async || {
        let status = site.package("app").await?.status.unwrap_or_default();
        ensure!(status.percent < Some(100), "the package was too fast: {status:?}");
        Ok(status.percent >= Some(percent))
    })
    .await
}

async fn server_follows(site: &Site, times: usize) -> Result<()> {
    eventually(&format!("the server follows its keys for the {times}. time"), async || {
        Ok(site.server_log()?.lines().filter(|line| line.contains(FOLLOWED)).count() >= times)
    })
    .await
}

async fn trusts(site: &Site, wanted: &str, is_so: impl Fn(&Vec<String>) -> bool) -> Result<()> {
    let wanted = format!("clients are told to trust {wanted}");
    let found = eventually(&wanted, async || Ok(is_so(&site.trusted_roots()?))).await;
    found.with_context(|| format!("{:?}", site.trusted_roots()))
}

/// Waits until every node trusts the root with this digest.
async fn renewed(site: &Site, root: &str) -> Result<()> {
    for node in NODES {
        eventually(&format!("{} trusts the root that comes", node.name), async || {
            Ok(site.trusted_by(node.name)?.iter().any(|one| one == root))
        })
        .await
        .with_context(|| site.client_log(node.name).unwrap_or_default())?;
    }
    Ok(())
}

fn published_everywhere(site: &Site, package: &str, origin: &Origin) -> Result<()> {
    for node in NODES {
        ensure!(site.published(node.name, package)? == origin.content(), "{}: the published file differs", node.name);
    }
    Ok(())
}
