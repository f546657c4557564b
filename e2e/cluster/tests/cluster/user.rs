//! The journey of a user, command by command.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use peerdist_core::ports::TransferClass;
use peerdist_e2e_cluster::commands::Commands;
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;
use serde_json::Value;

use crate::eyes::{self, Eyes};
use crate::origin::Origin;
use crate::phases::Phases;
use crate::samples::Samples;
use crate::sites::{Node, Sites};

/// Files of samples in the order in which they are applied.
const SAMPLES: [&str; 5] = ["namespace.yaml", "offices.yaml", "packages.yaml", "vesc-endpoint.yaml", "workload.yaml"];
/// Ends what hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an object may take to go: nobody waits for a finalizer for ever.
const DELETE_TIMEOUT: &str = "--timeout=120s";
/// Between looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What the chart and the tests' own pods run.
pub(crate) struct Images {
    pub(crate) values: Vec<String>,
    tools: String,
}

impl Images {
    /// Those that every node of our own cluster has, by the tag in their layout.
    pub(crate) fn of_nodes(folder: &Path) -> Result<Self> {
        let mut values = Vec::new();
        for (part, image) in [("operator", "peerdist-operator"), ("agent", "peerdist-node-agent")] {
            let index = std::fs::read_to_string(folder.join(image).join("index.json"))?;
            let index: Value = serde_json::from_str(&index)?;
            let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str();
            let tag = tag.with_context(|| format!("{image} has no tag"))?;
            values.push(format!("{part}.image.repository=localhost/{image}"));
            values.push(format!("{part}.image.tag={tag}"));
        }
        Ok(Self { values, tools: "localhost/peerdist-e2e-tools:1".to_owned() })
    }

    /// Those that the cluster of `KUBECONFIG` pulls: `PEERDIST_E2E_VALUES` names the chart's values with commas between.
    pub(crate) fn of_registry() -> Self {
        let values = std::env::var("PEERDIST_E2E_VALUES").unwrap_or_default();
        let values = values.split(',').filter(|value| !value.is_empty()).map(str::to_owned);
        Self { values: values.collect(), tools: "busybox:1.37.0".to_owned() }
    }
}

/// A user at a keyboard.
pub(crate) struct User {
    pub(crate) commands: Commands,
    pub(crate) images: Images,
    /// Nodes and keys of labels that were not there before.
    pub(crate) labelled: Mutex<Vec<(String, String)>>,
}

/// What happens to a cluster while it is used.
pub(crate) trait Fate {
    /// Before offices are asked for. What it gives back is told of when they were.
    fn obstruct(&mut self, installed: &Installed) -> Result<Option<Obstruction>>;

    /// After packages arrived.
    fn disturb(&mut self, user: &User, installed: &mut Installed, phases: &mut Phases) -> Result<()>;

    /// Before the chart is uninstalled.
    fn darken(&mut self, user: &User, installed: &mut Installed, phases: &mut Phases) -> Result<()>;
}

/// A port of a node in the store that somebody else has.
pub(crate) struct Obstruction {
    /// Keeps it.
    pub(crate) holder: UdpSocket,
    /// Its number.
    pub(crate) port: u16,
    /// Address of the node.
    pub(crate) address: Ipv4Addr,
}

/// Nothing happens to the cluster of somebody else.
pub(crate) struct Peace;

impl Fate for Peace {
    fn obstruct(&mut self, _: &Installed) -> Result<Option<Obstruction>> {
        Ok(None)
    }

    fn disturb(&mut self, _: &User, _: &mut Installed, _: &mut Phases) -> Result<()> {
        Ok(())
    }

    fn darken(&mut self, _: &User, _: &mut Installed, _: &mut Phases) -> Result<()> {
        Ok(())
    }
}

/// What is there between installing and uninstalling.
pub(crate) struct Installed {
    pub(crate) sites: Sites,
    pub(crate) eyes: Eyes,
    pub(crate) origin: Origin,
    samples: Samples,
}

impl User {
    pub(crate) fn new(commands: Commands, images: Images) -> Self {
        Self { commands, images, labelled: Mutex::default() }
    }

    /// All of it; what happens meanwhile is given.
    pub(crate) fn journey(&self, phases: &mut Phases, fate: &mut impl Fate) -> Result<()> {
        let mut installed = self.install(phases)?;
        let obstruction = fate.obstruct(&installed)?;
        phases.run("offices are ready", || self.bring_offices(&installed, obstruction))?;
        phases.run("helm test", || self.commands.helm(&["test", "peerdist", "--namespace", PEERDIST]).map(drop))?;
        phases.run("packages are on every node", || self.bring_packages(&installed))?;
        phases.run("every tree equals its source", || self.compare(&installed))?;
        phases.run("every transfer class moved bytes", || self.count(&installed))?;
        fate.disturb(self, &mut installed, phases)?;
        // The workload holds the folder of its package open.
        phases.run("the pod that uses a package ends", || self.delete(&installed, "workload.yaml"))?;
        phases.run("packages are deleted and gone from every node", || self.take_packages(&installed))?;
        phases.run("a package arrives again", || self.bring_a_package_back(&installed))?;
        fate.darken(self, &mut installed, phases)?;
        phases.run("helm uninstall leaves nothing", || self.uninstall(&installed))?;
        self.delete_samples(&installed)?;
        phases.run("Helm 3 does the same", || self.use_helm_of_old(&installed))
    }

    fn install(&self, phases: &mut Phases) -> Result<Installed> {
        let sites = Sites::of(&self.commands)?;
        self.commands.kubectl(&["create", "namespace", eyes::NAMESPACE])?;
        let (eyes, origin) = phases.run("a web server, and eyes on every node", || {
            let server = sites.central.first().context("a Central Office")?;
            let eyes = Eyes::open(&self.commands, &self.images.tools, &sites)?;
            Ok((eyes, Origin::start(&self.commands, &self.images.tools, server)?))
        })?;
        phases.run("helm install", || self.helm_install(&origin))?;
        let archive = origin.sha256(&self.commands, "pos-app-7.4.1.tar.gz")?;
        let samples = Samples::new(&sites, &origin.url(), &archive, &self.images.tools);
        samples.check(&SAMPLES)?;
        Ok(Installed { sites, eyes, origin, samples })
    }

    fn bring_offices(&self, installed: &Installed, obstruction: Option<Obstruction>) -> Result<()> {
        let Installed { sites, .. } = installed;
        let server = sites.central.first().context("a Central Office")?;
        self.label(server, "peerdist.io/server=")?;
        sites.central.iter().try_for_each(|node| self.label(node, "site=hq"))?;
        sites.store.iter().try_for_each(|node| self.label(node, "site=store-0042"))?;
        self.apply(installed, &SAMPLES[..2])?;
        obstruction.map_or(Ok(()), |obstruction| self.remove(obstruction))?;
        self.wait_for_ready(None, &["office/central", "office/store-0042"])
    }

    /// Once the office has said which port of which node somebody has.
    fn remove(&self, obstruction: Obstruction) -> Result<()> {
        let Obstruction { holder, port, address } = obstruction;
        let condition = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].message}";
        let wanted = format!("{address}:{port}/udp");
        self.eventually("the office says which port is taken", || {
            let message = self.commands.kubectl(&["get", "office", "store-0042", condition])?;
            ensure!(message.contains(&wanted), "it says: {message}; expected {wanted}");
            Ok(())
        })?;
        drop(holder);
        Ok(())
    }

    fn bring_packages(&self, installed: &Installed) -> Result<()> {
        self.apply(installed, &SAMPLES[2..])?;
        self.wait_for_ready(
            Some("retail"),
            &["packagedistribution/pos-app", "packagedistribution/price-list", "pod/pos"],
        )
    }

    /// A node that bears another value of it, in somebody's cluster, keeps that.
    fn label(&self, node: &Node, label: &str) -> Result<()> {
        let said = self.commands.kubectl(&["label", "node", &node.name, label])?;
        let key = label.split('=').next().unwrap_or(label);
        if said.trim_end().ends_with(" labeled") && !said.contains("not labeled") {
            self.labelled.lock().unwrap_or_else(PoisonError::into_inner).push((node.name.clone(), key.to_owned()));
        }
        Ok(())
    }

    fn apply(&self, installed: &Installed, names: &[&str]) -> Result<()> {
        for name in names {
            self.commands.kubectl_with(&["apply", "--filename", "-"], &installed.samples.text(name)?)?;
        }
        Ok(())
    }

    /// With what the objects say when they do not become so.
    pub(crate) fn wait_for_ready(&self, namespace: Option<&str>, objects: &[&str]) -> Result<()> {
        let place: Vec<&str> = namespace.map(|name| vec!["--namespace", name]).unwrap_or_default();
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let wait = [&["wait", "--for=condition=Ready", &timeout], &place[..], objects].concat();
        let waited = self.commands.kubectl(&wait);
        waited.map(drop).with_context(|| {
            let describe = [&["describe"], &place[..], objects].concat();
            let pods = self.commands.kubectl(&["get", "pods", "--all-namespaces", "--output=wide"]).unwrap_or_default();
            format!("{}\n{pods}", self.commands.kubectl(&describe).unwrap_or_default())
        })
    }

    fn compare(&self, installed: &Installed) -> Result<()> {
        let Installed { sites, eyes, origin, .. } = installed;
        let all: Vec<&Node> = sites.all().collect();
        let store: Vec<&Node> = sites.store.iter().collect();
        for (package, nodes) in [("pos-app", store), ("price-list", all)] {
            let expected = origin.digests(&self.commands, package)?;
            ensure!(expected.lines().count() > 0, "{package} has no files at its source");
            for node in nodes {
                let found = eyes.digests(&self.commands, node, package)?;
                ensure!(found == expected, "{package} on {} differs:\n{found}\nexpected\n{expected}", node.name);
            }
        }
        let seen = self.commands.kubectl(&["logs", "--namespace=retail", "pod/pos"])?;
        ensure!(seen.contains("setting-1"), "the pod that uses pos-app sees:\n{seen}");
        Ok(())
    }

    fn count(&self, installed: &Installed) -> Result<()> {
        let metrics = installed.eyes.all_metrics(&self.commands, &installed.sites)?;
        // The role of the VESC, whose class the last one is, does not exist yet.
        for class in TransferClass::ALL.into_iter().filter(|class| *class != TransferClass::VescMessage) {
            let class = class.as_str();
            let labels = |direction| [("class", class), ("direction", direction)];
            let sum = |direction| -> u64 {
                metrics.iter().map(|page| page.sum("peerdist_transfer_bytes_total", &labels(direction))).sum()
            };
            let (sent, received) = (sum("sent"), sum("received"));
            println!("    {class:<20} {sent:>12} bytes sent {received:>12} received");
            ensure!(sent > 0 && received > 0, "{class}: nothing was sent or received");
        }
        Ok(())
    }

    fn take_packages(&self, installed: &Installed) -> Result<()> {
        let Installed { sites, eyes, .. } = installed;
        self.commands.kubectl(&["delete", "packagedistributions", "--all", "--namespace=retail", DELETE_TIMEOUT])?;
        self.eventually("no node holds anything of a deleted package", || {
            for node in sites.all() {
                let left = eyes.paths(&self.commands, node)?;
                let is_content = |path: &&String| path.starts_with(eyes::PACKAGES) || path.starts_with(eyes::STAGING);
                let content: Vec<&String> = left.iter().filter(is_content).collect();
                ensure!(content.is_empty(), "{}: {content:?}", node.name);
            }
            Ok(())
        })
    }

    fn delete(&self, installed: &Installed, name: &str) -> Result<()> {
        self.commands
            .kubectl_with(&["delete", "--filename", "-", DELETE_TIMEOUT], &installed.samples.text(name)?)
            .map(drop)
    }

    /// After a node came.
    pub(crate) fn reopen_eyes(&self, installed: &mut Installed) -> Result<()> {
        installed.eyes = Eyes::open(&self.commands, &self.images.tools, &installed.sites)?;
        Ok(())
    }

    fn bring_a_package_back(&self, installed: &Installed) -> Result<()> {
        self.apply(installed, &["packages.yaml"])?;
        self.wait_for_ready(Some("retail"), &["packagedistribution/pos-app"])
    }

    /// Whose definitions stay, and which nothing holds back.
    fn delete_samples(&self, installed: &Installed) -> Result<()> {
        for name in ["vesc-endpoint.yaml", "packages.yaml", "offices.yaml", "namespace.yaml"] {
            self.delete(installed, name)?;
        }
        Ok(())
    }

    /// What a PackageDistribution says about itself.
    pub(crate) fn package_status(&self, name: &str) -> Result<Value> {
        let get = ["get", "packagedistribution", name, "--namespace=retail", "--output=json"];
        let mut object: Value = serde_json::from_str(&self.commands.kubectl(&get)?)?;
        Ok(object["status"].take())
    }

    /// Tries until it is so; the last error tells what was not.
    pub(crate) fn eventually(&self, wanted: &str, mut look: impl FnMut() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        loop {
            match look() {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => bail!("never so: {wanted}: {error:#}"),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}
