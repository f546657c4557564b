//! What a test gives back of a cluster that is not its own: everything that it made besides what the chart took away. So
//! nothing of that may be there before.

use std::sync::PoisonError;

use anyhow::{Result, ensure};
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;

use crate::eyes;
use crate::user::User;

/// The definitions, which the chart leaves.
const DEFINITIONS: [&str; 3] = ["offices.peerdist.io", "packagedistributions.peerdist.io", "vescendpoints.peerdist.io"];
/// What is gone already is no error.
const IF_THERE: &str = "--ignore-not-found";

/// Namespace of the samples.
const SAMPLES: &str = "retail";

impl User {
    /// An error when somebody uses what the test would take away at its end.
    pub(crate) fn ensure_cluster_is_free(&self) -> Result<()> {
        let definitions = ["get", "customresourcedefinitions", IF_THERE, "--output=name"];
        let found = self.commands.kubectl(&[&definitions[..], &DEFINITIONS].concat())?;
        let namespaces = ["get", "namespaces", IF_THERE, "--output=name", PEERDIST, eyes::NAMESPACE, SAMPLES];
        let found = found + &self.commands.kubectl(&namespaces)?;
        let found: Vec<&str> = found.lines().collect();
        ensure!(
            found.is_empty(),
            "the cluster has {}: expected one without peerdist and its samples",
            found.join(", ")
        );
        Ok(())
    }

    /// Removes definitions, namespaces and labels of nodes; after a journey that `failed` on its way also the chart. Then not
    /// all that is removed need be there. What cannot be removed keeps nothing else: the first error is told at the end.
    pub(crate) fn leave(&self, failed: bool) -> Result<()> {
        let uninstalled = if failed { self.uninstall_in_any_case() } else { Ok(()) };
        let definitions = ["delete", "customresourcedefinitions", IF_THERE, "--timeout=120s"];
        let undefined = self.commands.kubectl(&[&definitions[..], &DEFINITIONS].concat());
        let namespaces = [PEERDIST, eyes::NAMESPACE, SAMPLES];
        let delete = ["delete", "namespace", IF_THERE, "--timeout=120s"];
        let emptied = self.commands.kubectl(&[&delete[..], &namespaces].concat());
        let labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        let unlabel =
            |(node, label): &(String, String)| self.commands.kubectl(&["label", "node", node, &format!("{label}-")]);
        let unlabelled: Vec<Result<String>> = labelled.iter().map(unlabel).collect();
        uninstalled?;
        [undefined, emptied].into_iter().chain(unlabelled).try_for_each(|removed| removed.map(drop))
    }

    /// The Job that cleans up may be what cannot run.
    fn uninstall_in_any_case(&self) -> Result<()> {
        let uninstall =
            ["uninstall", "peerdist", "--namespace", PEERDIST, "--ignore-not-found", "--wait", "--timeout=6m"];
        if self.commands.helm(&uninstall).is_ok() {
            return Ok(());
        }
        self.commands.helm(&[&uninstall[..], &["--no-hooks"]].concat())?;
        // Nobody is left who would take the finalizers away.
        let keys = "--output=jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
        let packages = self.commands.kubectl(&["get", "packagedistributions", "--all-namespaces", keys])?;
        for (namespace, name) in packages.lines().filter_map(|line| line.split_once(' ')) {
            let patch = ["patch", "packagedistribution", name, "--namespace", namespace, "--type=merge"];
            self.commands.kubectl(&[&patch[..], &["--patch={\"metadata\":{\"finalizers\":null}}"]].concat())?;
        }
        Ok(())
    }
}
