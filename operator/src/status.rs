//! Writes statuses: only when something changed, at most once a second and object, and an event when an object is
//! refused. What is well stands in the conditions, with its time: an event about it would be a second write.

mod throttle;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Resource, ResourceExt};
use peerdist_crds::office::OfficeNodeCounts;
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use serde_json::{Value, json};

use self::throttle::Throttle;
use crate::apply::{Applier, ApplyError, Desired, Outcome};
use crate::conditions::{ACCEPTED, Finding, find, merge};

/// Longest note of an event; the API refuses more than 1,024 bytes.
const NOTE_CHARACTERS_MAX: usize = 250;

/// Writes statuses of all three kinds.
pub struct StatusWriter {
    applier: Applier,
    reporter: Reporter,
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
    /// Writes through this applier, and events in this name.
    pub fn new(applier: Applier, reporter: Reporter) -> Self {
        Self { applier, reporter, throttle: Throttle::default() }
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
        // A recorder counts what it is given again for an object and a reason, whatever the note says, and shows the first
        // note alone. Each event has something new to say, so that each has a recorder of its own.
        let recorder = Recorder::new(self.applier.client(), self.reporter.clone());
        if let Err(error) = recorder.publish(event, &object.object_ref(&())).await {
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
        let written = self.applier.apply_status(&desired, version.as_deref()).await;
        self.throttle.ended(&key, Instant::now());
        if written? == Outcome::Unchanged {
            return Ok(None);
        }
        if let Some(event) = refusal(before, &after) {
            self.tell(object, &event).await;
        }
        Ok(None)
    }
}

/// What is worth an event: that an object is refused, or for another reason than before.
fn refusal(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let told = find(before, ACCEPTED).filter(|condition| condition.status == "False");
    let condition = find(after, ACCEPTED).filter(|condition| condition.status == "False")?;
    let is_new = told.is_none_or(|told| told.reason != condition.reason);
    is_new.then(|| Event {
        type_: EventType::Warning,
        reason: condition.reason.clone(),
        note: Some(condition.message.chars().take(NOTE_CHARACTERS_MAX).collect()),
        action: "Validate".to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::READY;

    fn told(before: &[Finding], after: &[Finding]) -> Option<String> {
        let conditions = |findings| merge(&[], findings, Some(1), Timestamp::UNIX_EPOCH);
        refusal(&conditions(before), &conditions(after)).map(|event| event.reason)
    }

    #[test]
    fn events_tell_refusals_and_nothing_else() {
        let valid = || Finding::yes(ACCEPTED, "Valid", "");
        let bad = |reason| Finding::no(ACCEPTED, reason, "");
        let of = |reason: &str| Some(reason.to_owned());
        assert_eq!(told(&[], &[valid()]), None);
        assert_eq!(told(&[], &[bad("A")]), of("A"));
        assert_eq!(told(&[valid()], &[bad("A")]), of("A"));
        assert_eq!(told(&[bad("A")], &[bad("A")]), None);
        assert_eq!(told(&[bad("A")], &[bad("B")]), of("B"));
        assert_eq!(told(&[bad("A")], &[valid()]), None);
        let ready = |ready: Finding| [valid(), ready];
        let (no, yes) = (Finding::no(READY, "Waits", ""), Finding::yes(READY, "Done", ""));
        assert_eq!(told(&ready(no), &ready(yes)), None);
    }
}
