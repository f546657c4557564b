//! What the API server accepted from the operator and others of whom a test wants to know, by its audit log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// Verbs that write.
const WRITES: [&str; 6] = ["create", "update", "patch", "delete", "deletecollection", "apply"];

/// Users under which operators run that are tried alone.
const OPERATORS: [&str; 3] = ["operator", "first", "second"];

/// Reads the log from where it ended last.
pub struct Audit {
    path: PathBuf,
    users: Vec<&'static str>,
    read: usize,
}

/// A write that the API server accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The user.
    pub by: String,
    /// Such as `patch`.
    pub verb: String,
    /// Such as `daemonsets` or `offices/status`.
    pub resource: String,
    /// Namespace of the object; empty where its kind has none.
    pub namespace: String,
    /// Name of the object; empty for one that was created.
    pub name: String,
    /// When the request came, cut to whole microseconds.
    pub received: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    user: User,
    request_received_timestamp: String,
    #[serde(default)]
    object_ref: Option<Object>,
    #[serde(default)]
    response_status: Option<Response>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
}

impl Audit {
    /// Looks at operators that are tried alone, and begins at the start of the log.
    pub fn new(path: &Path) -> Self {
        Self::of(path, &OPERATORS)
    }

    /// Looks at these users, and begins at the start of the log.
    pub fn of(path: &Path, users: &[&'static str]) -> Self {
        Self { path: path.to_owned(), users: users.to_vec(), read: 0 }
    }

    /// Writes of these users that were accepted since the last call, those of the Lease left out.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn new_writes(&mut self) -> Result<Vec<Write>> {
        let mut writes = self.new_accepted()?;
        writes.retain(|write| write.resource != "leases");
        Ok(writes)
    }

    /// The same until nothing more comes for this long.
    ///
    /// # Errors
    /// As [`Self::new_writes`].
    pub async fn settled(&mut self, quiet: Duration) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        loop {
            tokio::time::sleep(quiet).await;
            let fresh = self.new_writes()?;
            if fresh.is_empty() {
                return Ok(writes);
            }
            writes.extend(fresh);
        }
    }

    /// Writes of these users that were accepted since the last call.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn new_accepted(&mut self) -> Result<Vec<Write>> {
        let log = std::fs::read_to_string(&self.path).context("cannot read the audit log")?;
        // The last line may still be written.
        let end = log.rfind('\n').map_or(0, |end| end + 1);
        let fresh = log.get(self.read..end).unwrap_or_default();
        self.read = end;
        let entries = fresh.lines().map(|line| serde_json::from_str::<Entry>(line).context("a line of the audit log"));
        let writes = entries.filter_map(|entry| entry.and_then(|entry| self.accepted_write(entry)).transpose());
        writes.collect()
    }

    fn accepted_write(&self, entry: Entry) -> Result<Option<Write>> {
        let Entry { verb, user, request_received_timestamp, object_ref, response_status } = entry;
        let object = object_ref.unwrap_or_default();
        let accepted = response_status.is_some_and(|response| (200..300).contains(&response.code));
        if !accepted || !self.users.contains(&user.username.as_str()) || !WRITES.contains(&verb.as_str()) {
            return Ok(None);
        }
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        let received = request_received_timestamp.parse::<Timestamp>().context("a time of the audit log")?;
        let (namespace, name) = (object.namespace, object.name);
        Ok(Some(Write { by: user.username, verb, resource, namespace, name, received }))
    }
}
