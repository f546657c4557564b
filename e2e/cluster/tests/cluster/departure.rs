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
    /// all that is removed need be there.
    pub(crate) fn leave(&self, failed: bool) -> Result<()> {
        if failed {
            let uninstall = ["uninstall", "peerdist", "--namespace", PEERDIST, "--wait", "--timeout=6m"];
            self.commands.helm(&[&uninstall[..], &["--ignore-not-found"]].concat())?;
        }
        let definitions = ["delete", "customresourcedefinitions", IF_THERE, "--timeout=120s"];
        self.commands.kubectl(&[&definitions[..], &DEFINITIONS].concat())?;
        let namespaces = [PEERDIST, eyes::NAMESPACE, SAMPLES];
        self.commands.kubectl(&[&["delete", "namespace", IF_THERE, "--timeout=120s"][..], &namespaces].concat())?;
        for (node, label) in self.labelled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.commands.kubectl(&["label", "node", node, &format!("{label}-")])?;
        }
        Ok(())
    }
}
