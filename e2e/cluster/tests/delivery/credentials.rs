//! A source that asks for credentials, from the first refusal to the package: what the server says, what the administrator
//! does about it, and that the server finds it without an edit of the object.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use peerdist_e2e_cluster::objects::NAMESPACE;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::json;

use crate::origin::{Origin, PASSWORD, USERNAME};
use crate::site::{NODES, Site};

/// Name and password as HTTP sends them.
const SENT: &str = "Y2k6c2V2ZW4tZHdhcmZz";

/// Namespace of the packages.
const PACKAGES: &str = "retail";

pub(crate) async fn source_gets_its_credentials_when_the_server_may_read_them(
    site: &Site,
    origin: &Origin,
) -> Result<()> {
    let source = json!({"uri": origin.guarded_url(), "secretRef": {"name": "repo"}});
    site.apply_package("guarded", json!({"version": "1", "source": source})).await?;
    not_ingested_because(site, "SecretForbidden").await?;
    let conditions = site.package("guarded").await?.status.unwrap_or_default().conditions;
    let told = conditions.iter().find(|one| one.type_ == "Ingested").context("a condition")?;
    let command = "--serviceaccount=peerdist:peerdist-server";
    ensure!(told.message.contains("create role") && told.message.ends_with(command), "{}", told.message);

    allow(site).await?;
    not_ingested_because(site, "SecretNotFound").await?;
    let secrets: Api<Secret> = Api::namespaced(site.administrator(), PACKAGES);
    let secret = json!({
        "metadata": {"name": "repo"},
        "type": "kubernetes.io/basic-auth",
        "stringData": {"username": USERNAME, "password": PASSWORD},
    });
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    site.package_is("guarded", "Ready").await?;
    for node in NODES {
        let published = site.published(node.name, "retail/guarded/current")?;
        ensure!(published == origin.content(), "{}: the published file differs", node.name);
    }
    let log = site.server_log()?;
    ensure!(!log.contains(PASSWORD) && !log.contains(SENT), "the server logged a password");
    Ok(())
}

async fn not_ingested_because(site: &Site, reason: &str) -> Result<()> {
    eventually(&format!("the condition says {reason}"), async || {
        let conditions = site.package("guarded").await?.status.unwrap_or_default().conditions;
        Ok(conditions.iter().any(|one| one.type_ == "Ingested" && one.status == "False" && one.reason == reason))
    })
    .await
}

/// What the command in the message does, and what the chart does for `server.secretNamespaces`.
async fn allow(site: &Site) -> Result<()> {
    let name = "peerdist-secrets";
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
    let role: Role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": [rule]}))?;
    let subject = json!({"kind": "ServiceAccount", "name": "peerdist-server", "namespace": NAMESPACE});
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let binding: RoleBinding =
        serde_json::from_value(json!({"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}))?;
    Api::namespaced(site.administrator(), PACKAGES).create(&PostParams::default(), &role).await?;
    Api::namespaced(site.administrator(), PACKAGES).create(&PostParams::default(), &binding).await?;
    Ok(())
}
