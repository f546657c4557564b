//! Makes the fleet of a [`Topology`] real: a namespace for each host and one for the router, in which every office is a
//! bridge. What crosses between offices is forwarded from bridge to bridge, so a queueing discipline on a bridge limits
//! the link into that office and leaves its LAN alone.
//!
//! Namespaces bear the process id of the test. They go when the value goes, also after a panic; those of a test that
//! was killed go at the next start.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::counters::{self, Counters};
use crate::ownership;
use crate::ruleset;
use crate::shell;
use crate::topology::{Host, Topology};

/// Where iproute2 keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Buffer of a limited link: what a router of a branch office would hold, about 50 ms.
const LINK_BUFFER_MS: u32 = 50;

/// The namespaces of one scenario.
#[derive(Debug)]
pub struct Network {
    topology: Topology,
    label: String,
    rules: Rules,
}

/// What hosts let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// The rows of the port tables and nothing else, counted.
    Catalogue,
    /// Everything: these hosts do more than our processes do.
    None,
}

impl Network {
    /// Makes namespaces, links, addresses, routes and rules. `scenario` becomes part of the names.
    ///
    /// # Errors
    /// When this process is not root, or `ip` or `nft` refuse; what exists by then is removed.
    pub fn new(scenario: &str, topology: Topology) -> Result<Self> {
        Self::with_rules(scenario, topology, Rules::Catalogue)
    }

    /// The same with rules to choose.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_rules(scenario: &str, topology: Topology, rules: Rules) -> Result<Self> {
        remove_abandoned()?;
        let network = Self { topology, label: ownership::name(scenario), rules };
        network.build().with_context(|| {
            format!("cannot make the network of {scenario}: it takes root, iproute2 and nftables (`cargo xtask test` installs both)")
        })?;
        Ok(network)
    }

    /// The fleet on paper.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Name of a host's namespace.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.label)
    }

    /// The file that `nsenter --net` takes.
    pub fn namespace_file(&self, host: &str) -> String {
        format!("{NAMESPACES}/{}", self.namespace(host))
    }

    /// Counters of one host.
    ///
    /// # Errors
    /// When nft fails.
    pub fn counters(&self, host: &str) -> Result<Counters> {
        Counters::read(&self.namespace(host))
    }

    /// Sum of the counters of all hosts.
    ///
    /// # Errors
    /// When nft fails.
    pub fn all_counters(&self) -> Result<Counters> {
        let mut sum = Counters::default();
        for host in self.topology.hosts() {
            sum.add(&self.counters(&host.name)?);
        }
        Ok(sum)
    }

    /// Every dropped flow, with the host that dropped it.
    ///
    /// # Errors
    /// When nft fails.
    pub fn dropped_flows(&self) -> Result<Vec<String>> {
        let mut flows = Vec::new();
        for host in self.topology.hosts() {
            let of_host = counters::dropped_flows(&self.namespace(&host.name))?;
            flows.extend(of_host.into_iter().map(|flow| format!("{}: {flow}", host.name)));
        }
        Ok(flows)
    }

    /// Limits what flows into an office from the others.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn limit_link_into(&self, office: usize, bits_per_second: u64) -> Result<()> {
        let (rate, latency) = (format!("{bits_per_second}bit"), format!("{LINK_BUFFER_MS}ms"));
        let (router, device) = (self.router(), bridge(office));
        let discipline = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", &latency];
        let arguments = [&["-n", &router, "qdisc", "replace", "dev", &device][..], &discipline[..]].concat();
        shell::run("tc", &arguments).map(drop)
    }

    /// What a limited link carried into an office, headers included.
    ///
    /// # Errors
    /// When tc fails, or the link is not limited.
    pub fn bytes_into(&self, office: usize) -> Result<u64> {
        let (router, device) = (self.router(), bridge(office));
        let shown = shell::run("tc", &["-n", &router, "-s", "qdisc", "show", "dev", &device])?;
        let sent = shown.split_whitespace().skip_while(|word| *word != "Sent").nth(1);
        sent.with_context(|| format!("{device} is not limited"))?.parse().context("bytes of a link")
    }

    /// Makes a host forward what is for a subnet behind it, and the router send that there.
    ///
    /// # Errors
    /// When ip refuses.
    pub fn route_through(&self, host: &Host, subnet: &str) -> Result<()> {
        set(&self.namespace(&host.name), "net/ipv4/ip_forward")?;
        let address = host.address.to_string();
        shell::run("ip", &["-n", &self.router(), "route", "add", subnet, "via", &address]).map(drop)
    }

    fn router(&self) -> String {
        self.namespace("router")
    }

    fn build(&self) -> Result<()> {
        let router = self.router();
        add_namespace(&router)?;
        set(&router, "net/ipv4/ip_forward")?;
        for office in 0..self.topology.offices().len() {
            let (device, address) = (bridge(office), self.topology.router(office));
            // One segment a packet on the links between offices, so that counters there see every header.
            let commands = format!(
                "link add {device} type bridge\naddr add {address}/24 dev {device}\n\
                 link set {device} gso_max_segs 1\nlink set {device} up\n"
            );
            batch(&router, &commands)?;
        }
        self.topology.hosts().iter().enumerate().try_for_each(|(number, host)| self.build_host(number, host))
    }

    fn build_host(&self, number: usize, host: &Host) -> Result<()> {
        let (router, namespace) = (self.router(), self.namespace(&host.name));
        add_namespace(&namespace)?;
        let (cable, device) = (format!("host{number}"), bridge(host.office));
        let plug = format!(
            "link add {cable} type veth peer name eth0 netns {namespace}\n\
             link set {cable} master {device}\nlink set {cable} up\n"
        );
        batch(&router, &plug)?;
        let (broadcast, gateway) = (self.topology.broadcast(host.office), self.topology.router(host.office));
        let configure = format!(
            "addr add {}/24 broadcast {broadcast} dev eth0\nlink set lo up\nlink set eth0 up\n\
             route add default via {gateway}\n",
            host.address
        );
        batch(&namespace, &configure)?;
        if self.rules == Rules::None {
            return Ok(());
        }
        let rules = ruleset::render(&self.topology, host);
        let load = ["netns", "exec", &namespace, "nft", "-f", "-"];
        shell::run_with_input("ip", &load, &rules).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove(&format!("{}-", self.label)) {
            eprintln!("namespaces {}-* stay behind: {error:#}", self.label);
        }
    }
}

fn bridge(office: usize) -> String {
    format!("office{office}")
}

/// Without IPv6: its neighbour discovery would be dropped and counted before a single process runs.
fn add_namespace(name: &str) -> Result<()> {
    shell::run("ip", &["netns", "add", name])?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        set(name, "net/ipv6/conf/all/disable_ipv6")?;
        set(name, "net/ipv6/conf/default/disable_ipv6")?;
    }
    Ok(())
}

/// Switches a setting of the kernel on: a process sees those of the namespace it runs in.
fn set(namespace: &str, setting: &str) -> Result<()> {
    let command = format!("echo 1 > /proc/sys/{setting}");
    shell::run("ip", &["netns", "exec", namespace, "sh", "-c", &command]).map(drop)
}

fn batch(namespace: &str, commands: &str) -> Result<()> {
    shell::run_with_input("ip", &["-n", namespace, "-batch", "-"], commands).map(drop)
}

fn remove(prefix: &str) -> Result<()> {
    for name in namespaces()?.iter().filter(|name| name.starts_with(prefix)) {
        shell::run("ip", &["netns", "delete", name])?;
    }
    Ok(())
}

/// Removes namespaces whose test process is no more.
fn remove_abandoned() -> Result<()> {
    for name in namespaces()?.iter().filter(|name| ownership::is_abandoned(name)) {
        // Another test may be removing it at the same time.
        let _ = shell::run("ip", &["netns", "delete", name]);
    }
    Ok(())
}

fn namespaces() -> Result<Vec<String>> {
    if !Path::new(NAMESPACES).exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(NAMESPACES).with_context(|| format!("cannot list {NAMESPACES}"))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
}
