//! What happens to a cluster while a package is on its way: a client's pod is killed, a node is drained, a node is added,
//! the clients get a new form, the server moves, the API server is away. Each time the package ends whole on every node,
//! and what crossed the link into the store is counted. At the end a Prometheus looks on.

mod server;
mod upgrade;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peerdist_core::ports::CLIENT_SMALL;
use peerdist_e2e_cluster::cluster::{Cluster, LINK_BITS_PER_SECOND};
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;
use peerdist_e2e_net::fleet::CLIENT_HTTP_PORT;
use serde_json::Value;

use crate::phases::Phases;
use crate::prometheus::Prometheus;
use crate::user::{Fate, Installed, Obstruction, User};
use crate::{MEASURED_BYTES, MEASURED_PHASE};

/// How long the API server is away, unless [`AWAY_VARIABLE`] says otherwise.
const AWAY_SECONDS: u64 = 30;
const AWAY_VARIABLE: &str = "PEERDIST_E2E_AWAY_SECONDS";
/// How long after its return the status may be behind.
const BEHIND_MAX: Duration = Duration::from_secs(60);
/// How much of a package has crossed the link into the store when it is in the middle.
const MIDDLE_PERCENT: RangeInclusive<u64> = 15..=60;
/// What the link carries while something happens that is to end before the package does.
const LINK_MEANWHILE_BITS_PER_SECOND: u64 = 5_000_000;
/// Size of a package in whose middle something happens.
const DISTURBED_BYTES: u64 = 100_000_000;
/// How much of a package may cross the link when nothing happens: headers of QUIC, UDP, IP and Ethernet, and what a cluster
/// says besides.
const UNDISTURBED_MAX: f64 = 1.08;
/// How much more of a package may cross the link when something happens than when nothing does.
const REPEATED_MAX: f64 = 1.02;
/// What a rendezvous point that ends had not journalled at most. While clients are upgraded, each node of the store may be
/// it once; otherwise it fits into what is allowed anyway.
const WINDOW_BYTES: u64 = 4 << 20;

/// How long a control plane takes at most to see that a node is dead.
const DEATH_TIMEOUT: &str = "--timeout=120s";

/// All that can happen to a cluster of our own.
pub(crate) struct Violence<'a> {
    pub(crate) cluster: &'a mut Cluster,
}

impl Fate for Violence<'_> {
    fn obstruct(&mut self, installed: &Installed) -> Result<Option<Obstruction>> {
        let node = installed.sites.store.first().context("a node in the store")?;
        let port = CLIENT_SMALL;
        let holder = self.cluster.hold_port(&node.name, port)?;
        Ok(Some(Obstruction { holder, port, address: node.address }))
    }

    fn disturb(&mut self, user: &User, installed: &mut Installed, phases: &mut Phases) -> Result<()> {
        Disturbances { user, installed, cluster: self.cluster, undisturbed: None }.run(phases)
    }

    /// A node of the store dies, and a package is on its way to the others.
    fn darken(&mut self, user: &User, installed: &mut Installed, phases: &mut Phases) -> Result<()> {
        let disturbances = Disturbances { user, installed, cluster: self.cluster, undisturbed: None };
        phases.run("a node dies", || disturbances.let_a_node_die())
    }
}

/// All of them, one after the other.
struct Disturbances<'a> {
    user: &'a User,
    installed: &'a mut Installed,
    cluster: &'a mut Cluster,
    /// Bytes on the link for each byte of a package when nothing happens: with headers, acknowledgements of other
    /// directions left out, and with what a cluster says besides.
    undisturbed: Option<f64>,
}

impl Disturbances<'_> {
    fn run(&mut self, phases: &mut Phases) -> Result<()> {
        self.measure(phases)?;
        self.during("pod-killed", phases, |this| this.kill_pod())?;
        self.during("node-drained", phases, |this| this.drain())?;
        self.uncordon()?;
        phases.run("a node goes, with its disk", || self.lose_node())?;
        self.during("node-added", phases, |this| this.add_node())?;
        self.upgrade(phases)?;
        // Before the API server is away: afterwards controllers take up to minutes until they make pods again.
        self.move_server(phases)?;
        self.without_api_server(phases)?;
        self.watch(phases)
    }

    /// A Prometheus sees one more package arrive, and finds what dashboards and alerts are about.
    fn watch(&self, phases: &mut Phases) -> Result<()> {
        let prometheus = phases.run("a Prometheus scrapes clients, server and operator", || {
            Prometheus::start(self.cluster, self.user, &self.installed.sites)
        })?;
        phases.run("it finds what dashboards and alerts are about", || {
            self.apply("watched", MEASURED_BYTES)?;
            self.user.wait_for_ready(Some("retail"), &["packagedistribution/watched"])?;
            prometheus.answers(self.user)
        })
    }

    fn measure(&mut self, phases: &mut Phases) -> Result<()> {
        let name = "undisturbed";
        self.offer(name, MEASURED_BYTES)?;
        let before = self.cluster.link_bytes()?;
        phases.run(MEASURED_PHASE, || {
            self.order(name)?;
            self.user.wait_for_ready(Some("retail"), &["packagedistribution/undisturbed"])
        })?;
        let link = self.cluster.link_bytes()? - before;
        let carried = self.judge(name, link, 0)?;
        ensure!(
            carried <= UNDISTURBED_MAX,
            "{name}: {carried:.3} of the package crossed the link although nothing happened, at most {UNDISTURBED_MAX} may"
        );
        self.undisturbed = Some(carried);
        Ok(())
    }

    /// Lets something happen that is over before the package is, and looks at how that ends.
    fn during(&mut self, name: &str, phases: &mut Phases, disturb: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let link = self.in_the_middle(name, phases, |this, before| {
            this.cluster.limit_link(LINK_MEANWHILE_BITS_PER_SECOND)?;
            disturb(this)?;
            this.ensure_is_on_its_way(name, before)
        })?;
        self.judge(name, link, 0).map(drop)
    }

    /// Lets something happen in the middle of a package of its own, waits until that is ready, and gives what crossed the
    /// link. What happens is told what had crossed it before.
    fn in_the_middle(
        &mut self,
        name: &str,
        phases: &mut Phases,
        disturb: impl FnOnce(&mut Self, u64) -> Result<()>,
    ) -> Result<u64> {
        let before = self.cluster.link_bytes()?;
        let title = format!("package `{name}` is on every node");
        phases.run(&title, || {
            self.apply(name, DISTURBED_BYTES)?;
            self.wait_for_middle(name, before, DISTURBED_BYTES)?;
            disturb(self, before)?;
            self.cluster.limit_link(LINK_BITS_PER_SECOND)?;
            self.user.wait_for_ready(Some("retail"), &[&format!("packagedistribution/{name}")])
        })?;
        Ok(self.cluster.link_bytes()? - before)
    }

    fn apply(&self, name: &str, bytes: u64) -> Result<()> {
        self.offer(name, bytes)?;
        self.order(name)
    }

    /// Puts a package where it can be fetched.
    fn offer(&self, name: &str, bytes: u64) -> Result<()> {
        self.installed.origin.add(&self.user.commands, name, bytes)
    }

    /// Asks for a package.
    fn order(&self, name: &str) -> Result<()> {
        let url = self.installed.origin.url();
        let package = serde_json::json!({
            "apiVersion": "peerdist.io/v1alpha1", "kind": "PackageDistribution",
            "metadata": {"name": name, "namespace": "retail"},
            "spec": {"version": "1", "source": {"uri": format!("{url}/{name}.bin")}},
        });
        self.user.commands.kubectl_with(&["apply", "--filename=-"], &package.to_string()).map(drop)
    }

    /// By the link itself: nodes of the Central Office have much of a package before anything crosses it.
    fn wait_for_middle(&self, name: &str, before: u64, bytes: u64) -> Result<()> {
        let crossed_percent = || anyhow::Ok((self.cluster.link_bytes()? - before) * 100 / bytes);
        let (least, most) = MIDDLE_PERCENT.into_inner();
        self.user.eventually(&format!("{name} is on its way"), || {
            let percent = crossed_percent()?;
            ensure!(percent >= least, "{percent} % of it crossed the link");
            Ok(())
        })?;
        let percent = crossed_percent()?;
        ensure!(percent <= most, "{name}: {percent} % of it crossed the link already, at most {most} % is the middle");
        Ok(())
    }

    /// Not even the headers of what is to come have crossed the link.
    fn ensure_is_on_its_way(&self, name: &str, before: u64) -> Result<()> {
        let crossed = self.cluster.link_bytes()? - before;
        println!("    {name}: {crossed} bytes had crossed the link when that was done");
        ensure!(crossed < DISTURBED_BYTES, "{name}: {crossed} bytes crossed the link before that was done");
        Ok(())
    }

    /// Every node has the whole package, none failed, and the link carried it once. The link itself is asked: a client
    /// that is killed takes with it what it had not reported.
    fn judge(&self, name: &str, link: u64, restarts: usize) -> Result<f64> {
        let Installed { sites, eyes, origin, .. } = &*self.installed;
        let count = |status: &Value, field: &str, inner: &str| status[field][inner].as_i64().unwrap_or_default();
        // A server that has begun anew counts anew.
        self.user.eventually(&format!("every node is counted as complete with {name}"), || {
            let status = self.user.package_status(name)?;
            ensure!(count(&status, "nodes", "failed") == 0, "{name}: nodes failed: {status:#}");
            ensure!(count(&status, "nodes", "complete") == sites.all().count() as i64, "{name}: {status:#}");
            Ok(())
        })?;
        let expected = origin.digests(&self.user.commands, name)?;
        for node in sites.all() {
            let found = eyes.digests(&self.user.commands, node, name)?;
            ensure!(found == expected, "{name} on {} differs:\n{found}\nexpected\n{expected}", node.name);
        }
        let status = self.user.package_status(name)?;
        let (total, wan) = (count(&status, "bytes", "total"), count(&status, "bytes", "wan"));
        let carried = link as f64 / total as f64;
        let repeated = carried / self.undisturbed.unwrap_or(carried);
        println!(
            "    {name}: {total} bytes, {wan} over the WAN by the status, {link} on the link with everything else: \
             {carried:.3} of the package, {repeated:.3} times an undisturbed one"
        );
        let most = REPEATED_MAX + restarts as f64 * WINDOW_BYTES as f64 / total as f64;
        ensure!(
            repeated <= most,
            "{name}: {repeated:.3} times an undisturbed one crossed the link, at most {most:.3} may"
        );
        // Chunks alone. What a client that was killed had not reported is missing here.
        let chunks = wan as f64 / total as f64;
        ensure!(chunks <= most, "{name}: {chunks:.3} of it by the status crossed the link, at most {most:.3} may");
        Ok(carried)
    }

    /// The rendezvous point of the store, by who got most from outside.
    fn busiest(&self) -> Result<String> {
        let Installed { sites, eyes, .. } = &*self.installed;
        let mut found = None;
        for node in &sites.store {
            let received = eyes.metrics(&self.user.commands, node, CLIENT_HTTP_PORT)?.wan_bytes_received();
            if found.as_ref().is_none_or(|(most, _)| received > *most) {
                found = Some((received, node.name.clone()));
            }
        }
        Ok(found.context("a node in the store")?.1)
    }

    fn kill_pod(&mut self) -> Result<()> {
        let field = format!("--field-selector=spec.nodeName={}", self.busiest()?);
        let kill = ["delete", "pod", "--namespace", PEERDIST, &field, "--selector=app.kubernetes.io/component=client"];
        self.user.commands.kubectl(&[&kill[..], &["--force", "--grace-period=0"]].concat()).map(drop)
    }

    /// The node with the operator, if that is not the one that everything comes from.
    fn drain(&mut self) -> Result<()> {
        let found = self.node_of_operator()?;
        let source = &self.installed.sites.central.first().context("a Central Office")?.name;
        let node = if found == *source { self.busiest()? } else { found };
        let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
        self.user.commands.kubectl(&drain).map(drop)
    }

    fn uncordon(&self) -> Result<()> {
        for node in self.installed.sites.all() {
            self.user.commands.kubectl(&["uncordon", &node.name])?;
        }
        Ok(())
    }

    /// One without the operator, so that another thing is not tried at the same time.
    fn let_a_node_die(self) -> Result<()> {
        let operator = self.node_of_operator()?;
        let stores = &mut self.installed.sites.store;
        let position = stores.iter().rposition(|node| node.name != operator).context("a node in the store")?;
        let dead = stores.remove(position).name;
        self.cluster.kill_node(&dead)?;
        let node = format!("node/{dead}");
        self.user.commands.kubectl(&["wait", "--for=condition=Ready=Unknown", &node, DEATH_TIMEOUT])?;
        let before = self.cluster.link_bytes()?;
        self.apply("never-arrives", DISTURBED_BYTES)?;
        self.wait_for_middle("never-arrives", before, DISTURBED_BYTES)?;
        self.cluster.limit_link(LINK_MEANWHILE_BITS_PER_SECOND)
    }

    fn node_of_operator(&self) -> Result<String> {
        let operator = ["get", "pod", "--namespace", PEERDIST, "--selector=app.kubernetes.io/component=operator"];
        self.user.commands.kubectl(&[&operator[..], &["--output=jsonpath={.items[0].spec.nodeName}"]].concat())
    }

    fn lose_node(&mut self) -> Result<()> {
        let name = self.installed.sites.store.last().context("a node in the store")?.name.clone();
        self.cluster.remove_node(&name)?;
        self.user.commands.kubectl(&["delete", "node", &name]).map(drop)
    }

    /// Until its client runs.
    fn add_node(&mut self) -> Result<()> {
        let name = self.installed.sites.store.last().context("a node in the store")?.name.clone();
        self.cluster.return_node(&name)?;
        let node = format!("node/{name}");
        for condition in ["--for=create", "--for=condition=Ready"] {
            self.user.commands.kubectl(&["wait", condition, &node, "--timeout=120s"])?;
        }
        let field = format!("--field-selector=spec.nodeName={name}");
        let client = ["pod", "--namespace", PEERDIST, &field, "--selector=app.kubernetes.io/component=client"];
        self.user.eventually("the client of the node runs", || {
            self.user.commands.kubectl(&[&["wait", "--for=condition=Ready", "--timeout=10s"], &client[..]].concat())?;
            Ok(())
        })?;
        self.user.reopen_eyes(self.installed)
    }

    /// Transfers go on, and the status says so when it can.
    fn without_api_server(&mut self, phases: &mut Phases) -> Result<()> {
        let name = "api-server-away";
        let away = away()?;
        let before = self.cluster.link_bytes()?;
        self.apply(name, MEASURED_BYTES)?;
        self.wait_for_middle(name, before, MEASURED_BYTES)?;
        let disks: Vec<_> = self.cluster.nodes().iter().map(|node| node.disk()).collect();
        let start = Instant::now();
        let arrived = self.cluster.without_api_server(|| {
            let is_there = |disk: &std::path::PathBuf| {
                disk.join("peerdist/packages/retail").join(name).join("current").join(format!("{name}.bin")).exists()
            };
            ensure!(!disks.iter().all(is_there), "{name} was everywhere before the API server went");
            let mut arrived = None;
            while start.elapsed() < away {
                if arrived.is_none() && disks.iter().all(is_there) {
                    arrived = Some(start.elapsed());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            arrived.context("the package did not arrive while the API server was away")
        })?;
        println!(
            "    {name}: on every node {:.1} s after the API server went, which came back after {} s",
            arrived.as_secs_f64(),
            away.as_secs()
        );
        let back = Instant::now();
        phases.run("the status catches up after the API server was away", || {
            self.user.wait_for_ready(Some("retail"), &[&format!("packagedistribution/{name}")])
        })?;
        let behind = back.elapsed();
        ensure!(
            behind <= BEHIND_MAX,
            "{name}: the status caught up {:.1} s after the API server was back, at most {} s may pass",
            behind.as_secs_f64(),
            BEHIND_MAX.as_secs()
        );
        let link = self.cluster.link_bytes()? - before;
        self.judge(name, link, 0).map(drop)
    }
}

fn away() -> Result<Duration> {
    let Ok(text) = std::env::var(AWAY_VARIABLE) else { return Ok(Duration::from_secs(AWAY_SECONDS)) };
    let seconds = text.parse().with_context(|| format!("{AWAY_VARIABLE}={text}: expected a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}
