//! Server-side apply that writes only what differs. The live object comes from the cache; an apply carries the
//! resource version that was read, so that whoever wrote in between wins.

mod difference;
mod memory;

use std::time::Instant;

use kube::api::{Api, ApiResource, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::difference::differs;
pub use self::memory::Memory;
use self::memory::{Seen, Verdict, key, status_key};
use crate::held::Written;
use crate::names::{APPLIED_ANNOTATION, FIELD_MANAGER, digest};

/// An object as it should be. Without resource version and status.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace, unless the kind has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// All of it, with the digest of the rest as an annotation.
    pub body: Value,
}

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The cluster has it already.
    Unchanged,
    /// It was written.
    Written,
}

/// A write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused it, or could not be reached.
    #[error("cannot apply {object}: {}", describe(source))]
    Api {
        /// Kind and name.
        object: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The cached object is no JSON, which no object of the API server is.
    #[error("cannot read {object} from the cache: {source}")]
    Cached {
        /// Kind and name.
        object: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// Somebody else wrote in between: what is known is old.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_conflict(source))
    }

    /// It may pass by itself within moments, and says nothing about the object.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), "TooManyRequests" | "ServerError" | "Unreachable")
    }

    /// The kind of the error in one word, for metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cached { .. } => "Cache",
            Self::Api { source, .. } => api_reason(source),
        }
    }
}

/// The kind of an error of the API in one word.
pub fn api_reason(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            400 | 422 => "Invalid",
            429 => "TooManyRequests",
            _ => "ServerError",
        },
        _ => "Unreachable",
    }
}

/// Whether somebody else wrote in between.
pub fn is_conflict(error: &kube::Error) -> bool {
    api_reason(error) == "Conflict"
}

/// What is gone needs nothing more, which is no error. `None`: it is gone.
pub(crate) fn unless_gone<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(error) if api_reason(&error) == "NotFound" => Ok(None),
        answer => answer.map(Some),
    }
}

/// Errors of the API say everything twice; once is enough.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl Desired {
    /// An object of a kind that Kubernetes has.
    pub fn new<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, mut body: Value) -> Self {
        let resource = ApiResource::erase::<K>(&());
        body["apiVersion"] = json!(resource.api_version);
        body["kind"] = json!(resource.kind);
        body["metadata"]["name"] = json!(name);
        body["metadata"]["namespace"] = json!(namespace);
        body["metadata"]["annotations"][APPLIED_ANNOTATION] = json!(digest(&body.to_string()));
        Self { resource, namespace: Some(namespace.to_owned()), name: name.to_owned(), body }
    }

    /// Whether a live object was written in this form. What others make of it does not count: a policy that puts in
    /// another image, or somebody who adds a variable. Whoever edits its spec gives it another generation.
    pub fn was_applied_to<K: Resource>(&self, live: &K) -> bool {
        let applied = live.annotations().get(APPLIED_ANNOTATION).map(String::as_str);
        applied.is_some() && applied == self.body["metadata"]["annotations"][APPLIED_ANNOTATION].as_str()
    }

    fn describe(&self) -> String {
        format!("{} {}", self.resource.kind, self.name)
    }

    fn key(&self) -> String {
        key(&self.resource.plural, self.namespace.as_deref(), &self.name)
    }
}

/// Writes objects and statuses, and remembers what it wrote until the cache shows it.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    memory: Memory,
}

impl Applier {
    /// Writes through this client. The watches tell the memory what was deleted.
    pub fn new(client: Client, memory: Memory) -> Self {
        Self { client, memory }
    }

    /// What it writes through, for writes that are no apply.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Makes the cluster have the object. `live` is what the cache holds.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply<K: Serialize>(&self, desired: &Desired, live: Option<&K>) -> Result<Outcome, ApplyError> {
        let live = live.map(serde_json::to_value).transpose();
        let live = live.map_err(|source| ApplyError::Cached { object: desired.describe(), source })?;
        if live.as_ref().is_some_and(|live| !differs(&desired.body, live)) {
            return Ok(Outcome::Unchanged);
        }
        self.write(desired, live.as_ref(), false).await
    }

    /// Writes a status. `live` is the object that was read; it is the caller who compares.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply_status(&self, desired: &Desired, live_version: Option<&str>) -> Result<Outcome, ApplyError> {
        let live = json!({"metadata": {"resourceVersion": live_version}});
        self.write(desired, Some(&live), true).await
    }

    async fn write(&self, desired: &Desired, live: Option<&Value>, status: bool) -> Result<Outcome, ApplyError> {
        let shown = live.map(|live| Seen::of(&live["metadata"])).unwrap_or_default();
        let key = if status { status_key(&desired.key()) } else { desired.key() };
        let wanted = digest(&desired.body.to_string());
        if self.memory.look_up(&key, &wanted, &shown, Instant::now()) == Verdict::Written {
            return Ok(Outcome::Unchanged);
        }
        let mut body = desired.body.clone();
        if let Some(version) = &shown.version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        let api = self.api(desired);
        let (parameters, patch) = (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(&body));
        let written = match status {
            true => api.patch_status(&desired.name, &parameters, &patch).await,
            false => api.patch(&desired.name, &parameters, &patch).await,
        };
        // An object that was deleted meanwhile took along whatever it says about itself.
        let written = if status { unless_gone(written) } else { written.map(Some) };
        let written =
            written.map_err(|source| ApplyError::Api { object: desired.describe(), source: Box::new(source) })?;
        let Some(written) = written else { return Ok(Outcome::Unchanged) };
        let after = Seen::of(&serde_json::to_value(&written.metadata).unwrap_or_default());
        self.memory.remember(key, wanted, shown, after, Instant::now());
        tracing::info!(object = %desired.describe(), status, "applied");
        Ok(Outcome::Written)
    }

    fn api(&self, desired: &Desired) -> Api<Written> {
        match &desired.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &desired.resource),
            None => Api::all_with(self.client.clone(), &desired.resource),
        }
    }
}
