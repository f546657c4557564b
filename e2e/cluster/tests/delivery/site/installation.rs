//! What is there before the first pod runs: a control plane with nodes, an operator with the rights that an installation
//! gives it, and two Offices.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::Api;
use peerdist_crds::Office;
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE, object, settings_text};
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_telemetry::ENDPOINT_VARIABLE;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::NODES;
use super::programs::{end, start_operator};
use crate::{rights, writes};

/// What an installation has that others have not.
#[derive(Debug, Clone, Default)]
pub(crate) struct SiteOptions {
    /// Most bits a second of the link between hub and store.
    pub(crate) link: Option<&'static str>,
    /// Secret with a root that somebody else keeps.
    pub(crate) root_secret: Option<&'static str>,
    /// Where every program sends its traces.
    pub(crate) traces: Option<String>,
}

impl SiteOptions {
    /// The operator's settings file.
    pub(super) fn settings(&self) -> String {
        let identity = self.root_secret.map(|name| format!("\nidentity: {{rootSecret: {name}}}"));
        settings_text("example/peerdist:1") + &identity.unwrap_or_default()
    }

    /// What every program finds in its environment.
    pub(super) fn variables(&self) -> Vec<(&str, &str)> {
        self.traces.iter().map(|endpoint| (ENDPOINT_VARIABLE, endpoint.as_str())).collect()
    }
}

/// Everything but pods.
pub(crate) struct Installation {
    pub(super) options: SiteOptions,
    // Ended in this order.
    stop: CancellationToken,
    operator: JoinHandle<Result<Process>>,
    pub(super) hand: Hand,
    folder: TempDir,
    pub(super) plane: ControlPlane,
}

impl Installation {
    /// Starts it, up to the accounts that the operator makes for server and clients.
    pub(crate) async fn start(options: SiteOptions) -> Result<Self> {
        let (plane, folder) = (ControlPlane::start().await?, tempfile::tempdir()?);
        let hand = Hand { client: plane.admin().await? };
        hand.install().await?;
        rights::install(&hand.client, options.root_secret).await?;
        for node in &NODES {
            hand.add_node(node.name, ("site", node.office), node.address).await?;
        }
        let stop = CancellationToken::new();
        let operator = start_operator(&plane, &hand, folder.path(), &options, &stop).await?;
        apply_office(&hand, "hub", json!({})).await?;
        apply_office(&hand, "store", store(options.link)).await?;
        let installation = Self { options, stop, operator, hand, folder, plane };
        installation.has_accounts().await?;
        Ok(installation)
    }

    async fn has_accounts(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.hand.client.clone(), NAMESPACE);
        eventually("accounts of server and offices", async || {
            let names: Vec<String> =
                accounts.list(&Default::default()).await?.iter().map(|one| one.name_any()).collect();
            Ok(["peerdist-server", "peerdist-office-hub", "peerdist-office-store"]
                .iter()
                .all(|name| names.iter().any(|one| one == name)))
        })
        .await
    }

    /// Where a file of the programs lies.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its Secrets.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.hand.client.clone(), NAMESPACE)
    }

    /// All Offices.
    pub(crate) fn offices(&self) -> Api<Office> {
        Api::all(self.hand.client.clone())
    }

    /// Edits the link.
    pub(super) async fn set_link(&self, bits_per_second_max: &str) -> Result<()> {
        apply_office(&self.hand, "store", store(Some(bits_per_second_max))).await
    }

    /// Ends the operator. In none of the tests may a status have been written sooner than a second after the last time.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let mut operator = self.operator.await??;
        end(&mut operator, "the operator").await?;
        let status = operator.ended()?;
        let last = operator.last_lines();
        ensure!(status.is_some_and(|status| status.success()), "the operator ended with {status:?}:\n{last}");
        writes::statuses_come_a_second_apart(&self.plane.audit_log())
    }
}

/// An Office of the nodes that are labelled with its name.
async fn apply_office(hand: &Hand, name: &str, mut spec: Value) -> Result<()> {
    spec["nodeSelector"] = json!({"matchLabels": {"site": name}});
    hand.apply(&Api::<Office>::all(hand.client.clone()), object("Office", name, spec)).await?;
    Ok(())
}

/// What the store has beside its nodes.
fn store(bits_per_second_max: Option<&str>) -> Value {
    let mut store = json!({"parent": "hub"});
    if let Some(most) = bits_per_second_max {
        store["uplink"] = json!({"backgroundMaxBitsPerSecond": most});
    }
    store
}
