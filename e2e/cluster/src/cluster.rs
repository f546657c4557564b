//! A whole cluster on this machine: a control plane and nodes of two offices, each host in a network namespace, with a
//! link of limited rate between the offices. What a test does to it, it does as a user: with kubectl and Helm.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use peerdist_core::ports::Role;
use peerdist_e2e_net::network::{Network, Rules};
use peerdist_e2e_net::scratch::Scratch;
use peerdist_e2e_net::shell;
use peerdist_e2e_net::topology::{Host, OfficeKind, Topology};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

use crate::commands::Commands;
use crate::control_plane::{ControlPlane, start_program};
use crate::names;
use crate::node::{Node, Shared, pod_subnet};
use crate::process::Process;

/// Port of the API server.
const API_PORT: u16 = 6443;
/// What the link into the store carries.
pub const LINK_BITS_PER_SECOND: u64 = 50_000_000;
/// The store in the topology.
pub const STORE: usize = 1;
/// Images on five nodes, packages, logs.
const NEEDED_BYTES: u64 = 6 << 30;
/// Host of the control plane in the topology.
const CONTROL: &str = "server";
/// Of the network namespace that a process is in.
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// How long nodes may take to register.
const REGISTER_ATTEMPTS: u32 = 300;
const REGISTER_PAUSE: Duration = Duration::from_millis(200);

/// The cluster. Everything ends with the value.
pub struct Cluster {
    // Ended in this order.
    nodes: Vec<Node>,
    _controllers: Vec<Process>,
    plane: ControlPlane,
    runtime: Runtime,
    shared: Shared,
    network: Network,
    scratch: Scratch,
}

impl Cluster {
    /// Starts all of it, up to nodes that are ready. The calling thread moves into the network namespace of the control
    /// plane, and so do the programs that it starts from then on.
    ///
    /// # Errors
    /// When this process is not root, a program is missing, or something does not become ready.
    pub fn start(images: &Path) -> Result<Self> {
        let scratch = Scratch::new("cluster", NEEDED_BYTES)?;
        let network = Network::with_rules("cluster", topology()?, Rules::None)?;
        network.limit_link_into(STORE, LINK_BITS_PER_SECOND)?;
        let hosts = network.topology().hosts();
        enter(&network.namespace_file(CONTROL))?;
        let runtime = Runtime::new()?;
        let address = network.topology().server();
        let folder = scratch.folder("plane")?;
        let names: Vec<String> = nodes(&hosts).map(|host| host.name.clone()).collect();
        let plane = runtime.block_on(ControlPlane::start_in(&folder, address, API_PORT, &names))?;
        names.iter().map(String::as_str).chain(["admin"]).try_for_each(|name| plane.kubeconfig(name).map(drop))?;
        runtime.block_on(names::serve(address, runtime.block_on(plane.admin())?))?;
        let controllers = start_controllers(&folder)?;
        let shared = Shared {
            programs: folder,
            images: images.to_owned(),
            logs: scratch.folder("logs")?,
            nodes: scratch.folder("nodes")?,
            resolver: address.to_string(),
        };
        let mut cluster =
            Self { nodes: Vec::new(), _controllers: controllers, plane, runtime, shared, network, scratch };
        for (number, host) in nodes(&hosts).enumerate() {
            cluster.network.route_through(host, &pod_subnet(number + 1))?;
            cluster.add_node(host, number + 1)?;
        }
        cluster.wait_until_ready(names.len())?;
        Ok(cluster)
    }

    fn add_node(&mut self, host: &Host, number: usize) -> Result<()> {
        let namespace = self.network.namespace_file(&host.name);
        self.nodes.push(Node::start(&self.shared, host, number, &namespace)?);
        Ok(())
    }

    /// How to reach it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.shared.programs.join("admin.kubeconfig")
    }

    /// A folder for what a test starts beside the cluster; `logs` is the one that stays when the test fails.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        self.scratch.folder(name)
    }

    /// What was written to the API server.
    pub fn audit_log(&self) -> PathBuf {
        self.plane.audit_log()
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ends a node with all that runs on it. The cluster is not told.
    ///
    /// # Errors
    /// When no node is called so.
    pub fn kill_node(&mut self, name: &str) -> Result<()> {
        let position = self.nodes.iter().position(|node| node.name() == name).context("a node of the cluster")?;
        drop(self.nodes.remove(position));
        Ok(())
    }

    /// Ends a node with all that runs on it, and empties its disk.
    ///
    /// # Errors
    /// When no node is called so, or its disk cannot be emptied.
    pub fn remove_node(&mut self, name: &str) -> Result<()> {
        self.kill_node(name)?;
        fs::remove_dir_all(self.shared.nodes.join(name)).with_context(|| format!("cannot empty the disk of {name}"))
    }

    /// Starts a node that was removed, as a new one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn return_node(&mut self, name: &str) -> Result<()> {
        let hosts = self.network.topology().hosts();
        let found = nodes(&hosts).zip(1..).find(|(host, _)| host.name == name);
        let (host, number) = found.context("a node of the cluster")?;
        self.add_node(host, number)
    }

    /// Which ports a node keeps out of its ephemeral range.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn reserved_ports(&self, node: &str) -> Result<String> {
        let namespace = format!("--net={}", self.network.namespace_file(node));
        Ok(shell::run("nsenter", &[&namespace, "cat", RESERVED_PORTS])?.trim().to_owned())
    }

    /// Keeps ports out of a node's ephemeral range, and no others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reserve_ports(&self, node: &str, ports: &str) -> Result<()> {
        let namespace = format!("--net={}", self.network.namespace_file(node));
        shell::run_with_input("nsenter", &[&namespace, "tee", RESERVED_PORTS], ports).map(drop)
    }

    /// What was sent over the link into the store so far, headers included.
    ///
    /// # Errors
    /// When tc does not say.
    pub fn link_bytes(&self) -> Result<u64> {
        self.network.bytes_into(STORE)
    }

    /// Limits the link into the store to another rate.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn limit_link(&self, bits_per_second: u64) -> Result<()> {
        self.network.limit_link_into(STORE, bits_per_second)
    }

    /// Keeps a UDP port of a node for as long as the socket lives.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn hold_port(&self, node: &str, port: u16) -> Result<UdpSocket> {
        let path = self.network.namespace_file(node);
        let hold = move || {
            enter(&path)?;
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("cannot hold UDP port {port}"))
        };
        // The socket stays in the namespace in which it was made; this thread stays in its own.
        std::thread::spawn(hold).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Kills the API server, does something, and starts it again, which is waited for.
    ///
    /// # Errors
    /// When it does not come back, or what is done fails.
    pub fn without_api_server<T>(&mut self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.plane.stop_api_server()?;
        let outcome = act();
        self.runtime.block_on(self.plane.start_api_server())?;
        outcome
    }

    /// The test passed: its logs need not stay.
    pub fn passed(mut self) {
        self.scratch.discard_logs();
    }

    fn wait_until_ready(&mut self, count: usize) -> Result<()> {
        let commands = Commands::new(&self.kubeconfig())?;
        for _ in 0..REGISTER_ATTEMPTS {
            let registered = commands.kubectl(&["get", "nodes", "--output", "name"]);
            if registered.is_ok_and(|names| names.lines().count() == count) {
                commands.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"])?;
                return Ok(());
            }
            std::thread::sleep(REGISTER_PAUSE);
        }
        bail!("not all of {count} nodes have registered: see the logs of kubelets")
    }
}

/// Two nodes of the Central Office and three of a store; the control plane is beside the former.
///
/// # Errors
/// Never: the subnets have room.
pub fn topology() -> Result<Topology> {
    Topology::central(2).with_office("store", "central", OfficeKind::Wired, 3)
}

fn nodes(hosts: &[Host]) -> impl Iterator<Item = &Host> {
    hosts.iter().filter(|host| host.role == Role::Client)
}

/// Moves the calling thread into a network namespace, and with it what it starts.
fn enter(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {path}"))
}

/// What makes pods of DaemonSets and puts them on nodes.
fn start_controllers(folder: &Path) -> Result<Vec<Process>> {
    let kubeconfig = folder.join("admin.kubeconfig");
    let common = |certificates: &str| {
        let kubeconfig = kubeconfig.display();
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={certificates}"),
        ]
    };
    let mut manager = common("certificates-manager");
    manager.extend([
        "--service-account-private-key-file=accounts.key".to_owned(),
        "--root-ca-file=certificates/apiserver.crt".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
    ]);
    Ok(vec![
        start_program(folder, "kube-controller-manager", &manager)?,
        start_program(folder, "kube-scheduler", &common("certificates-scheduler"))?,
    ])
}

/// Where images for the cluster are, if `cargo xtask e2e cluster` started this.
///
/// # Errors
/// When it did not.
pub fn images() -> Result<PathBuf> {
    let folder = std::env::var_os("PEERDIST_E2E_IMAGES")
        .context("PEERDIST_E2E_IMAGES is not set: run `cargo xtask e2e cluster`")?;
    fs::canonicalize(folder).context("PEERDIST_E2E_IMAGES leads nowhere")
}
