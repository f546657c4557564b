//! What a test gives back of a cluster that is not its own: everything that it made besides what the chart took away.

use std::sync::PoisonError;

use anyhow::Result;
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;

use crate::eyes;
use crate::user::User;

/// The definitions, which the chart leaves.
const DEFINITIONS: [&str; 3] = ["offices.peerdist.io", "packagedistributions.peerdist.io", "vescendpoints.peerdist.io"];

impl User {
    /// Removes definitions, namespaces and labels of nodes.
    pub(crate) fn leave(&self) -> Result<()> {
        self.commands.kubectl(&[&["delete", "customresourcedefinitions"][..], &DEFINITIONS].concat())?;
        self.commands.kubectl(&["delete", "namespace", PEERDIST, eyes::NAMESPACE, "--timeout=120s"])?;
        for (node, label) in self.labelled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.commands.kubectl(&["label", "node", node, &format!("{label}-")])?;
        }
        Ok(())
    }
}
