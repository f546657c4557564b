//! Keys that change while packages are on their way: intermediate, manifest key, and at last the root.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use peerdist_authority::server_identity::{INTERMEDIATE, certificates};
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use crate::origin::Origin;
use crate::site::{NODES, SERVER_IDENTITY, Site, SiteOptions};
use crate::trust::{ENROLLED, count_in_log, learns, server_follows, trusts};

/// Size of the package.
const PACKAGE_BYTES: usize = 32 << 20;
/// The thin link, until the first part of the package has crossed it.
const LINK: &str = "12M";
/// While keys change: the rest takes three and a half minutes, however slow the machine is on which they do.
const LINK_MEANWHILE: &str = "1M";
/// Afterwards, so that nobody waits.
const LINK_AFTERWARDS: &str = "400M";
/// How much has crossed the link when keys begin to change.
const CROSSED_PERCENT: i64 = 15;
/// How often in a row the count of bytes is the same before it is taken for the last one.
const SAME_COUNTS: u32 = 20;
/// The operator's moment that a change of the root waits from.
const ROOTS_SINCE: &str = "peerdist.io/roots-since";

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_a_package_is_on_its_way() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let site = start_behind_link(&origin).await?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    slow_down_in_mid_package(&site).await?;

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
    is_on_its_way(&site).await?;
    site.set_link(LINK_AFTERWARDS).await?;
    arrives_once(&site, &origin).await?;

    // Plans that the latest key signs are taken by every node.
    site.apply_package("app", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    let rotated: Vec<String> = identity(&site).await?.annotations().values().cloned().collect();
    ensure!(rotated.iter().filter(|value| *value == "b").count() == 2, "the request is answered: {rotated:?}");
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_takes_over_and_nobody_enrols_again() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let mut site = start_behind_link(&origin).await?;
    let [old] = <[String; 1]>::try_from(site.trusted_roots()?).map_err(|roots| anyhow::anyhow!("{roots:?}"))?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    slow_down_in_mid_package(&site).await?;

    let enrolled = count_in_log(&site, ENROLLED)?;
    site.secrets().delete("peerdist-root", &DeleteParams::default()).await?;
    trusts(&site, "both roots", |roots| roots.len() == 2 && roots[0] == old).await?;
    let new = site.trusted_roots()?.remove(1);
    server_follows(&site, 1).await?;
    // A client looks for other roots when it starts, and then every ten minutes.
    for node in &NODES {
        site.restart_client(node).await?;
        learns(&site, node.name, &new).await?;
    }

    pass_days(&site, 8).await?;
    trusts(&site, "the new root first", |roots| *roots == [new.clone(), old.clone()]).await?;
    server_follows(&site, 2).await?;
    // Within the days that come every client renews its certificate. Here a manifest key that none of them knows, since it
    // is the second one in a row, makes them do so.
    for (request, times) in [("a", 3), ("b", 4)] {
        annotate(&site, json!({"peerdist.io/rotate-manifest-key": request})).await?;
        server_follows(&site, times).await?;
    }
    every_certificate_is_of_the_new_root(&site).await?;

    pass_days(&site, 38).await?;
    trusts(&site, "the new root alone", |roots| *roots == [new.clone()]).await?;
    server_follows(&site, 5).await?;
    is_on_its_way(&site).await?;
    site.set_link(LINK_AFTERWARDS).await?;
    arrives_once(&site, &origin).await?;

    let refused = count_in_log(&site, "enrolment refused")?;
    assert_eq!(refused, 0, "nobody was refused");
    assert_eq!(count_in_log(&site, ENROLLED)?, enrolled, "nobody enrolled again");
    eventually("each step of the change has an event", async || {
        let notes = site.notes("Rotated", "Secret", SERVER_IDENTITY).await?;
        let steps = ["another root is trusted besides", "the new root signs", "former roots are not trusted any more"];
        Ok(steps.iter().all(|step| notes.iter().any(|note| note.contains(step))))
    })
    .await?;

    site.apply_package("app", json!({"version": "2", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;
    site.start_client_from_nothing("till-2").await?;
    eventually("a node with nothing on its disk enrols under the new root and has the package", async || {
        Ok(site.published("till-2", "retail/app/current").is_ok_and(|content| content == origin.content()))
    })
    .await?;
    site.stop().await
}

async fn start_behind_link(origin: &Origin) -> Result<Site> {
    Site::start_with(origin.address(), SiteOptions { link: Some(LINK), ..SiteOptions::default() }).await
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

/// Waits until the first part of the package has crossed the link, and leaves little room for the rest.
async fn slow_down_in_mid_package(site: &Site) -> Result<()> {
    eventually(&format!("{CROSSED_PERCENT} percent have crossed the link"), async || {
        let status = site.package("app").await?.status.unwrap_or_default();
        ensure!(status.percent < Some(100), "the package was too fast: {status:?}");
        Ok(status.bytes.unwrap_or_default().wan * 100 >= CROSSED_PERCENT * PACKAGE_BYTES as i64)
    })
    .await?;
    site.set_link(LINK_MEANWHILE).await
}

async fn is_on_its_way(site: &Site) -> Result<()> {
    let status = site.package("app").await?.status.context("a status")?;
    let crossed = status.bytes.unwrap_or_default().wan;
    println!("{crossed} of {PACKAGE_BYTES} bytes had crossed the link when the last key had changed");
    ensure!(status.percent < Some(100), "keys changed while the package was on its way: {status:?}");
    for node in ["till-1", "till-2"] {
        ensure!(site.published(node, "retail/app/current").is_err(), "{node} has the package already");
    }
    Ok(())
}

/// The package comes to every node, and nothing of it crosses the link twice.
async fn arrives_once(site: &Site, origin: &Origin) -> Result<()> {
    site.package_is("app", "Ready").await?;
    let mut last = (0, 0);
    eventually("the last bytes are counted", async || {
        let wan = site.package("app").await?.status.unwrap_or_default().bytes.unwrap_or_default().wan;
        last = if wan == last.0 { (wan, last.1 + 1) } else { (wan, 0) };
        // What a client takes in after its last report, when it is told to end, is counted nowhere.
        Ok(wan as f64 >= 0.98 * PACKAGE_BYTES as f64 && last.1 >= SAME_COUNTS)
    })
    .await?;
    let status = site.package("app").await?.status.context("a status")?;
    let (nodes, bytes) = (status.nodes.unwrap_or_default(), status.bytes.unwrap_or_default());
    assert_eq!((nodes.complete, nodes.failed), (NODES.len() as i32, 0));
    let repeated = bytes.wan as f64 / PACKAGE_BYTES as f64;
    println!("keys changed in mid-package: {repeated:.4} of the package over the WAN");
    assert!(repeated <= 1.02, "over the WAN: {bytes:?}");
    for node in &NODES {
        let published = site.published(node.name, "retail/app/current")?;
        ensure!(published == origin.content(), "{}: the published file differs", node.name);
    }
    Ok(())
}

/// Waits until every node has stored a certificate below the server's intermediate, which is of the root in force.
async fn every_certificate_is_of_the_new_root(site: &Site) -> Result<()> {
    let intermediate = key(&identity(site).await?, INTERMEDIATE).context("an intermediate")?;
    let intermediate = certificates(&intermediate.0).and_then(|mut found| found.pop()).context("a certificate")?;
    let intermediate: &[u8] = &intermediate;
    for node in &NODES {
        eventually(&format!("{} has a certificate of the new root", node.name), async || {
            let stored = fs::read(site.root(node.name).join("identity/enrolment"))?;
            Ok(stored.windows(intermediate.len()).any(|part| part == intermediate))
        })
        .await
        .with_context(|| site.client_log(node.name).unwrap_or_default())?;
    }
    Ok(())
}
