//! Bad objects: refused when they are applied, or by a condition; what was good before stays as it is.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use peerdist_e2e_cluster::objects::NAMESPACE;
use peerdist_e2e_cluster::objects::object;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use crate::scene::Scene;

/// What changes only together with the version of a package.
const KEPT_BY_A_VERSION: [&str; 3] = ["spec.source.uri", "spec.source.digest", "spec.unpack"];

#[tokio::test(flavor = "multi_thread")]
async fn bad_objects_are_refused_and_nothing_else_is_disturbed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let operator = scene.operator("only", "example/peerdist:1").await?;
    scene.apply_offices().await?;
    scene.office_says("store", "Accepted", "True", "Valid").await?;
    refused_at_once(&scene).await?;
    edits_refused_at_once(&scene).await?;
    scene.settled().await?;
    let before = versions(&scene).await?;

    let parent = "spec.parent";
    for (name, spec, field, reason) in [
        ("second", json!({"nodeSelector": {"matchLabels": {"a": "b"}}}), parent, "SecondCentralOffice"),
        ("orphan", json!({"parent": "nowhere", "nodeSelector": {"matchLabels": {"a": "b"}}}), parent, "UnknownOffice"),
        ("ring-1", json!({"parent": "ring-2", "nodeSelector": {"matchLabels": {"a": "b"}}}), parent, "UnknownOffice"),
        ("ring-2", json!({"parent": "ring-1", "nodeSelector": {"matchLabels": {"a": "b"}}}), parent, "ParentCycle"),
        ("ring-1", json!({"parent": "ring-2", "nodeSelector": {"matchLabels": {"a": "c"}}}), parent, "ParentCycle"),
        (
            "host",
            json!({"parent": "hub", "storage": {"path": "/etc"}, "nodeSelector": {"matchLabels": {"a": "b"}}}),
            "spec.storage.path",
            "StoragePathNotAllowed",
        ),
        (
            "limit",
            json!({"parent": "hub", "storage": {"limit": "16Ei"}, "nodeSelector": {"matchLabels": {"a": "b"}}}),
            "spec.storage.limit",
            "InvalidQuantity",
        ),
        ("nodeless", json!({"parent": "hub"}), "spec.nodeSelector", "NodesNotSelected"),
        ("bits", json!({"parent": "hub", "subnets": ["10.9.0.1/24"]}), "spec.subnets[0]", "InvalidSubnet"),
        (
            "label",
            json!({"parent": "hub", "nodeSelector": {"matchLabels": {"a b": "c"}}}),
            "spec.nodeSelector.matchLabels",
            "InvalidLabel",
        ),
        ("overlap", json!({"parent": "hub", "subnets": ["10.42.0.0/16"]}), "spec.subnets", "NodeInTwoOffices"),
        (
            "thief",
            json!({"parent": "hub", "nodeSelector": {"matchLabels": {"site": "hub"}}}),
            "spec.nodeSelector",
            "NodeInTwoOffices",
        ),
        (
            "below",
            json!({"parent": "orphan", "nodeSelector": {"matchLabels": {"a": "b"}}}),
            parent,
            "ParentNotAccepted",
        ),
    ] {
        scene.apply_office(name, spec).await?;
        scene.office_is_refused(name, field, reason).await?;
    }
    let (uri, labels) = ("spec.source.uri", "spec.offices.matchLabels");
    for (name, source, offices, field, reason) in [
        ("file", "file:///etc/passwd", json!({}), uri, "FileSourceNotAllowed"),
        ("scheme", "s3://bucket/key", json!({}), uri, "UnsupportedScheme"),
        ("password", "https://a:b@example.com/x", json!({}), uri, "CredentialsInUri"),
        ("nobody", "https://example.com/x", json!({"matchLabels": {"region": "moon"}}), labels, "NoOfficeSelected"),
    ] {
        let spec = json!({"version": "1", "source": {"uri": source}, "offices": offices});
        scene.apply_package(name, spec).await?;
        scene.package_is_refused(name, field, reason).await?;
    }
    for moment in ["9999-12-31T23:59:59Z", "2026-12-01T00:00:00+99:00"] {
        let source = json!({"uri": "https://example.com/x"});
        let spec = json!({"version": "1", "source": source, "schedule": {"notBefore": moment}});
        scene.apply_package("never", spec).await?;
        scene.package_is_refused("never", "spec.schedule.notBefore", "InvalidTime").await?;
    }
    let writes = scene.settled().await?;
    let elsewhere: Vec<_> = writes.iter().filter(|write| !is_word(&write.resource)).collect();
    assert!(elsewhere.is_empty(), "only statuses and events are written: {elsewhere:?}");
    assert_eq!(versions(&scene).await?, before);
    a_bad_edit_of_the_central_office_promotes_no_other(&scene).await?;
    a_node_of_two_offices_goes_to_the_first(&scene).await?;
    operator.stop().await?;
    // One that begins with all of them there works too.
    let successor = scene.operator("successor", "example/peerdist:1").await?;
    scene.apply_package("later", json!({"version": "1", "source": {"uri": "s3://bucket/key"}})).await?;
    scene.package_says("later", "Accepted", "False", "UnsupportedScheme").await?;
    successor.stop().await
}

async fn a_bad_edit_of_the_central_office_promotes_no_other(scene: &Scene) -> Result<()> {
    let hub = |path: &str| json!({"nodeSelector": {"matchLabels": {"site": "hub"}}, "storage": {"path": path}});
    scene.apply_office("hub", hub("/etc")).await?;
    scene.office_says("hub", "Accepted", "False", "StoragePathNotAllowed").await?;
    scene.office_says("store", "Accepted", "False", "ParentNotAccepted").await?;
    scene.office_says("second", "Accepted", "False", "SecondCentralOffice").await?;
    let servers: Api<StatefulSet> = Api::namespaced(scene.hand.client.clone(), NAMESPACE);
    let owners = servers.get("peerdist-server").await?.metadata.owner_references.unwrap_or_default();
    assert_eq!(owners.iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>(), ["hub"]);
    scene.apply_office("hub", hub("/var/lib/peerdist")).await?;
    scene.office_says("hub", "Accepted", "True", "Valid").await?;
    scene.office_says("store", "Accepted", "True", "Valid").await
}

async fn a_node_of_two_offices_goes_to_the_first(scene: &Scene) -> Result<()> {
    let nodes: Api<Node> = Api::all(scene.hand.client.clone());
    let label = json!({"metadata": {"labels": {"site": "hub"}}});
    nodes.patch("till-1", &PatchParams::default(), &Patch::Merge(label)).await?;
    scene.office_says("store", "Accepted", "False", "NodeInTwoOffices").await?;
    eventually("only the other till stays with the store", async || {
        let office = async |name| {
            let node = nodes.get(name).await?;
            Ok::<_, kube::Error>(node.labels().get("peerdist.io/assigned-office").cloned())
        };
        Ok(office("till-1").await?.is_none() && office("till-2").await?.as_deref() == Some("store"))
    })
    .await
}

/// By the schema and its rules, before any operator sees them.
async fn refused_at_once(scene: &Scene) -> Result<()> {
    let selector = json!({"matchLabels": {"a": "b"}});
    for (name, spec, expected) in [
        ("own", json!({"parent": "own", "nodeSelector": selector}), "its own parent"),
        ("vpn", json!({"type": "VPN", "nodeSelector": selector}), "needs a parent"),
        ("both", json!({"parent": "hub", "nodeSelector": selector, "subnets": ["10.0.0.0/8"]}), "either"),
        ("words", json!({"parent": "hub", "subnets": ["10.0.0.0/99"]}), "prefix length"),
        ("pattern", json!({"parent": "hub", "subnets": ["ten/8"]}), "spec.subnets"),
        ("none", json!({"parent": "hub", "subnets": []}), "spec.subnets"),
        ("empty", json!({"parent": "hub", "nodeSelector": {"matchLabels": {}}}), "matchLabels"),
        ("kind", json!({"type": "Lan", "nodeSelector": selector}), "spec.type"),
        ("path", json!({"parent": "hub", "storage": {"path": "x"}}), "spec.storage.path"),
        ("unknown", json!({"parent": "hub", "subnet": "10.0.0.0/8"}), "spec.subnet"),
        (
            "negative",
            json!({"parent": "hub", "subnets": ["10.9.0.0/16"], "storage": {"limit": -1}}),
            "spec.storage.limit",
        ),
        (
            "wordless",
            json!({"parent": "hub", "subnets": ["10.9.0.0/16"], "storage": {"limit": "Gi"}}),
            "spec.storage.limit",
        ),
    ] {
        names(scene.apply_office(name, spec).await, expected).with_context(|| name.to_owned())?;
    }
    for (name, spec, expected) in [
        ("current", json!({"version": "current", "source": {"uri": "https://a/b"}}), "active version"),
        ("slash", json!({"version": "a/b", "source": {"uri": "https://a/b"}}), "spec.version"),
        ("digest", json!({"version": "1", "source": {"uri": "https://a/b", "digest": "md5:1"}}), "spec.source.digest"),
        ("zero", json!({"version": "1", "source": {"uri": "https://a/b"}, "retention": {"versions": 0}}), "versions"),
        ("bare", json!({"version": "1"}), "spec.source"),
        (
            "secret",
            json!({"version": "1", "source": {"uri": "file:///x", "secretRef": {"name": "repo"}}}),
            "spec.source.secretRef",
        ),
    ] {
        names(scene.apply_package(name, spec).await, expected).with_context(|| name.to_owned())?;
    }
    let vesc = object("VescEndpoint", "hq", json!({"address": "not an address"}));
    names(scene.hand.apply(&scene.vescs, vesc).await, "spec.address")
}

/// It was refused, and the answer has these words.
fn names<K>(answer: Result<K, kube::Error>, expected: &str) -> Result<()> {
    let error = answer.err().context("accepted")?.to_string();
    ensure!(error.contains(expected), "expected {expected}: {error}");
    Ok(())
}

/// By the rules of updates: what a version holds changes together with the version, and everything else at any time.
async fn edits_refused_at_once(scene: &Scene) -> Result<()> {
    let form = |file: &str, digest: Option<&str>, unpack: &str| {
        let digest = digest.map(|digit| format!("sha256:{}", digit.repeat(64)));
        let mut source = json!({"uri": format!("https://example.com/{file}")});
        if let Some(digest) = digest {
            source["digest"] = json!(digest);
        }
        json!({"version": "1", "source": source, "unpack": unpack})
    };
    for (before, mut after, field) in [
        (form("a", Some("a"), "Auto"), form("b", Some("a"), "Auto"), "spec.source.uri"),
        (form("a", Some("a"), "Auto"), form("a", Some("b"), "Auto"), "spec.source.digest"),
        (form("a", Some("a"), "Auto"), form("a", None, "Auto"), "spec.source.digest"),
        (form("a", None, "Auto"), form("a", Some("a"), "Auto"), "spec.source.digest"),
        (form("a", None, "Auto"), form("a", None, "None"), "spec.unpack"),
        (form("a", None, "None"), form("a", None, "Auto"), "spec.unpack"),
    ] {
        scene.apply_package("edited", before).await?;
        let error = scene.apply_package("edited", after.clone()).await.err();
        let error = error.with_context(|| format!("accepted without a new version: {after}"))?.to_string();
        let is_told = |field: &&str| error.contains(&format!("{field} changes only together with spec.version"));
        let told: Vec<&str> = KEPT_BY_A_VERSION.into_iter().filter(is_told).collect();
        ensure!(told == [field], "expected {field} alone for {after}: {error}");
        after["version"] = json!("2");
        scene.apply_package("edited", after).await.with_context(|| format!("{field} with a new version"))?;
    }
    let mut free = form("a", None, "Auto");
    scene.apply_package("edited", free.clone()).await?;
    for (field, value) in [
        ("offices", json!({"matchLabels": {"region": "moon"}})),
        ("priority", json!("High")),
        ("schedule", json!({"notBefore": "2026-12-01T22:00:00Z"})),
        ("rollout", json!({"paused": true})),
        ("retention", json!({"versions": 3})),
        ("source", json!({"uri": "https://example.com/a", "secretRef": {"name": "repo"}})),
    ] {
        free[field] = value;
        scene.apply_package("edited", free.clone()).await.with_context(|| format!("{field} without a new version"))?;
    }
    Ok(())
}

fn is_word(resource: &str) -> bool {
    resource.ends_with("/status") || resource == "events"
}

async fn versions(scene: &Scene) -> Result<Vec<(Value, Value)>> {
    let api: Api<DaemonSet> = Api::namespaced(scene.hand.client.clone(), NAMESPACE);
    let sets = api.list(&Default::default()).await?;
    Ok(sets.into_iter().map(|set| (json!(set.metadata.name), json!(set.metadata.resource_version))).collect())
}
