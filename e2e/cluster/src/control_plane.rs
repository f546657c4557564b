//! etcd and kube-apiserver for one test: on loopback, or on the address of a host with nodes around it. Both end with the
//! value.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use peerdist_e2e_net::shell;
use rcgen::{KeyPair, SigningKey};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::process::Process;

/// How often a control plane is begun before a test gives up.
const PLANE_ATTEMPTS: u32 = 3;
/// Its program.
const API_SERVER: &str = "kube-apiserver";
/// The key by which it signs tokens of service accounts.
const ACCOUNTS_KEY: &str = "accounts.key";
/// Bytes of either number of a signature on P-256.
const SIGNATURE_NUMBER_BYTES: usize = 32;
/// How long the API server may take to become ready.
const START_ATTEMPTS: u32 = 300;
/// Pause between looks.
const START_PAUSE: Duration = Duration::from_millis(200);
/// Who may do everything: a test's own hand, and operators under names of their own for the audit log.
const TOKENS: &str = "admin-token,admin,1,system:masters\noperator-token,operator,2,system:masters\n\
                      first-token,first,3,system:masters\nsecond-token,second,4,system:masters\n";
/// Every request that was answered, without its content.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]\n";

/// A running control plane.
pub struct ControlPlane {
    address: Ipv4Addr,
    port: u16,
    arguments: Vec<String>,
    // Ended in this order, and the folder removed after them.
    api_server: Process,
    etcd: Process,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl ControlPlane {
    /// Starts both and waits until the API server is ready.
    ///
    /// # Errors
    /// When the programs cannot be built or do not become ready.
    pub async fn start() -> Result<Self> {
        let mut last = None;
        // Another one that starts at the same time may take a port that was free a moment ago.
        for _ in 0..PLANE_ATTEMPTS {
            let temporary = tempfile::tempdir()?;
            let [_, _, port] = free_ports()?;
            match Self::start_in(temporary.path(), Ipv4Addr::LOCALHOST, port, &[]).await {
                Ok(mut plane) => {
                    plane._temporary = Some(temporary);
                    return Ok(plane);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    /// The same in a folder that stays, on an address, for nodes that have tokens.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(folder: &Path, address: Ipv4Addr, port: u16, nodes: &[String]) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        binaries::link_into(folder)?;
        let [clients, peers, _] = free_ports()?;
        let etcd = start_etcd(folder, clients, peers)?;
        let arguments = prepare_api_server(folder, clients, address, port, nodes)?;
        let api_server = start_program(folder, API_SERVER, &arguments)?;
        let folder = folder.to_owned();
        let mut plane = Self { address, port, arguments, api_server, etcd, folder, _temporary: None };
        plane.wait_until_ready().await?;
        Ok(plane)
    }

    /// Kills the API server.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.kill()
    }

    /// Starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        self.api_server = start_program(&self.folder, API_SERVER, &self.arguments)?;
        self.wait_until_ready().await
    }

    /// How the operator reaches it.
    ///
    /// # Errors
    /// When the configuration cannot be read back.
    pub async fn operator_config(&self) -> Result<Config> {
        self.config("operator-token").await
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub async fn admin(&self) -> Result<Client> {
        Ok(Client::try_from(self.config("admin-token").await?)?)
    }

    /// The audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Where everything of it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file that tells a program how to reach it under a user's name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let path = self.folder().join(format!("{user}.kubeconfig"));
        fs::write(&path, self.kubeconfig_text(&format!("{user}-token")))?;
        Ok(path)
    }

    /// How whoever has this token reaches it.
    ///
    /// # Errors
    /// When the configuration cannot be read back.
    pub async fn config(&self, token: &str) -> Result<Config> {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig_text(token))?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// The same as a text for programs.
    pub fn kubeconfig_text(&self, token: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: 'https://{}:{}', \
             insecure-skip-tls-verify: true}}}}]\nusers: [{{name: a, user: {{token: {token}}}}}]\ncontexts: [{{name: a, context: \
             {{cluster: a, user: a, namespace: peerdist}}}}]\n",
            self.address, self.port
        )
    }

    /// The token of a service account with other claims, and signed as the API server signs.
    ///
    /// # Errors
    /// When it is no token of this control plane.
    pub fn token_with(&self, token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
        let key = KeyPair::from_pem(&fs::read_to_string(self.folder.join(ACCOUNTS_KEY))?)?;
        let [header, claims, _] =
            <[&str; 3]>::try_from(token.split('.').collect::<Vec<_>>()).ok().context("a token has three parts")?;
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        change(&mut claims);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = without_frame(&key.sign(signed.as_bytes())?).context("a signature on P-256")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.admin().await?;
        for _ in 0..START_ATTEMPTS {
            check(&mut self.etcd, "etcd")?;
            check(&mut self.api_server, "kube-apiserver")?;
            if is_ready(&client).await {
                return Ok(());
            }
            tokio::time::sleep(START_PAUSE).await;
        }
        bail!("kube-apiserver is not ready:\n{}", self.api_server.last_lines())
    }
}

async fn is_ready(client: &Client) -> bool {
    let default = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
    // The namespace is made by the API server itself, once it can write.
    matches!(default.get_opt("default").await, Ok(Some(_)))
}

/// The two numbers of a signature one after the other, as tokens have them; DER frames them and writes each as short as it
/// can, and with a zero where it would begin with a set bit.
fn without_frame(signature: &[u8]) -> Option<Vec<u8>> {
    let [0x30, _, rest @ ..] = signature else { return None };
    let (mut rest, mut numbers) = (rest, Vec::new());
    for _ in 0..2 {
        let [0x02, length, framed @ ..] = rest else { return None };
        let (number, after) = framed.split_at_checked(usize::from(*length))?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        numbers.resize(numbers.len() + SIGNATURE_NUMBER_BYTES.checked_sub(number.len())?, 0);
        numbers.extend_from_slice(number);
        rest = after;
    }
    Some(numbers)
}

/// Starts a program of Kubernetes that ends with the thread that starts it, also if the test is killed.
pub(crate) fn start_program(folder: &Path, name: &str, arguments: &[String]) -> Result<Process> {
    let mut command = shell::mortal(folder.join(name));
    command.args(arguments).current_dir(folder);
    Process::start(command, &folder.join(format!("{name}.log")))
}

fn check(process: &mut Process, name: &str) -> Result<()> {
    match process.ended()? {
        None => Ok(()),
        Some(status) => bail!("{name} ended with {status}:\n{}", process.last_lines()),
    }
}

fn start_etcd(folder: &Path, clients: u16, peers: u16) -> Result<Process> {
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    let arguments = [
        "--data-dir=etcd-data".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync=true".to_owned(),
    ];
    start_program(folder, "etcd", &arguments)
}

/// Writes what it reads, and gives its arguments.
fn prepare_api_server(folder: &Path, etcd: u16, address: Ipv4Addr, port: u16, nodes: &[String]) -> Result<Vec<String>> {
    let of_node = |node: &String| format!("{node}-token,system:node:{node},node-{node},system:nodes\n");
    let of_nodes: String = nodes.iter().map(of_node).collect();
    fs::write(folder.join("tokens.csv"), format!("{TOKENS}{of_nodes}"))?;
    fs::write(folder.join("audit.yaml"), AUDIT_POLICY)?;
    let accounts = KeyPair::generate()?;
    fs::write(folder.join(ACCOUNTS_KEY), accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--bind-address={address}"),
        format!("--secure-port={port}"),
        "--cert-dir=certificates".to_owned(),
        "--token-auth-file=tokens.csv".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        // As most clusters do. What may run where is the business of Pod Security.
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-account-key-file=accounts.pub".to_owned(),
        format!("--service-account-signing-key-file={ACCOUNTS_KEY}"),
        "--audit-policy-file=audit.yaml".to_owned(),
        "--audit-log-path=audit.log".to_owned(),
        "--audit-log-mode=blocking".to_owned(),
    ];
    if !address.is_loopback() {
        // Pods find it behind the address of its service.
        arguments.push(format!("--advertise-address={address}"));
    }
    Ok(arguments)
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let listeners = [bound()?, bound()?, bound()?];
    let [a, b, c] = &listeners;
    Ok([a.local_addr()?.port(), b.local_addr()?.port(), c.local_addr()?.port()])
}

fn bound() -> Result<TcpListener> {
    Ok(TcpListener::bind("127.0.0.1:0")?)
}
