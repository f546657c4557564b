//! A root that somebody else keeps in a Secret, as cert-manager does: what the Central Office says while there is none or
//! a wrong one, that packages arrive under it, and that another one in its place is trusted besides.

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use peerdist_crds::Office;
use peerdist_e2e_cluster::waiting::eventually;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
};
use serde_json::json;

use crate::origin::Origin;
use crate::site::{Installation, NODES, SERVER_IDENTITY, Site, SiteOptions};
use crate::trust::{ENROLLED, count_in_log, digest, learns, server_follows, trusted_by, trusts};

/// Size of the package.
const PACKAGE_BYTES: usize = 1 << 20;
/// The Secret that somebody else keeps.
const ROOT_SECRET: &str = "company-root";

#[tokio::test(flavor = "multi_thread")]
async fn root_of_somebody_else_is_waited_for_used_and_followed_when_it_is_renewed() -> Result<()> {
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let options = SiteOptions { root_secret: Some(ROOT_SECRET), ..SiteOptions::default() };
    let installation = Installation::start(options).await?;
    let (offices, secrets) = (installation.offices(), installation.secrets());
    let [first, second] = [Root::new()?, Root::new()?];

    let missing = "Secret company-root is missing: create it with the certificate and key of a root";
    central_office_says(&offices, "False", "RootSecretMissing", missing).await?;
    keep(&secrets, &first.certificate, &second.key).await?;
    let damaged = "Secret company-root: tls.key: expected the key of the certificate in tls.crt";
    central_office_says(&offices, "False", "IdentityDamaged", damaged).await?;
    ensure!(secrets.get_opt(SERVER_IDENTITY).await?.is_none(), "there is an identity without a root");

    keep(&secrets, &first.certificate, &first.key).await?;
    let mut site = Site::start_in(installation, origin.address()).await?;
    site.report_server().await?;
    central_office_says(&offices, "True", "NodesReady", "").await?;
    arrives(&site, "1", &origin.url(), origin.content()).await?;
    let [old, new] = [&first, &second].map(|root| digest(root.certificate.der()));
    assert_eq!(site.trusted_roots()?, [old.as_str()]);
    for node in &NODES {
        assert_eq!(trusted_by(&site, node.name)?, [old.as_str()], "{}", node.name);
    }

    let enrolled = count_in_log(&site, ENROLLED)?;
    keep(&secrets, &second.certificate, &second.key).await?;
    trusts(&site, "both roots", |roots| *roots == [old.as_str(), new.as_str()]).await?;
    server_follows(&site, 1).await?;
    // A client looks for other roots when it starts, and then every ten minutes.
    for node in &NODES {
        site.restart_client(node).await?;
        learns(&site, node.name, &new).await?;
        ensure!(trusted_by(&site, node.name)?.contains(&old), "{} trusts the former root no more", node.name);
    }
    arrives(&site, "2", &origin.other_url(), origin.other_content()).await?;
    assert_eq!(count_in_log(&site, ENROLLED)?, enrolled, "nobody enrolled again");

    let there = secrets.list(&ListParams::default()).await?;
    let names: Vec<String> = there.iter().map(|secret| secret.name_any()).collect();
    assert_eq!(names, [ROOT_SECRET, SERVER_IDENTITY], "the operator made no root of its own");
    site.stop().await
}

/// A root of a company: of another name and on another curve than ours.
struct Root {
    certificate: Certificate,
    key: KeyPair,
}

impl Root {
    fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "Company Root");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { certificate: parameters.self_signed(&key)?, key })
    }
}

/// Puts a certificate and a key into the Secret, whatever was there before, as cert-manager does when it renews.
async fn keep(secrets: &Api<Secret>, certificate: &Certificate, key: &KeyPair) -> Result<()> {
    let bytes = |text: String| ByteString(text.into_bytes());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": ROOT_SECRET},
        "data": {"tls.crt": bytes(certificate.pem()), "tls.key": bytes(key.serialize_pem())},
    });
    secrets.patch(ROOT_SECRET, &PatchParams::apply("keeper-of-roots").force(), &Patch::Apply(&secret)).await?;
    Ok(())
}

/// Waits until Ready of the Central Office has this status and reason, and a message that begins so.
async fn central_office_says(offices: &Api<Office>, status: &str, reason: &str, begins: &str) -> Result<()> {
    let mut last = None;
    let found = eventually(&format!("Office hub: Ready {status} {reason}: {begins}"), async || {
        let office = offices.get("hub").await?;
        let generation = office.metadata.generation;
        let conditions = office.status.map(|shown| shown.conditions).unwrap_or_default();
        last = conditions.into_iter().find(|one| one.type_ == "Ready" && one.observed_generation == generation);
        Ok(last
            .as_ref()
            .is_some_and(|ready| ready.status == status && ready.reason == reason && ready.message.starts_with(begins)))
    })
    .await;
    found.with_context(|| format!("{last:?}"))
}

/// Waits until a version of the package is on every node as it should be.
async fn arrives(site: &Site, version: &str, url: &str, content: &[u8]) -> Result<()> {
    site.apply_package("app", json!({"version": version, "source": {"uri": url}})).await?;
    site.package_is("app", "Ready").await?;
    for node in &NODES {
        let published = site.published(node.name, "retail/app/current")?;
        ensure!(published == content, "{}: the published file of version {version} differs", node.name);
    }
    Ok(())
}
