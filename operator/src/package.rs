//! The controller of PackageDistributions: dereference, validate, status, and eviction at the end. Nothing is built or
//! applied: the server fetches and distributes. The server writes counts with its own field manager, the conditions are the operator's.

mod distributed;
mod eviction;
mod status;
mod trace;
mod validate;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use peerdist_core::names::OfficeName;
use peerdist_crds::PackageDistribution;
use tracing::Instrument;

pub use self::distributed::Expectation;
pub use self::status::derive;
pub use self::validate::{ValidPackage, validate};
use crate::conditions::refused;
use crate::context::{Context, ReconcileError};
use crate::fleet::{Fleet, Verdict};
use crate::names::client_objects;
use crate::office::expected_nodes;

/// Brings the conditions of a PackageDistribution up to date, as a part of the trace of its package.
///
/// # Errors
/// [`ReconcileError`] when they could not be written; it is tried again.
pub async fn reconcile(object: Arc<PackageDistribution>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let span = trace::span_of(&object);
    reconcile_in_trace(object, context).instrument(span).await
}

async fn reconcile_in_trace(object: Arc<PackageDistribution>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return eviction::reconcile(object, &context).await;
    }
    let fleet = context.fleet();
    let valid = validate(&object, &fleet, &context.settings.server.file_roots);
    if valid.is_ok() && !eviction::is_kept(&object) {
        eviction::keep(&object, &context).await?;
        // The object is told again, in its new version.
        return Ok(Action::await_change());
    }
    let findings = match &valid {
        Err(refusal) => refused(refusal).to_vec(),
        Ok(valid) => derive(&object, dereference(valid, &fleet, &context)),
    };
    let wait = context.statuses.write_package(&object, &findings, Timestamp::now()).await?;
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// How many nodes should hold the package, as the DaemonSets of its offices say.
fn dereference(valid: &ValidPackage, fleet: &Fleet, context: &Context) -> Expectation {
    let count = |name: &OfficeName| {
        let Some(Verdict::Accepted(office)) = fleet.verdict(name.as_str()) else { return None };
        let daemon_set = context.owned(&context.caches.daemon_sets, &client_objects(name.as_str()));
        expected_nodes(office, daemon_set.as_deref()).filter(|_| !fleet.awaits_labels(name.as_str()))
    };
    Expectation::new(valid.offices.iter().map(count), count(&valid.central))
}
