//! The clients get a new form while a package is on its way: no node fails meanwhile, and clients of the store are replaced
//! before the package is everywhere. In that form they reserve their ports on the nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use peerdist_e2e_cluster::audit::{Audit, Write};
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;

use super::Disturbances;
use crate::phases::Phases;
use crate::user::User;

/// The package that is on its way.
const PACKAGE: &str = "clients-upgraded";
/// Who writes what is made of Offices.
const OPERATOR: &str = "system:serviceaccount:peerdist:peerdist-operator";
/// The clients of the store.
const STORE_CLIENTS: &str = "--selector=app.kubernetes.io/component=client,peerdist.io/office=store-0042";
/// What is kept out of the ephemeral range of nodes before and after.
const RESERVED_BEFORE: &str = "8080";
const RESERVED_AFTERWARDS: &str = "8080,34320-34760";
/// Between two looks at its status.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

impl Disturbances<'_> {
    /// A node of the store may be the rendezvous point when its client is replaced.
    pub(super) fn upgrade(&mut self, phases: &mut Phases) -> Result<()> {
        for node in self.installed.sites.all() {
            self.cluster.reserve_ports(&node.name, RESERVED_BEFORE)?;
        }
        let mut audit = Audit::of(&self.cluster.audit_log(), &[OPERATOR]);
        audit.new_writes()?;
        let link = self.in_the_middle(PACKAGE, phases, |this, _| {
            let user = this.user;
            while_no_node_fails(user, || replace_clients(user))
        })?;
        let replaced = self.clients_replaced_on_the_way()?;
        self.judge(PACKAGE, link, replaced)?;
        self.ensure_writes_are_few(&audit.new_writes()?)?;
        self.ensure_ports_are_reserved()
    }

    /// One for each Office, and two besides. What the statuses say meanwhile is not counted: it follows the nodes, once a
    /// second at most.
    fn ensure_writes_are_few(&self, writes: &[Write]) -> Result<()> {
        let listed = self.user.commands.kubectl(&["get", "offices", "--output=name"])?;
        let offices = listed.lines().count();
        let (statuses, objects): (Vec<&Write>, Vec<&Write>) =
            writes.iter().partition(|write| write.resource.ends_with("/status") || write.resource == "events");
        let (all, other) = (objects.len(), statuses.len());
        println!(
            "    another form of {offices} offices: {all} writes of the operator, and {other} of statuses and events"
        );
        let sets = objects.iter().filter(|write| write.resource == "daemonsets").count();
        ensure!(sets == offices, "one write for each of {offices} offices was expected: {objects:?}");
        ensure!(all <= offices + 2, "at most {} writes were expected: {objects:?}", offices + 2);
        Ok(())
    }

    /// How many clients of the store were replaced before the package was everywhere. All that run now came with the
    /// upgrade. Their times and those of conditions are whole seconds of UTC, whose texts are in the order of time.
    fn clients_replaced_on_the_way(&self) -> Result<usize> {
        let user = self.user;
        let created = "--output=jsonpath={range .items[*]}{.metadata.creationTimestamp}{\"\\n\"}{end}";
        let clients = ["get", "pods", "--namespace", PEERDIST, STORE_CLIENTS, created];
        let times = user.commands.kubectl(&clients)?;
        let status = user.package_status(PACKAGE)?;
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.filter(|condition| condition["type"] == "Ready");
        let ready = ready.filter_map(|condition| condition["lastTransitionTime"].as_str()).next();
        let ready = ready.context("a time since when the package is ready")?;
        let replaced = times.lines().filter(|time| *time < ready).count();
        println!("    {PACKAGE}: {replaced} clients of the store were replaced before the package was everywhere");
        ensure!(replaced > 0, "{PACKAGE} was everywhere at {ready}, and the clients were replaced at\n{times}");
        Ok(replaced)
    }

    /// On every node, beside what somebody else had reserved there.
    fn ensure_ports_are_reserved(&self) -> Result<()> {
        for node in self.installed.sites.all() {
            let found = self.cluster.reserved_ports(&node.name)?;
            ensure!(found == RESERVED_AFTERWARDS, "{}: {found} is reserved, expected {RESERVED_AFTERWARDS}", node.name);
        }
        Ok(())
    }
}

fn replace_clients(user: &User) -> Result<()> {
    user.change_clients()?;
    for office in ["central", "store-0042"] {
        let set = format!("daemonset/peerdist-office-{office}");
        user.commands.kubectl(&["rollout", "status", "--namespace", PEERDIST, &set, "--timeout=180s"])?;
    }
    Ok(())
}

/// Does something while another thread reads the status again and again. That thread inherits the network namespace of
/// this one, in which the API server is.
fn while_no_node_fails(user: &User, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        let looks = threads.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                let status = user.package_status(PACKAGE)?;
                let failed = status["nodes"]["failed"].as_i64().unwrap_or_default();
                ensure!(failed == 0, "{PACKAGE}: nodes failed while their clients were replaced: {status:#}");
                thread::sleep(LOOK_PAUSE);
            }
            Ok(())
        });
        let acted = act();
        is_over.store(true, Ordering::Relaxed);
        let looked = looks.join().map_err(|_| anyhow!("the looks at {PACKAGE} ended with a panic"))?;
        acted.and(looked)
    })
}
