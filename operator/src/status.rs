//! Writes statuses: only when something changed, at most once a second and object, and an event when an object is
//! refused or its package cannot be brought in. What is well stands in the conditions, with its time: an event about it
//! would be a second write.

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
use crate::conditions::{ACCEPTED, Finding, INGESTED, find, merge, same_but_for_numbers};

/// Longest note of an event; the API refuses more.
const NOTE_BYTES_MAX: usize = 1024;

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
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, event: Event) {
        let event = Event { note: event.note.map(cut), ..event };
        // A recorder counts what it is given again for an object and a reason, whatever the note says, and shows the first
        // note alone. Each event has something new to say, so that each has a recorder of its own.
        let recorder = Recorder::new(self.applier.client(), self.reporter.clone());
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
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
        if let Some(event) = refusal(before, &after).or_else(|| failed_ingest(before, &after)) {
            self.tell(object, event).await;
        }
        Ok(None)
    }
}

/// The note as far as an event holds it.
fn cut(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    note
}

/// What is worth an event: that an object is refused, or for another reason than before.
fn refusal(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let (told, condition) = (denied(before, ACCEPTED), denied(after, ACCEPTED)?);
    let is_new = told.is_none_or(|told| told.reason != condition.reason);
    is_new.then(|| warning(condition, "Validate"))
}

/// And that a package cannot be brought in. The server tries again and again, and may say each time how far it came.
fn failed_ingest(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let (told, condition) = (denied(before, INGESTED), denied(after, INGESTED)?);
    let is_new = told
        .is_none_or(|told| told.reason != condition.reason || !same_but_for_numbers(&told.message, &condition.message));
    is_new.then(|| warning(condition, "Ingest"))
}

/// The condition of that type, if it does not hold.
fn denied<'conditions>(conditions: &'conditions [Condition], kind: &str) -> Option<&'conditions Condition> {
    find(conditions, kind).filter(|condition| condition.status == "False")
}

fn warning(condition: &Condition, action: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: condition.reason.clone(),
        note: Some(condition.message.clone()),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::READY;

    fn conditions(findings: &[Finding]) -> Vec<Condition> {
        merge(&[], findings, Some(1), Timestamp::UNIX_EPOCH)
    }

    fn told(before: &[Finding], after: &[Finding]) -> Option<String> {
        refusal(&conditions(before), &conditions(after)).map(|event| event.reason)
    }

    #[test]
    fn long_notes_are_cut_between_two_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        assert_eq!(cut("ä".repeat(NOTE_BYTES_MAX)).len(), NOTE_BYTES_MAX);
        assert_eq!(cut(format!("a{}", "ä".repeat(NOTE_BYTES_MAX))).len(), NOTE_BYTES_MAX - 1);
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

    #[test]
    fn an_ingest_that_fails_is_told_once_until_it_fails_otherwise() {
        let waits = Finding::unknown(INGESTED, "NotReported", "m");
        let signed = Finding::yes(INGESTED, "Signed", "m");
        let fails = |reason: &str, message: &str| Finding::no(INGESTED, reason, message);
        let missing = || fails("SourceMissing", "http://a/b does not exist");
        let away = |bytes: u32| fails("SourceUnavailable", &format!("it did not deliver after {bytes} bytes"));
        let of = |reason: &str, note: &str| Some((reason.to_owned(), note.to_owned()));
        for (before, after, expected) in [
            (None, waits.clone(), None),
            (Some(waits.clone()), missing(), of("SourceMissing", "http://a/b does not exist")),
            (Some(signed.clone()), missing(), of("SourceMissing", "http://a/b does not exist")),
            (None, missing(), of("SourceMissing", "http://a/b does not exist")),
            (Some(missing()), missing(), None),
            (Some(missing()), fails("SourceMissing", "c"), of("SourceMissing", "c")),
            (Some(missing()), away(7), of("SourceUnavailable", "it did not deliver after 7 bytes")),
            (Some(away(7)), away(1000), None),
            (Some(missing()), waits, None),
            (Some(missing()), signed, None),
        ] {
            let before: Vec<Finding> = before.into_iter().collect();
            let event = failed_ingest(&conditions(&before), &conditions(&[after]));
            let event = event.map(|event| (event.reason, event.note.unwrap_or_default()));
            assert_eq!(event, expected, "{before:?}");
        }
    }
}
