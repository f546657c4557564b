//! The end of a PackageDistribution: a finalizer keeps the object until the nodes have let go of the package, as the
//! server tells, and goes after a while in any case. What a node that is away still holds goes when it hears the plan.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use peerdist_crds::PackageDistribution;
use peerdist_crds::readable::Readable;
use serde_json::{Value, json};

use crate::apply::{ApplyError, unless_gone};
use crate::context::{Context, ReconcileError};
use crate::names::{EVICTION_FINALIZER, FIELD_MANAGER};
use crate::watches::server_office;

/// Longest time for which a deleted object waits for nodes.
const PATIENCE: Duration = Duration::from_secs(600);

/// What becomes of a deleted object.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nodes may still hold the package.
    Wait(Duration),
    /// Nobody holds it, or nobody is there who could tell.
    Release,
    /// The time is over; the text says what is left.
    GiveUp(String),
}

/// Whether the object has our finalizer.
pub(super) fn is_kept(object: &PackageDistribution) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == EVICTION_FINALIZER)
}

/// Puts the finalizer.
///
/// # Errors
/// [`ReconcileError`] when it could not be written; it is tried again.
pub(super) async fn keep(object: &PackageDistribution, context: &Context) -> Result<(), ReconcileError> {
    let finalizers = object.finalizers().iter().map(String::as_str).chain([EVICTION_FINALIZER]).collect();
    write(object, finalizers, context).await
}

/// Lets a deleted object go when it is time.
///
/// # Errors
/// [`ReconcileError`] when it could not be written; it is tried again.
pub(super) async fn reconcile(object: Arc<PackageDistribution>, context: &Context) -> Result<Action, ReconcileError> {
    if !is_kept(&object) {
        return Ok(Action::await_change());
    }
    // Also one that somebody removed: it is made again, and says who holds what.
    let has_server = server_office(&context.caches).is_some() || context.fleet().central().is_some();
    let note = match judge(&object, has_server, Timestamp::now()) {
        Verdict::Wait(time) => return Ok(Action::requeue(time)),
        Verdict::Release => None,
        Verdict::GiveUp(note) => Some(note),
    };
    let others = object.finalizers().iter().map(String::as_str).filter(|name| *name != EVICTION_FINALIZER).collect();
    write(&object, others, context).await?;
    // Not before, since a write that fails is done again.
    if let Some(note) = note {
        context.statuses.tell(&*object, incomplete(note)).await;
    }
    Ok(Action::await_change())
}

fn incomplete(note: String) -> Event {
    Event {
        type_: EventType::Warning,
        reason: "EvictionIncomplete".to_owned(),
        note: Some(note),
        action: "Evict".to_owned(),
        secondary: None,
    }
}

fn judge(object: &PackageDistribution, has_server: bool, now: Timestamp) -> Verdict {
    let eviction = object.status.as_ref().and_then(|status| status.eviction.as_ref());
    let deleted = object.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let waited = Duration::try_from(now.duration_since(deleted)).unwrap_or_default();
    match eviction {
        Some(eviction) if eviction.nodes <= 0 => Verdict::Release,
        _ if !has_server => Verdict::Release,
        _ if waited < PATIENCE => Verdict::Wait(PATIENCE - waited),
        None => Verdict::GiveUp("the server did not say which nodes still hold the package: see its log".to_owned()),
        Some(eviction) => {
            let named = eviction.named.join(", ");
            let more =
                if eviction.named.len() < usize::try_from(eviction.nodes).unwrap_or_default() { ", ..." } else { "" };
            Verdict::GiveUp(format!(
                "{} nodes have not confirmed after {} minutes that they let go of the package, and delete it when they \
                 hear the next plan: {named}{more}",
                eviction.nodes,
                PATIENCE.as_secs() / 60
            ))
        }
    }
}

/// A merge patch at the version that was read, so that nobody else's finalizer gets lost.
fn patch(version: Option<String>, finalizers: Vec<&str>) -> Value {
    json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}})
}

async fn write(object: &PackageDistribution, finalizers: Vec<&str>, context: &Context) -> Result<(), ReconcileError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<Readable<PackageDistribution>> = Api::namespaced(context.applier.client(), &namespace);
    let patch = Patch::Merge(patch(object.resource_version(), finalizers));
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let written = unless_gone(api.patch(&name, &parameters, &patch).await);
    written.map(drop).map_err(|source| {
        let object = format!("PackageDistribution {namespace}/{name}");
        ApplyError::Api { object, source: Box::new(source) }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deleted(status: Value) -> PackageDistribution {
        let metadata = json!({
            "name": "app", "namespace": "retail", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["theirs", EVICTION_FINALIZER],
        });
        let spec = json!({"version": "1", "source": {"uri": "https://a/b"}});
        serde_json::from_value(json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "PackageDistribution",
            "metadata": metadata, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + k8s_openapi::jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn an_object_waits_for_nodes_that_hold_it_and_not_for_ever() {
        let holding = deleted(json!({"eviction": {"nodes": 3, "named": ["till-1", "till-2"]}}));
        assert_eq!(judge(&holding, true, after(60)), Verdict::Wait(Duration::from_secs(540)));
        let Verdict::GiveUp(note) = judge(&holding, true, after(600)) else { panic!("it waits for ever") };
        assert!(note.starts_with("3 nodes") && note.contains("till-1, till-2, ..."), "{note}");
        assert_eq!(judge(&deleted(json!({"eviction": {"nodes": 0}})), true, after(0)), Verdict::Release);
    }

    #[test]
    fn silence_of_the_server_counts_only_where_there_is_one() {
        let silent = deleted(json!({}));
        let holding = deleted(json!({"eviction": {"nodes": 3, "named": ["till-1", "till-2"]}}));
        for object in [&silent, &holding] {
            assert_eq!(judge(object, false, after(0)), Verdict::Release);
        }
        assert_eq!(judge(&silent, true, after(1)), Verdict::Wait(Duration::from_secs(599)));
        assert!(matches!(judge(&silent, true, after(601)), Verdict::GiveUp(_)));
    }

    #[test]
    fn finalizers_of_others_stay() {
        let object = deleted(json!({}));
        assert!(is_kept(&object));
        let patch = patch(Some("7".to_owned()), vec!["theirs"]);
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "7", "finalizers": ["theirs"]}}));
    }
}
