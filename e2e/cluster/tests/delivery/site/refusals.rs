//! Enrolments that the server refuses: what it says in its log, and what stands in an event.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use super::{NODES, Site};

/// How the server's words about a refusal begin.
const REFUSED: &str = "enrolment refused: ";
/// Longer ago than the API server overlooks.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(1);

impl Site {
    /// A token that is the same but for its time, which is over.
    pub(crate) fn expired(&self, token: &str) -> Result<String> {
        let end = Timestamp::now() - LONG_AGO;
        let begin = end - LONG_AGO;
        self.installation.plane.token_with(token, |claims| {
            claims["exp"] = json!(end.as_second());
            claims["iat"] = json!(begin.as_second());
            claims["nbf"] = json!(begin.as_second());
        })
    }

    /// Starts the client anew with another token and nothing on its disk, and waits until the server has said why it
    /// refuses it, in its log and in an event on this object.
    pub(crate) async fn expect_refusal(
        &mut self,
        name: &'static str,
        token: &str,
        said: &str,
        regarding: (&str, &str),
    ) -> Result<()> {
        let node = NODES.iter().find(|node| node.name == name).context("a node")?;
        drop(self.clients.remove(name));
        fs::remove_dir_all(self.root(name))?;
        let before = self.server.log()?.len();
        let client = self.start_client(node, token)?;
        let (server, mut reason) = (&self.server, String::new());
        eventually(&format!("the server refuses {name}: {said}"), async || {
            let log = server.log()?;
            let found = log[before..].lines().filter_map(refusal).find(|refusal| refusal.contains(said));
            reason = found.unwrap_or_default();
            Ok(!reason.is_empty())
        })
        .await?;
        ensure!(!self.root(name).join("identity/enrolment").exists(), "{name} has a certificate");
        self.clients.insert(name, client);
        let (kind, object) = regarding;
        eventually(&format!("an event on {kind} {object} says: {reason}"), async || {
            let notes = self.notes("EnrolmentRefused", kind, object).await?;
            Ok(notes.iter().any(|note| note.ends_with(&reason)))
        })
        .await
    }

    /// What the events with this reason on an object say.
    pub(crate) async fn notes(&self, reason: &str, kind: &str, name: &str) -> Result<Vec<String>> {
        let events = Api::<Event>::all(self.administrator()).list(&Default::default()).await?;
        let told = events.into_iter().filter(|event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            let is_regarded = regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name);
            is_regarded && event.reason.as_deref() == Some(reason)
        });
        Ok(told.filter_map(|event| event.note).collect())
    }
}

/// Why an enrolment was refused, if this line of the log says that one was.
fn refusal(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    Some(entry["message"].as_str()?.strip_prefix(REFUSED)?.to_owned())
}
