//! The controller of Offices: dereference, validate, build, apply, status. Validating is done for all offices together
//! in [`fleet`](crate::fleet), and so is labelling nodes.

mod build;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use peerdist_crds::Office;

pub use self::build::{ClientObjects, build};
pub use self::status::{Situation, derive, node_counts};
use crate::apply::{ApplyError, differs};
use crate::context::{Context, ReconcileError};
use crate::fleet::{ValidOffice, Verdict};
use crate::names::client_objects;
use crate::server;

/// What the cluster has of an office.
struct Live {
    config_map: Option<Arc<ConfigMap>>,
    service_account: Option<Arc<ServiceAccount>>,
    daemon_set: Option<Arc<DaemonSet>>,
}

/// Makes the cluster what the Office says.
///
/// # Errors
/// [`ReconcileError`] when something could not be written; it is tried again.
pub async fn reconcile(object: Arc<Office>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let name = object.name_any();
    let live = dereference(&name, &context);
    let Some(verdict) = context.fleet().verdict(&name).cloned() else {
        // The fleet is judged again within moments, and this object is then told to come again.
        return Ok(Action::await_change());
    };
    let (situation, failure) = match &verdict {
        Verdict::Refused(refusal) => (Situation::Refused(refusal.clone()), None),
        Verdict::Accepted(office) => bring_about(office, &live, &context).await,
    };
    let findings = derive(&situation, live.daemon_set.as_deref());
    let counts = live.daemon_set.as_deref().map(node_counts);
    let wait = context.statuses.write_office(&object, counts, &findings, Timestamp::now()).await?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(wait.map_or_else(Action::await_change, Action::requeue)),
    }
}

fn dereference(office: &str, context: &Context) -> Live {
    let name = client_objects(office);
    Live {
        config_map: context.owned(&context.caches.config_maps, &name),
        service_account: context.owned(&context.caches.service_accounts, &name),
        daemon_set: context.owned(&context.caches.daemon_sets, &name),
    }
}

async fn bring_about(office: &ValidOffice, live: &Live, context: &Context) -> (Situation, Option<ApplyError>) {
    let desired = build(office, &context.settings, &context.namespace);
    let applied = apply(&desired, live, context).await;
    let server = match office.is_central() {
        true => Some(server::reconcile(office, context).await),
        false => None,
    };
    let (server, applied) = match server {
        Some(Ok(server)) => (Some(server), applied),
        Some(Err(error)) => (None, applied.and(Err(error))),
        None => (None, applied),
    };
    match applied {
        Err(error) => {
            let situation = Situation::NotApplied { reason: error.reason(), message: error.to_string() };
            (situation, Some(error))
        }
        Ok(()) => {
            let shown = live.daemon_set.as_deref().and_then(|daemon_set| serde_json::to_value(daemon_set).ok());
            let current = shown.is_some_and(|shown| !differs(&desired.daemon_set.body, &shown));
            (Situation::Applied { current, server }, None)
        }
    }
}

/// The DaemonSet last: its pods need the others.
async fn apply(desired: &ClientObjects, live: &Live, context: &Context) -> Result<(), ApplyError> {
    let ClientObjects { config_map, service_account, daemon_set } = desired;
    context.apply(config_map, live.config_map.as_deref()).await?;
    context.apply(service_account, live.service_account.as_deref()).await?;
    context.apply(daemon_set, live.daemon_set.as_deref()).await
}
