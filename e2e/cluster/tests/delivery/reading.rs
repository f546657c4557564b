//! Who may read the server's API with a token of the cluster, by `peerdist status` as people call it.

use std::process::Output;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, PostParams};
use peerdist_e2e_cluster::objects::NAMESPACE;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use crate::site::Site;

/// Audience of tokens for the server's API.
const AUDIENCE: &str = "peerdist-api";
/// The account that reads.
const READER: &str = "reader";

/// A reader gets an answer once it has the right, with a token that is meant for this, and no sooner.
pub(crate) async fn only_who_has_the_right_reads(site: &Site) -> Result<()> {
    let client = site.packages().into_client();
    let account = serde_json::from_value(json!({"metadata": {"name": READER}}))?;
    Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &account).await?;
    let token = site.token(READER, None, AUDIENCE).await?;
    eventually("the reader is known and has no right", async || {
        let said = site.status(&token)?;
        Ok(refused(&said, "answered 403: system:serviceaccount:peerdist:reader may not get").is_ok())
    })
    .await?;

    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "status-of-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "peerdist-status-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": NAMESPACE}],
    }))?;
    Api::all(client).create(&PostParams::default(), &binding).await?;
    eventually("the reader gets the status", async || {
        let output = site.status(&token)?;
        let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) else { return Ok(false) };
        Ok(status["packages"].as_array().is_some_and(|packages| packages.iter().any(|one| one["name"] == "app")))
    })
    .await?;

    let for_kubernetes = site.token(READER, None, "https://kubernetes.default.svc").await?;
    refused(&site.status(&for_kubernetes)?, "answered 401: the token is not valid for the audience peerdist-api")?;
    refused(&site.status(&format!("{token}x"))?, "answered 401")?;
    ensure!(!site.server_log()?.contains(&token), "the server logged a token");
    Ok(())
}

fn refused(output: &Output, said: &str) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && message.contains(said), "expected {said:?}, got {message}");
    Ok(())
}
