//! A control plane with three nodes, and the processes that pods would be: an operator, the server, a client a node.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use peerdist_authority::sha256;
use peerdist_crds::names::{TRUST, TRUST_KEY, client_objects};
use peerdist_crds::{Office, PackageDistribution};
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE, object};
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_operator::run::Operator;
use peerdist_operator::settings::Settings;
use peerdist_operator::storage::StoragePrefixes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::mount::mount;
use crate::rights;

/// Where the server runs.
const SERVER: &str = "127.81.0.1";
/// Pause before an operator that ended is followed by another.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
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
        for (name, parent) in [("hub", None), ("store", Some("hub"))] {
            let mut spec = json!({"nodeSelector": {"matchLabels": {"site": name}}});
            if let Some(parent) = parent {
                spec["parent"] = json!(parent);
                bits_per_second_max.inspect(|most| spec["uplink"] = json!({"backgroundMaxBitsPerSecond": most}));
            }
            hand.apply(&Api::<Office>::all(hand.client.clone()), object("Office", name, spec)).await?;
        }
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

    /// Ends all clients, and starts them anew with tokens that enrol nobody.
    pub(crate) fn restart_clients_without_tokens(&mut self) -> Result<()> {
        for node in &NODES {
            drop(self.clients.remove(node.name));
            let client = self.start_client(node, "spent.spent.spent")?;
            self.clients.insert(node.name, client);
        }
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

    /// The digests of the roots that a node trusts.
    pub(crate) fn trusted_by(&self, node: &str) -> Result<Vec<String>> {
        let stored = fs::read(self.root(node).join("identity/root.der"))?;
        let mut rest = stored.as_slice();
        let mut digests = Vec::new();
        // A certificate is a sequence, and says its length in two bytes.
        while let [0x30, 0x82, high, low, ..] = rest {
            let (root, after) = rest
                .split_at_checked(4 + usize::from(u16::from_be_bytes([*high, *low])))
                .context("a whole certificate")?;
            digests.push(sha256(root).iter().map(|byte| format!("{byte:02x}")).collect());
            rest = after;
        }
        Ok(digests)
    }

    /// All that the server logged.
    pub(crate) fn server_log(&self) -> Result<String> {
        self.server.log()
    }

    /// All that a client logged.
    pub(crate) fn client_log(&self, name: &str) -> Result<String> {
        self.clients.get(name).context("a client")?.log()
    }

    /// Starts the client anew with another token and nothing on its disk, and waits for the server's words.
    pub(crate) async fn expect_refusal(&mut self, name: &'static str, token: &str, said: &str) -> Result<()> {
        let node = NODES.iter().find(|node| node.name == name).context("a node")?;
        drop(self.clients.remove(name));
        fs::remove_dir_all(self.root(name))?;
        let before = self.server.log()?.len();
        let client = self.start_client(node, token)?;
        let server = &self.server;
        eventually(&format!("the server refuses {name}: {said}"), async || {
            let log = server.log()?;
            Ok(log[before..].lines().any(|line| line.contains("enrolment refused") && line.contains(said)))
        })
        .await?;
        ensure!(!self.root(name).join("identity/enrolment").exists(), "{name} has a certificate");
        self.clients.insert(name, client);
        Ok(())
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

    /// Most writes of the server to the status of an object within one second of the clock, by the audit log.
    pub(crate) fn status_writes_a_second(&self, name: &str) -> Result<usize> {
        let log = fs::read_to_string(self.plane.audit_log())?;
        let mut seconds: BTreeMap<String, usize> = BTreeMap::new();
        for line in log.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            let is_write = entry["verb"] == "patch" && entry["objectRef"]["subresource"] == "status";
            let by_server = entry["user"]["username"] == "system:serviceaccount:peerdist:peerdist-server";
            if is_write && by_server && entry["objectRef"]["name"] == name {
                let time = entry["requestReceivedTimestamp"].as_str().unwrap_or_default();
                *seconds.entry(time.split('.').next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        ensure!(!seconds.is_empty(), "the server never wrote a status of {name}");
        Ok(seconds.into_values().max().unwrap_or_default())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.operator.await?
    }
}

/// As a Deployment would: an operator that ends without being told, for example because it could not renew its Lease in
/// time, is followed by another.
async fn start_operator(plane: &ControlPlane, hand: &Hand, stop: &CancellationToken) -> Result<JoinHandle<Result<()>>> {
    let token = token(hand, "peerdist-operator", None, "https://kubernetes.default.svc").await?;
    let (config, stop) = (plane.config(&token).await?, stop.clone());
    Ok(tokio::spawn(async move {
        let mut number = 0;
        loop {
            number += 1;
            let operator = Operator {
                config: config.clone(),
                settings: Settings::parse(
                    "image: example/peerdist:1\nserver: {storage: {hostPath: /var/lib/peerdist-server}}",
                )?,
                namespace: NAMESPACE.to_owned(),
                lease_namespace: "kube-system".to_owned(),
                lease_name: "peerdist-operator".to_owned(),
                storage_prefixes: StoragePrefixes::default(),
                identity: format!("operator-{number}"),
                http: TcpListener::bind("127.0.0.1:0").await?,
            };
            match operator.run(stop.clone()).await {
                Err(error) if !stop.is_cancelled() => {
                    eprintln!("the operator ended and is followed by another: {error}")
                }
                ended => return Ok(ended?),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }))
}

async fn start_server(plane: &ControlPlane, hand: &Hand, folder: &Path, origin: IpAddr) -> Result<Process> {
    let token = token(hand, "peerdist-server", None, "https://kubernetes.default.svc").await?;
    let kubeconfig = folder.join("kubeconfig");
    fs::write(&kubeconfig, plane.kubeconfig_text(&token))?;
    let mut command = peerdist("server")?;
    command.env("KUBECONFIG", kubeconfig).args(["--kubernetes", "--address", SERVER]);
    command.arg("--allowed-sources").arg(format!("{origin}/32"));
    command.arg("--authority").arg(folder.join("identity"));
    command.arg("--root").arg(folder.join("library")).arg("--join-token-file").arg(folder.join("join-token"));
    Process::start(command, &folder.join("server.log"))
}

async fn token(hand: &Hand, account: &str, pod: Option<&str>, audience: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(hand.client.clone(), NAMESPACE);
    let bound = pod.map(|pod| json!({"apiVersion": "v1", "kind": "Pod", "name": pod}));
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [audience], "boundObjectRef": bound}}))?;
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let status = made.with_context(|| format!("a token of {account}"))?.status.context("a token")?;
    status.token.context("a token")
}

/// Beside this program, where the build put it.
fn peerdist(role: &str) -> Result<Command> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(Path::parent).context("a target folder")?.join("peerdist");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask e2e cluster`", program.display());
    let mut command = Command::new(program);
    command.arg(role);
    Ok(command)
}
