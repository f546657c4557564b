//! The controller of PackageDistributions: dereference, validate, status. Nothing is built or applied: the server
//! fetches and distributes. The server writes counts with its own field manager, the conditions are the operator's.

mod status;
mod validate;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use peerdist_crds::PackageDistribution;

pub use self::status::{Expectation, derive};
pub use self::validate::{ValidPackage, validate};
use crate::conditions::refused;
use crate::context::{Context, ReconcileError};
use crate::names::client_objects;
use crate::office::node_counts;

/// Brings the conditions of a PackageDistribution up to date.
///
/// # Errors
/// [`ReconcileError`] when they could not be written; it is tried again.
pub async fn reconcile(object: Arc<PackageDistribution>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let valid = validate(&object, &context.fleet());
    let findings = match &valid {
        Err(refusal) => refused(refusal).to_vec(),
        Ok(valid) => derive(&object, dereference(valid, &context)),
    };
    let wait = context.statuses.write_package(&object, &findings, Timestamp::now()).await?;
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// How many nodes should hold the package, as the DaemonSets of its offices say.
fn dereference(valid: &ValidPackage, context: &Context) -> Expectation {
    let count = |office: &str| {
        let daemon_set = context.owned(&context.caches.daemon_sets, &client_objects(office));
        daemon_set.map_or(0, |daemon_set| node_counts(&daemon_set).desired)
    };
    Expectation {
        nodes: valid.offices.iter().map(|office| count(office.as_str())).sum(),
        central_nodes: count(valid.central.as_str()),
    }
}
