//! What a user does with Helm: installs the chart, changes it, uninstalls it, and the same with the Helm before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;

use crate::leftovers::left_in_cluster;
use crate::origin::Origin;
use crate::user::{Installed, User};

/// The chart.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/peerdist");

/// In which uninstalling ends, whatever the nodes do.
const UNINSTALL_MAX: Duration = Duration::from_secs(360);

impl User {
    /// The operator itself runs where Pod Security is at its strictest; only clients and server need more.
    pub(crate) fn helm_install(&self, origin: &Origin) -> Result<()> {
        self.commands.kubectl(&["create", "namespace", PEERDIST])?;
        self.enforce("restricted")?;
        let allowed = format!("server.allowedSources={{{}/32}}", origin.address);
        self.commands.helm(&[&self.install_arguments()[..], &["--set", &allowed]].concat())?;
        self.enforce("privileged")
    }

    fn install_arguments(&self) -> Vec<&str> {
        let install = ["install", "peerdist", CHART, "--namespace", PEERDIST, "--wait", "--timeout=2m"];
        // How full the disk of the nodes is, is not what is tried.
        let disk = ["--set", "server.storage.keepFreePercent=0"];
        install.into_iter().chain(disk).chain(self.images.values.iter().flat_map(|value| ["--set", value])).collect()
    }

    fn enforce(&self, level: &str) -> Result<()> {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        self.commands.kubectl(&["label", "namespace", PEERDIST, &label, "--overwrite"]).map(drop)
    }

    /// Gives all clients a new form, in which they reserve their ports.
    pub(crate) fn change_clients(&self) -> Result<()> {
        let values = ["--reuse-values", "--set=agent.reservePorts=true", "--wait", "--timeout=2m"];
        self.commands.helm(&[&["upgrade", "peerdist", CHART, "--namespace", PEERDIST], &values[..]].concat()).map(drop)
    }

    /// With Offices and packages still there: the chart cleans up after itself.
    pub(crate) fn uninstall(&self, installed: &Installed) -> Result<()> {
        let start = Instant::now();
        self.commands.helm(&["uninstall", "peerdist", "--namespace", PEERDIST, "--wait", "--timeout=6m"])?;
        // Helm counts its time for each of its steps anew.
        ensure!(
            start.elapsed() <= UNINSTALL_MAX,
            "helm uninstall took {:?}: at most {UNINSTALL_MAX:?}",
            start.elapsed()
        );
        self.ensure_nothing_is_left(installed)
    }

    fn ensure_nothing_is_left(&self, installed: &Installed) -> Result<()> {
        let Installed { sites, eyes, .. } = installed;
        self.eventually("nothing of the release and of its pods is left in the cluster", || {
            let left = left_in_cluster(&self.commands)?;
            ensure!(left.is_empty(), "{}", left.join(" "));
            Ok(())
        })?;
        for node in sites.all() {
            let left = eyes.paths(&self.commands, node)?;
            ensure!(left.is_empty(), "left behind on {}: {}", node.name, left.join(" "));
        }
        Ok(())
    }

    /// Without objects: what the chart makes is the same.
    pub(crate) fn use_helm_of_old(&self, installed: &Installed) -> Result<()> {
        self.commands.helm_of_old(&self.install_arguments())?;
        self.commands.helm_of_old(&["test", "peerdist", "--namespace", PEERDIST])?;
        self.commands.helm_of_old(&["uninstall", "peerdist", "--namespace", PEERDIST, "--wait", "--timeout=6m"])?;
        self.ensure_nothing_is_left(installed)
    }
}
