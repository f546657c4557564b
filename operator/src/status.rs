//! Writes statuses: only when something changed, at most once a second and object, and an event when an object is
//! accepted, refused or ready for the first time.

mod throttle;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use peerdist_crds::office::OfficeNodeCounts;
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use serde_json::{Value, json};

use self::throttle::Throttle;
use crate::apply::{Applier, ApplyError, Desired, Outcome};
use crate::conditions::{ACCEPTED, Finding, READY, find, merge};

/// Longest note of an event; the API refuses more than 1,024 bytes.
const NOTE_CHARACTERS_MAX: usize = 250;

/// Writes statuses of all three kinds.
pub struct StatusWriter {
    applier: Applier,
    recorder: Recorder,
    throttle: Throttle,
}

/// What an object says about itself now, and what it should say.
struct Change<'object> {
    version: Option<String>,
    before: &'object [Condition],
    after: Vec<Condition>,
    status: Value,
    changed: bool,
}

impl StatusWriter {
    /// Writes through these.
    pub fn new(applier: Applier, recorder: Recorder) -> Self {
        Self { applier, recorder, throttle: Throttle::default() }
    }

    /// Writes an Office's status. Gives back how long to wait if it was too early.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn write_office(
        &self,
        object: &Office,
        nodes: Option<OfficeNodeCounts>,
        labels: Option<BTreeMap<String, String>>,
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<Option<Duration>, ApplyError> {
        let old = object.status.clone().unwrap_or_default();
        let generation = object.metadata.generation;
        let after = merge(&old.conditions, findings, generation, now);
        let mut status = json!({"observedGeneration": generation, "conditions": after});
        if let Some(nodes) = nodes {
            status["nodes"] = json!(nodes);
        }
        if let Some(labels) = &labels {
            status["labels"] = json!(labels);
        }
        let counts = (old.nodes, old.labels) != (nodes, labels);
        let changed = old.observed_generation != generation || old.conditions != after || counts;
        let version = object.resource_version();
        self.write(object, Change { version, before: &old.conditions, after, status, changed }).await
    }

    /// Writes the operator's part of a PackageDistribution's status: conditions. Counts are the server's.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn write_package(
        &self,
        object: &PackageDistribution,
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<Option<Duration>, ApplyError> {
        let old = object.status.clone().unwrap_or_default();
        self.write_conditions(object, old.observed_generation, &old.conditions, findings, now).await
    }

    /// Writes a VescEndpoint's status.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn write_vesc(
        &self,
        object: &VescEndpoint,
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<Option<Duration>, ApplyError> {
        let old = object.status.clone().unwrap_or_default();
        self.write_conditions(object, old.observed_generation, &old.conditions, findings, now).await
    }

    /// Writes an event about an object. It is a courtesy: one that cannot be written is only logged.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, event: &Event) {
        if let Err(error) = self.recorder.publish(event, &object.object_ref(&())).await {
            tracing::warn!(%error, object = %object.name_any(), "the event could not be written");
        }
    }

    async fn write_conditions<K>(
        &self,
        object: &K,
        observed: Option<i64>,
        before: &[Condition],
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<Option<Duration>, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let generation = object.meta().generation;
        let after = merge(before, findings, generation, now);
        let status = json!({"observedGeneration": generation, "conditions": after});
        let changed = observed != generation || before != after;
        self.write(object, Change { version: object.resource_version(), before, after, status, changed }).await
    }

    async fn write<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        change: Change<'_>,
    ) -> Result<Option<Duration>, ApplyError> {
        let Change { version, before, after, status, changed } = change;
        if !changed {
            return Ok(None);
        }
        let resource = ApiResource::erase::<K>(&());
        let (namespace, name) = (object.namespace(), object.name_any());
        let key = format!("{}/{}/{name}", resource.plural, namespace.as_deref().unwrap_or(""));
        if let Err(wait) = self.throttle.admit(&key, Instant::now()) {
            return Ok(Some(wait));
        }
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name},
            "status": status,
        });
        if let Some(namespace) = &namespace {
            body["metadata"]["namespace"] = json!(namespace);
        }
        let desired = Desired { resource, namespace, name, body };
        if self.applier.apply_status(&desired, version.as_deref()).await? == Outcome::Unchanged {
            return Ok(None);
        }
        for event in events(before, &after) {
            self.tell(object, &event).await;
        }
        Ok(None)
    }
}

/// What is worth an event: another verdict, and the first time of being ready.
fn events(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let status = |conditions: &[Condition], kind| {
        find(conditions, kind).map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    let mut events = Vec::new();
    let (was, is) = (status(before, ACCEPTED), find(after, ACCEPTED));
    if let Some(condition) = is.filter(|is| was != Some((is.status.clone(), is.reason.clone()))) {
        let first_and_fine = was.is_none() && condition.status == "True";
        if !first_and_fine {
            events.push(event(condition, "Validate"));
        }
    }
    let was_ready = find(before, READY).is_some_and(|condition| condition.status == "True");
    if let Some(condition) = find(after, READY).filter(|condition| condition.status == "True" && !was_ready) {
        events.push(event(condition, "Deliver"));
    }
    events
}

fn event(condition: &Condition, action: &str) -> Event {
    Event {
        type_: if condition.status == "True" { EventType::Normal } else { EventType::Warning },
        reason: condition.reason.clone(),
        note: Some(condition.message.chars().take(NOTE_CHARACTERS_MAX).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(findings: &[Finding]) -> Vec<Condition> {
        merge(&[], findings, Some(1), Timestamp::UNIX_EPOCH)
    }

    fn reasons(before: &[Finding], after: &[Finding]) -> Vec<String> {
        events(&conditions(before), &conditions(after)).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn events_tell_changes_and_nothing_else() {
        let valid = Finding::yes(ACCEPTED, "Valid", "");
        let bad = |reason| Finding::no(ACCEPTED, reason, "");
        let (ready, waits) = (Finding::yes(READY, "Done", ""), Finding::no(READY, "Waits", ""));
        assert!(reasons(&[], &[valid.clone(), waits.clone()]).is_empty());
        assert_eq!(reasons(&[], &[bad("A")]), ["A"]);
        assert!(reasons(&[bad("A")], &[bad("A")]).is_empty());
        assert_eq!(reasons(&[bad("A")], &[bad("B")]), ["B"]);
        assert_eq!(reasons(&[bad("A")], std::slice::from_ref(&valid)), ["Valid"]);
        assert_eq!(reasons(&[valid.clone(), waits], &[valid.clone(), ready.clone()]), ["Done"]);
        assert!(reasons(&[valid.clone(), ready.clone()], &[valid, ready]).is_empty());
    }
}
