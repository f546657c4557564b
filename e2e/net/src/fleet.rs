//! A running fleet: network, processes, packages, and the questions a scenario asks. Waiting ends early, with the end
//! of the log, when a process ended by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use blake3::Hash;
use peerdist_core::ports::Role;

use crate::agent::Agent;
use crate::content;
use crate::counters::Counters;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::objects::{self, NAMESPACE};
use crate::ruleset::{Direction, ICMP_DROPPED};
use crate::scratch::Scratch;
use crate::shell;
use crate::topology::{Host, Topology};
use crate::trees::{self, Published};

/// Between two looks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// HTTP port of the server.
pub const SERVER_HTTP_PORT: u16 = 9760;
/// HTTP port of a client.
pub const CLIENT_HTTP_PORT: u16 = 9761;
/// Ends what hangs. A machine with two processors that does other work beside thirty processes stays below.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// A package that was given to the server.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name of its PackageDistribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Sum of the sizes of its files.
    pub bytes: u64,
    /// Digest of the tree that must arrive.
    pub digest: Hash,
}

/// Processes in their namespaces. They end, and the namespaces go, when the value goes: fields are dropped in order.
#[derive(Debug)]
pub struct Fleet {
    agents: Vec<Agent>,
    network: Network,
    scratch: Scratch,
    hosts: Vec<Host>,
    packages: Vec<Package>,
}

impl Fleet {
    /// Makes the network and describes the processes; nothing runs yet. `needed_bytes` is what packages, library and
    /// trees will take on disk.
    ///
    /// # Errors
    /// When the binary is not built, or network or folder cannot be made.
    pub fn new(scenario: &str, topology: Topology, needed_bytes: u64) -> Result<Self> {
        let scratch = Scratch::new(scenario, needed_bytes)?;
        let network = Network::new(scenario, topology)?;
        let program = scratch.program(&built_program("peerdist")?)?;
        let hosts = network.topology().hosts();
        fs::write(scratch.folder("manifests")?.join("offices.yaml"), objects::offices(network.topology()))?;
        let agents = hosts.iter().map(|host| describe(&scratch, &network, &program, host)).collect::<Result<_>>()?;
        Ok(Self { agents, network, scratch, hosts, packages: Vec::new() })
    }

    /// Writes a package of about `bytes` and its object. A version of a name that exists replaces the object.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn distribute(&mut self, name: &str, version: &str, bytes: u64) -> Result<Package> {
        let folder = self.source_folder(name, version)?;
        let bytes = content::write_tree(&folder, bytes, seed(name, version)?)?;
        self.offer(name, version, bytes, &folder, &folder)
    }

    /// The same with a package of one file.
    ///
    /// # Errors
    /// As [`Self::distribute`].
    pub fn distribute_file(&mut self, name: &str, version: &str, bytes: u64) -> Result<Package> {
        let folder = self.source_folder(name, version)?;
        let file = content::write_one_file(&folder, bytes, seed(name, version)?)?;
        self.offer(name, version, bytes, &folder, &file)
    }

    fn source_folder(&self, name: &str, version: &str) -> Result<PathBuf> {
        Ok(self.scratch.folder("sources")?.join(format!("{name}-{version}")))
    }

    /// Writes the object of a package whose tree will be that of `folder`.
    fn offer(&mut self, name: &str, version: &str, bytes: u64, folder: &Path, source: &Path) -> Result<Package> {
        let digest = trees::digest(folder)?;
        let yaml = objects::distribution(name, version, source);
        let manifests = self.scratch.folder("manifests")?;
        fs::write(manifests.join(format!(".{name}.new")), yaml)?;
        fs::rename(manifests.join(format!(".{name}.new")), manifests.join(format!("{name}.yaml")))?;
        let package = Package { name: name.to_owned(), version: version.to_owned(), bytes, digest };
        self.packages.push(package.clone());
        Ok(package)
    }

    /// Starts every process, the server first.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.agents.iter_mut().try_for_each(Agent::start)
    }

    /// The process on a host.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn agent(&mut self, host: &str) -> Result<&mut Agent> {
        let found = self.agents.iter_mut().find(|agent| agent.name() == host);
        found.with_context(|| format!("no host is called {host}"))
    }

    /// The hosts with nodes.
    pub fn nodes(&self) -> Vec<Host> {
        self.hosts.iter().filter(|host| host.role == Role::Client).cloned().collect()
    }

    /// The nodes of an office.
    pub fn nodes_of(&self, office: &str) -> Vec<Host> {
        let named = |host: &Host| self.network.topology().offices()[host.office].name == office;
        self.nodes().into_iter().filter(named).collect()
    }

    /// All hosts, the server first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The namespaces.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Folder of a host's process.
    pub fn root(&self, host: &str) -> Result<PathBuf> {
        self.scratch.folder(&format!("roots/{host}"))
    }

    /// Waits until every node has published a package as its current version, then compares every tree.
    ///
    /// # Errors
    /// When a process ended, time is over (naming the nodes that lack it), or a tree differs.
    pub fn wait_until_complete(&mut self, package: &Package) -> Result<()> {
        self.wait_until_current(package)?;
        self.look_at_every_tree().map(drop)
    }

    /// Waits until every node has published a package as its current version.
    ///
    /// # Errors
    /// When a process ended, or time is over (naming the nodes that lack it).
    pub fn wait_until_current(&mut self, package: &Package) -> Result<()> {
        let nodes = self.nodes();
        let start = Instant::now();
        loop {
            self.expect_all_running()?;
            let lacks = |host: &&Host| !self.is_current(&host.name, package);
            let missing: Vec<&str> = nodes.iter().filter(lacks).map(|host| host.name.as_str()).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{} {} has not arrived on {}", package.name, package.version, missing.join(", "));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Looks at what every node publishes now; half a tree is an error. Gives the number of whole trees.
    ///
    /// # Errors
    /// As said, naming node and path.
    pub fn look_at_every_tree(&self) -> Result<usize> {
        let mut whole = 0;
        for host in self.nodes() {
            for name in self.package_names() {
                let seen = trees::look(&self.root(&host.name)?, NAMESPACE, name, &self.expected(name))?;
                if let Published::Whole(versions) = seen {
                    whole += versions.len();
                }
            }
        }
        Ok(whole)
    }

    /// Waits until a condition holds.
    ///
    /// # Errors
    /// When a process ended, time is over, or the condition cannot be asked.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !condition(self)? {
            self.expect_all_running()?;
            if start.elapsed() > PATIENCE {
                bail!("waited in vain until {what}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// An error with the end of its log when a process ended by itself.
    ///
    /// # Errors
    /// As said.
    pub fn expect_all_running(&mut self) -> Result<()> {
        self.agents.iter_mut().try_for_each(Agent::expect_running)
    }

    /// Whether a node's `current` is this package's version.
    pub fn is_current(&self, host: &str, package: &Package) -> bool {
        self.root(host).is_ok_and(|root| trees::is_current(&root, NAMESPACE, &package.name, &package.version))
    }

    /// Bytes that rows with a port brought to hosts, headers included.
    ///
    /// # Errors
    /// When counters cannot be read.
    pub fn bytes_received(&self, hosts: &[Host], port: u16) -> Result<u64> {
        let mut sum = Counters::default();
        for host in hosts {
            sum.add(&self.network.counters(&host.name)?);
        }
        Ok(sum.of_port(port, Direction::In).bytes)
    }

    /// The `/metrics` page of a host's process, fetched inside its namespace.
    ///
    /// # Errors
    /// When it is not served.
    pub fn metrics(&self, host: &Host) -> Result<Metrics> {
        let port = if host.role == Role::Server { SERVER_HTTP_PORT } else { CLIENT_HTTP_PORT };
        let (network, probe) =
            (format!("--net={}", self.network.namespace_file(&host.name)), built_program("peerdist-e2e-probe")?);
        let (probe, address) = (probe.to_string_lossy(), format!("{}:{port}", host.address));
        let page = shell::run("nsenter", &[&network, &probe, "fetch", &address, "/metrics"]);
        Metrics::parse(&page.with_context(|| format!("{}: no metrics", host.name))?)
    }

    /// An error with the flows when a datagram was dropped.
    ///
    /// # Errors
    /// As said.
    pub fn expect_nothing_dropped(&self) -> Result<()> {
        let dropped = self.network.all_counters()?.dropped();
        if dropped > 0 {
            bail!("{dropped} datagrams have no row:\n{}", self.network.dropped_flows()?.join("\n"));
        }
        Ok(())
    }

    /// An error with the hosts when an ICMP packet was dropped, which nothing justifies before the first process ends:
    /// see [`crate::ruleset`].
    ///
    /// # Errors
    /// As said.
    pub fn expect_no_icmp(&self) -> Result<()> {
        let mut seen = Vec::new();
        for host in &self.hosts {
            let packets = self.network.counters(&host.name)?.of(ICMP_DROPPED).packets;
            if packets > 0 {
                seen.push(format!("{}: {packets}", host.name));
            }
        }
        if !seen.is_empty() {
            bail!("ICMP packets were sent, and dropped by {}", seen.join(", "));
        }
        Ok(())
    }

    /// The scenario passed: its logs need not stay. A task that panicked takes no process down with it, so the logs are
    /// searched for that.
    ///
    /// # Errors
    /// When a process panicked, or a log cannot be read.
    pub fn passed(mut self) -> Result<()> {
        for agent in &self.agents {
            let log = agent.log_text()?;
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("{} panicked: {line}", agent.name());
            }
        }
        self.scratch.discard_logs();
        Ok(())
    }

    fn package_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.packages.iter().map(|package| package.name.as_str()).collect();
        names.dedup();
        names
    }

    fn expected(&self, name: &str) -> Vec<(String, Hash)> {
        let versions = self.packages.iter().filter(|package| package.name == name);
        versions.map(|package| (package.version.clone(), package.digest)).collect()
    }
}

/// What the content of a package depends on.
fn seed(name: &str, version: &str) -> Result<u64> {
    let digest = blake3::hash(format!("{name} {version}").as_bytes());
    Ok(u64::from_le_bytes(*digest.as_bytes().first_chunk().context("eight bytes")?))
}

/// A program of this workspace, which the build put two folders above the test.
///
/// # Errors
/// When it was not built.
pub fn built_program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot tell where the test lies")?;
    let folder = test.ancestors().nth(2).context("the test lies in no build folder")?;
    let program = folder.join(name);
    if !program.is_file() {
        bail!("{} is missing: run `cargo build --workspace --bins` first", program.display());
    }
    Ok(program)
}

fn describe(scratch: &Scratch, network: &Network, program: &Path, host: &Host) -> Result<Agent> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let root = text(scratch.folder(&format!("roots/{}", host.name))?);
    let token = text(scratch.folder("shared")?.join("join-token"));
    let address = host.address.to_string();
    let common = ["--address", &address, "--root", &root, "--join-token-file", &token];
    let manifests = text(scratch.folder("manifests")?);
    let (server, office) = (network.topology().server().to_string(), &network.topology().offices()[host.office].name);
    let own: &[&str] = match host.role {
        Role::Server => &["server", "--manifests", &manifests],
        Role::Client | Role::Vesc => &["client", "--server", &server, "--office", office, "--node", &host.name],
    };
    let arguments = own.iter().chain(&common).map(|argument| (*argument).to_owned()).collect();
    let log = scratch.folder("logs")?.join(format!("{}.log", host.name));
    Ok(Agent::new(&host.name, network.namespace_file(&host.name), program, arguments, log))
}
