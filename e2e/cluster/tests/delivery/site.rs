//! An installation on a control plane with three nodes, and the processes that pods would be: the server and a client a
//! node.

mod installation;
mod programs;
mod refusals;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Client;
use kube::api::{Api, PostParams};
use peerdist_crds::PackageDistribution;
use peerdist_crds::names::{TRUST, TRUST_KEY, client_objects};
use peerdist_e2e_cluster::objects::{NAMESPACE, object};
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

pub(crate) use self::installation::{Installation, SiteOptions};
use self::programs::{end, peerdist, start_server, token};
use crate::mount::mount;

/// Where the server runs.
const SERVER: &str = "127.81.0.1";
/// Where the operator puts what the server needs to be one.
pub(crate) const SERVER_IDENTITY: &str = "peerdist-server-identity";

/// A node of the cluster.
pub(crate) struct SiteNode {
    pub(crate) name: &'static str,
    pub(crate) office: &'static str,
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
    installation: Installation,
}

impl Site {
    /// Starts it all, up to offices that are ready and nodes that are enrolled.
    pub(crate) async fn start(origin: IpAddr) -> Result<Self> {
        Self::start_with(origin, SiteOptions::default()).await
    }

    /// The same, as the options say.
    pub(crate) async fn start_with(origin: IpAddr, options: SiteOptions) -> Result<Self> {
        Self::start_in(Installation::start(options).await?, origin).await
    }

    /// Starts the pods of an installation once the server can have its identity.
    pub(crate) async fn start_in(installation: Installation, origin: IpAddr) -> Result<Self> {
        mount(installation.secrets(), SERVER_IDENTITY, &installation.path("identity")).await?;
        let server = start_server(&installation, origin).await?;
        let mut site = Self { clients: BTreeMap::new(), server, installation };
        site.start_clients().await?;
        Ok(site)
    }

    /// Edits the thin link.
    pub(crate) async fn set_link(&self, bits_per_second_max: &str) -> Result<()> {
        self.installation.set_link(bits_per_second_max).await
    }

    async fn start_clients(&mut self) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.administrator(), NAMESPACE);
        mount(maps, TRUST, &self.installation.path("trust")).await?;
        fs::write(self.installation.path("server"), SERVER)?;
        for node in &NODES {
            self.make_pod(node).await?;
            let token = self.token(&client_objects(node.office), Some(node.name), "peerdist").await?;
            let client = self.start_client(node, &token)?;
            self.clients.insert(node.name, client);
        }
        for (office, nodes) in [("hub", 1), ("store", 2)] {
            self.installation.hand.report_daemon_set(&client_objects(office), nodes).await?;
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
        let pods: Api<Pod> = Api::namespaced(self.administrator(), NAMESPACE);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    /// A token of a service account, bound to a pod if one is named.
    pub(crate) async fn token(&self, account: &str, pod: Option<&str>, audience: &str) -> Result<String> {
        token(&self.installation.hand, account, pod, audience).await
    }

    fn start_client(&self, node: &SiteNode, token: &str) -> Result<Process> {
        let path = |name: &str| self.installation.path(name);
        let file = path(&format!("token-{}", node.name));
        fs::write(&file, token)?;
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
        command.envs(self.installation.options.variables());
        arguments.iter().for_each(|(flag, value)| {
            command.arg(flag).arg(value);
        });
        Process::start(command, &path(&format!("{}.log", node.name)))
    }

    /// Ends a client as kubelet does, and starts it anew with a fresh token of its pod.
    pub(crate) async fn restart_client(&mut self, node: &SiteNode) -> Result<()> {
        end(self.clients.get_mut(node.name).context("a client")?, node.name).await?;
        let token = self.token(&client_objects(node.office), Some(node.name), "peerdist").await?;
        let client = self.start_client(node, &token)?;
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
        self.installation.secrets()
    }

    /// Reports what controllers and kubelet would about the server.
    pub(crate) async fn report_server(&self) -> Result<()> {
        self.installation.hand.report_server(SERVER).await
    }

    /// The administrator's client.
    pub(crate) fn administrator(&self) -> Client {
        self.installation.hand.client.clone()
    }

    /// The digests of the roots that clients are told to trust, as they read them.
    pub(crate) fn trusted_roots(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.installation.path("trust").join(TRUST_KEY))?;
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
        let file = self.installation.path("token-status");
        fs::write(&file, token)?;
        let mut command = peerdist("status")?;
        command.arg("--server").arg(format!("http://{SERVER}:9760")).arg("--token-file").arg(file);
        Ok(command.args(["--output", "json"]).output()?)
    }

    pub(crate) fn packages(&self) -> Api<PackageDistribution> {
        Api::namespaced(self.administrator(), "retail")
    }

    pub(crate) async fn apply_package(&self, name: &str, spec: Value) -> Result<()> {
        self.installation.hand.apply(&self.packages(), object("PackageDistribution", name, spec)).await?;
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
        self.installation.path("roots").join(node)
    }

    /// The one file of a published package.
    pub(crate) fn published(&self, node: &str, package: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.root(node).join("packages").join(package).join("app.bin"))?)
    }

    /// What the API server was asked.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.installation.plane.audit_log()
    }

    /// Ends the operator, and looks at all that was written.
    pub(crate) async fn stop(self) -> Result<()> {
        self.installation.stop().await
    }
}
