//! A control plane with three nodes, and the processes that pods would be: an operator, the server, a client a node.

mod programs;
mod refusals;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use peerdist_crds::names::{TRUST, TRUST_KEY, client_objects};
use peerdist_crds::{Office, PackageDistribution};
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE, object};
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::programs::{peerdist, start_operator, start_server, token};
use crate::mount::mount;
use crate::{rights, writes};

/// Where the server runs.
const SERVER: &str = "127.81.0.1";
/// Where the operator puts what the server needs to be one.
pub(crate) const SERVER_IDENTITY: &str = "peerdist-server-identity";

/// A node of the cluster.
pub(crate) struct SiteNode {
    pub(crate) name: &'static str,
    office: &'static str,
    address: &'static str,
}

/// One node of the hub and two of the store.
pub(crate) const NODES: [SiteNode; 3] = [
    SiteNode { name: "hub-1", office: "hub", address: "127.81.1.1" },
    SiteNode { name: "till-1", office: "store", address: "127.81.2.1" },
    SiteNode { name: "till-2", office: "store", address: "127.81.2.2" },
];

/// Everything that runs.
pub(crate) struct Site {
    // Ended in this order.
    clients: BTreeMap<&'static str, Process>,
    server: Process,
    stop: CancellationToken,
    operator: JoinHandle<Result<()>>,
    hand: Hand,
    folder: TempDir,
    plane: ControlPlane,
}

impl Site {
    /// Starts it all, up to offices that are ready and nodes that are enrolled.
    pub(crate) async fn start(origin: IpAddr) -> Result<Self> {
        Self::start_behind(origin, None).await
    }

    /// The same with a store that has a thin link to the hub.
    pub(crate) async fn start_behind(origin: IpAddr, bits_per_second_max: Option<&str>) -> Result<Self> {
        let (plane, folder) = (ControlPlane::start().await?, tempfile::tempdir()?);
        let hand = Hand { client: plane.admin().await? };
        hand.install().await?;
        rights::install(&hand.client).await?;
        for node in &NODES {
            hand.add_node(node.name, ("site", node.office), node.address).await?;
        }
        let stop = CancellationToken::new();
        let operator = start_operator(&plane, &hand, &stop).await?;
        apply_office(&hand, "hub", json!({})).await?;
        apply_office(&hand, "store", store(bits_per_second_max)).await?;
        eventually("accounts of server and offices", async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(hand.client.clone(), NAMESPACE);
            let names: Vec<String> =
                accounts.list(&Default::default()).await?.iter().map(|one| one.name_any()).collect();
            Ok(["peerdist-server", "peerdist-office-hub", "peerdist-office-store"]
                .iter()
                .all(|name| names.iter().any(|one| one == name)))
        })
        .await?;
        mount(
            Api::<Secret>::namespaced(hand.client.clone(), NAMESPACE),
            SERVER_IDENTITY,
            &folder.path().join("identity"),
        )
        .await?;
        let server = start_server(&plane, &hand, folder.path(), origin).await?;
        let mut site = Self { clients: BTreeMap::new(), server, stop, operator, hand, folder, plane };
        site.start_clients().await?;
        Ok(site)
    }

    /// Edits the thin link.
    pub(crate) async fn set_link(&self, bits_per_second_max: &str) -> Result<()> {
        apply_office(&self.hand, "store", store(Some(bits_per_second_max))).await
    }

    async fn start_clients(&mut self) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.hand.client.clone(), NAMESPACE);
        mount(maps, TRUST, &self.folder.path().join("trust")).await?;
        fs::write(self.folder.path().join("server"), SERVER)?;
        for node in &NODES {
            self.make_pod(node).await?;
            let token = self.token(&client_objects(node.office), Some(node.name), "peerdist").await?;
            let client = self.start_client(node, &token)?;
            self.clients.insert(node.name, client);
        }
        for (office, nodes) in [("hub", 1), ("store", 2)] {
            self.hand.report_daemon_set(&client_objects(office), nodes).await?;
        }
        Ok(())
    }

    /// The pod that a client would be: its token is bound to it.
    async fn make_pod(&self, node: &SiteNode) -> Result<()> {
        let pod = json!({
            "metadata": {"name": node.name},
            "spec": {
                "nodeName": node.name, "serviceAccountName": client_objects(node.office),
                "containers": [{"name": "client", "image": "peerdist"}],
            },
        });
        let pods: Api<Pod> = Api::namespaced(self.hand.client.clone(), NAMESPACE);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    /// A token of a service account, bound to a pod if one is named.
    pub(crate) async fn token(&self, account: &str, pod: Option<&str>, audience: &str) -> Result<String> {
        token(&self.hand, account, pod, audience).await
    }

    fn start_client(&self, node: &SiteNode, token: &str) -> Result<Process> {
        let file = self.folder.path().join(format!("token-{}", node.name));
        fs::write(&file, token)?;
        let path = |name: &str| self.folder.path().join(name);
        let arguments = [
            ("--server-file", path("server")),
            ("--trust-file", path("trust").join(TRUST_KEY)),
            ("--join-token-file", file),
            ("--address", node.address.into()),
            ("--office", node.office.into()),
            ("--node", node.name.into()),
            ("--root", self.root(node.name)),
        ];
        let mut command = peerdist("client")?;
        arguments.iter().for_each(|(flag, value)| {
            command.arg(flag).arg(value);
        });
        Process::start(command, &path(&format!("{}.log", node.name)))
    }

    /// Ends a client as kubelet does, and starts it anew with a token that enrols nobody.
    pub(crate) async fn restart_client_without_token(&mut self, node: &SiteNode) -> Result<()> {
        let mut client = self.clients.remove(node.name).context("a client")?;
        client.terminate()?;
        eventually(&format!("{} ends", node.name), async || Ok(client.ended()?.is_some())).await?;
        let client = self.start_client(node, "spent.spent.spent")?;
        self.clients.insert(node.name, client);
        Ok(())
    }

    /// Starts a client anew with a good token and nothing on its disk.
    pub(crate) async fn start_client_from_nothing(&mut self, name: &'static str) -> Result<()> {
        let node = NODES.iter().find(|node| node.name == name).context("a node")?;
        drop(self.clients.remove(name));
        fs::remove_dir_all(self.root(name))?;
        let token = self.token(&client_objects(node.office), Some(node.name), "peerdist").await?;
        let client = self.start_client(node, &token)?;
        self.clients.insert(name, client);
        Ok(())
    }

    /// Secrets of the installation.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.hand.client.clone(), NAMESPACE)
    }

    /// The administrator's client.
    pub(crate) fn administrator(&self) -> Client {
        self.hand.client.clone()
    }

    /// The digests of the roots that clients are told to trust, as they read them.
    pub(crate) fn trusted_roots(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join("trust").join(TRUST_KEY))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// All that the server logged.
    pub(crate) fn server_log(&self) -> Result<String> {
        self.server.log()
    }

    /// All that a client logged.
    pub(crate) fn client_log(&self, name: &str) -> Result<String> {
        self.clients.get(name).context("a client")?.log()
    }

    /// What `peerdist status` says to who has this token.
    pub(crate) fn status(&self, token: &str) -> Result<Output> {
        let file = self.folder.path().join("token-status");
        fs::write(&file, token)?;
        let mut command = peerdist("status")?;
        command.arg("--server").arg(format!("http://{SERVER}:9760")).arg("--token-file").arg(file);
        Ok(command.args(["--output", "json"]).output()?)
    }

    pub(crate) fn packages(&self) -> Api<PackageDistribution> {
        Api::namespaced(self.hand.client.clone(), "retail")
    }

    pub(crate) async fn apply_package(&self, name: &str, spec: Value) -> Result<()> {
        self.hand.apply(&self.packages(), object("PackageDistribution", name, spec)).await?;
        Ok(())
    }

    pub(crate) async fn package(&self, name: &str) -> Result<PackageDistribution> {
        Ok(self.packages().get(name).await?)
    }

    /// Waits for a condition of this generation to be true.
    pub(crate) async fn package_is(&self, name: &str, kind: &str) -> Result<()> {
        let (mut last, wanted) = (Value::Null, format!("{name} is {kind}"));
        let found = eventually(&wanted, async || {
            let package = self.package(name).await?;
            last = json!(package.status);
            let conditions = package.status.map(|status| status.conditions).unwrap_or_default();
            let generation = package.metadata.generation;
            Ok(conditions
                .iter()
                .any(|one| one.type_ == kind && one.status == "True" && one.observed_generation == generation))
        })
        .await;
        found.with_context(|| format!("{last:#}\nserver:\n{}", self.server.last_lines()))
    }

    pub(crate) fn root(&self, node: &str) -> PathBuf {
        self.folder.path().join("roots").join(node)
    }

    /// The one file of a published package.
    pub(crate) fn published(&self, node: &str, package: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.root(node).join("packages").join(package).join("app.bin"))?)
    }

    /// What the API server was asked.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.plane.audit_log()
    }

    /// Ends the operator. In none of the tests may a status have been written sooner than a second after the last time.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.operator.await??;
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
