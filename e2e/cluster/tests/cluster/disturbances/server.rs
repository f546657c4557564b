//! The server moves to another node while a package is on its way, with an empty library. Clients learn its address from
//! a mounted file and from plans: none of them is replaced for that.

use anyhow::{Context, Result, ensure};
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;

use super::Disturbances;
use crate::phases::Phases;

/// The package that is on its way.
const PACKAGE: &str = "server-moved";
/// Its pod.
const POD: &str = "peerdist-server-0";
/// How long the next one may take to run.
const ROLLOUT_TIMEOUT: &str = "--timeout=120s";

impl Disturbances<'_> {
    /// From the first node of the Central Office to the second.
    pub(super) fn move_server(&mut self, phases: &mut Phases) -> Result<()> {
        let clients = self.clients()?;
        let link = self.in_the_middle(PACKAGE, phases, |this, _| this.take_server_elsewhere())?;
        self.judge(PACKAGE, link, 0)?;
        let afterwards = self.clients()?;
        ensure!(
            afterwards == clients,
            "clients were replaced because the server moved:\n{clients}\nand now\n{afterwards}"
        );
        Ok(())
    }

    /// As somebody does who needs its node for something else.
    fn take_server_elsewhere(&self) -> Result<()> {
        let central = &self.installed.sites.central;
        let (from, to) = central.first().zip(central.get(1)).context("two nodes of the Central Office")?;
        let commands = &self.user.commands;
        commands.kubectl(&["label", "node", &to.name, "peerdist.io/server="])?;
        commands.kubectl(&["label", "node", &from.name, "peerdist.io/server-"])?;
        commands.kubectl(&["delete", "pod", "--namespace", PEERDIST, POD])?;
        let server = "statefulset/peerdist-server";
        commands.kubectl(&["rollout", "status", "--namespace", PEERDIST, server, ROLLOUT_TIMEOUT])?;
        let get = ["get", "pod", "--namespace", PEERDIST, POD, "--output=jsonpath={.spec.nodeName}"];
        self.user.eventually("the server runs on the other node", || {
            let node = commands.kubectl(&get)?;
            ensure!(node == to.name, "it runs on {node}: expected {}", to.name);
            Ok(())
        })?;
        self.user.eventually("clients are told where the server is", || {
            let map =
                ["get", "configmap", "--namespace", PEERDIST, "peerdist-server", "--output=jsonpath={.data.address}"];
            let address = commands.kubectl(&map)?;
            ensure!(address == to.address.to_string(), "{address}, and it is at {}", to.address);
            Ok(())
        })
    }

    /// Every client's pod, by name and identity.
    fn clients(&self) -> Result<String> {
        let columns = "--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let list = ["get", "pods", "--namespace", PEERDIST, "--selector=app.kubernetes.io/component=client", columns];
        self.user.commands.kubectl(&list)
    }
}
