//! `peerdist-operator check`, which `helm test` runs: do the three kinds exist, does an operator hold the Lease and renew
//! it, does each Office have its verdict, is the operator ready? It prints a line a check and writes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Request;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, MicroTime};
use kube::api::{Api, ListParams};
use kube::config::InferConfigError;
use kube::{Client, Config, ResourceExt};
use peerdist_crds::Office;
use peerdist_crds::readable::Readable;
use tokio::time::{Instant, sleep, timeout};

use crate::apply::describe;
use crate::conditions::{ACCEPTED, READY, find};
use crate::options::LeaseOptions;
use crate::pages::Pages;

/// Pause between two looks; a Lease is renewed more often than that.
const LOOK_PAUSE: Duration = Duration::from_secs(3);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Offices that a line names.
const OFFICES_NAMED_MAX: usize = 3;
/// The kinds that must be there.
const KINDS: [&str; 3] = ["Office", "PackageDistribution", "VescEndpoint"];

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// Where operators tell their health, without the path
    #[arg(
        long,
        value_name = "URL",
        env = "PEERDIST_OPERATOR_URL",
        default_value = "http://peerdist-operator.peerdist:9763"
    )]
    pub operator_url: String,
    /// How long to look again while something is not right
    #[arg(long, value_name = "SECONDS", env = "PEERDIST_PATIENCE_SECONDS", default_value_t = 120)]
    pub patience_seconds: u64,
    /// The election.
    #[command(flatten)]
    pub lease: LeaseOptions,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nothing says where the API server is.
    #[error("no Kubernetes API is configured: {0}: expected a service account or KUBECONFIG")]
    Configuration(#[from] InferConfigError),
    /// The API server cannot be reached as configured.
    #[error("cannot connect to the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
    /// The operator's URL is none.
    #[error("--operator-url {url} is no URL: {source}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        source: axum::http::uri::InvalidUri,
    },
}

/// Outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether all is well.
    pub is_ok: bool,
    /// The check, in a word.
    pub check: &'static str,
    /// What was seen, and what to do.
    pub seen: String,
}

impl Line {
    fn new(check: &'static str, outcome: Result<String, String>) -> Self {
        let is_ok = outcome.is_ok();
        Self { is_ok, check, seen: outcome.unwrap_or_else(|seen| seen) }
    }
}

/// Checks the cluster that this process runs in, prints what it saw, and says whether all is well.
///
/// # Errors
/// [`CheckError`] when nothing could be checked.
pub async fn run(options: CheckOptions) -> Result<bool, CheckError> {
    let client = Client::try_from(Config::infer().await?)?;
    let lines = check(client, &options).await?;
    for Line { is_ok, check, seen } in &lines {
        println!("{:<6}{check:<10}{seen}", if *is_ok { "ok" } else { "fail" });
    }
    Ok(lines.iter().all(|line| line.is_ok))
}

/// Looks until all is well or the patience is over, and gives back what it saw last.
///
/// # Errors
/// [`CheckError`] when nothing could be checked.
pub async fn check(client: Client, options: &CheckOptions) -> Result<Vec<Line>, CheckError> {
    let url = options.operator_url.parse();
    let url = url.map_err(|source| CheckError::Url { url: options.operator_url.clone(), source })?;
    let mut config = Config::new(url);
    config.read_timeout = Some(ANSWER_TIMEOUT);
    let operator = Client::try_from(config)?;
    let deadline = Instant::now() + Duration::from_secs(options.patience_seconds);
    let first = lease(&client, &options.lease).await.ok();
    loop {
        sleep(LOOK_PAUSE).await;
        let lines = vec![
            Line::new("kinds", answer(kinds(&client)).await.and_then(|found| judge_kinds(&found))),
            Line::new("lease", lease(&client, &options.lease).await.and_then(|now| judge_lease(first.as_ref(), &now))),
            Line::new("offices", answer(offices(&client)).await.and_then(|found| judge_offices(&found))),
            Line::new("operator", readiness(&operator, &options.operator_url).await),
        ];
        if lines.iter().all(|line| line.is_ok) || Instant::now() >= deadline {
            return Ok(lines);
        }
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| describe(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

async fn kinds(client: &Client) -> Result<APIResourceList, kube::Error> {
    client.list_api_group_resources(peerdist_crds::API_VERSION).await
}

async fn lease(client: &Client, options: &LeaseOptions) -> Result<Lease, String> {
    let api: Api<Lease> = Api::namespaced(client.clone(), &options.lease_namespace);
    answer(api.get(&options.lease_name)).await
}

async fn offices(client: &Client) -> Result<Vec<Office>, kube::Error> {
    let api: Api<Readable<Office>> = Api::all(client.clone());
    let (mut offices, mut pages) = (Vec::new(), Pages::new(&api, ListParams::default()));
    while let Some(page) = pages.next().await? {
        offices.extend(page.into_iter().map(|Readable(office)| office));
    }
    Ok(offices)
}

async fn readiness(operator: &Client, url: &str) -> Result<String, String> {
    let request = Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
    let told = answer(operator.request_text(request)).await;
    let advice = "see kubectl describe and kubectl logs of the operator's Deployment";
    told.map(|text| text.trim().replace('\n', ", ")).map_err(|error| format!("{url}/readyz: {error}: {advice}"))
}

fn judge_kinds(found: &APIResourceList) -> Result<String, String> {
    let found: BTreeSet<&str> = found.resources.iter().map(|resource| resource.kind.as_str()).collect();
    let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !found.contains(kind)).collect();
    match missing.is_empty() {
        true => Ok(format!("{} are served", KINDS.join(", "))),
        false => Err(format!("{} not served: install the definitions of the chart", missing.join(", "))),
    }
}

/// One that is not renewed between two looks says nothing about who works now.
fn judge_lease(first: Option<&Lease>, now: &Lease) -> Result<String, String> {
    let renewed = |lease: &Lease| -> Option<MicroTime> { lease.spec.as_ref()?.renew_time.clone() };
    let holder = now.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    match holder {
        None => Err(format!("nobody holds {}: no operator runs", now.name_any())),
        Some(holder) if first.map(renewed) == Some(renewed(now)) => {
            Err(format!("{holder} holds {} and does not renew it", now.name_any()))
        }
        Some(holder) => Ok(format!("held by {holder}")),
    }
}

fn judge_offices(offices: &[Office]) -> Result<String, String> {
    let condition = |office: &Office, kind| {
        find(&office.status.as_ref()?.conditions, kind)
            .filter(|condition| condition.observed_generation == office.metadata.generation)
            .map(|condition| condition.status == "True")
    };
    let unjudged: Vec<String> =
        offices.iter().filter(|office| condition(office, ACCEPTED).is_none()).map(|office| office.name_any()).collect();
    if !unjudged.is_empty() {
        let named = unjudged.iter().take(OFFICES_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        return Err(format!("{} without a verdict in status.conditions, such as {named}", unjudged.len()));
    }
    let ready = offices.iter().filter(|office| condition(office, READY) == Some(true)).count();
    Ok(format!("{} have their verdict, {ready} are ready", offices.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::tests::{office, site};

    fn lease(holder: &str, renewed: &str) -> Lease {
        let spec = json!({"holderIdentity": holder, "renewTime": renewed});
        serde_json::from_value(json!({"metadata": {"name": "peerdist-operator"}, "spec": spec})).unwrap()
    }

    fn judged(observed: i64, ready: &str) -> Office {
        let mut judged = office("store", 1, site("store", None));
        let condition = |kind: &str, status: &str| -> Value {
            json!({
                "type": kind, "status": status, "reason": "r", "message": "", "observedGeneration": observed,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let conditions = json!({"conditions": [condition(ACCEPTED, "True"), condition(READY, ready)]});
        judged.status = Some(serde_json::from_value(conditions).unwrap());
        judged
    }

    #[test]
    fn a_lease_counts_only_while_somebody_renews_it() {
        let (then, later) = ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:02.000000Z");
        assert!(judge_lease(Some(&lease("a", then)), &lease("a", later)).is_ok());
        assert!(judge_lease(None, &lease("a", later)).is_ok());
        assert!(judge_lease(Some(&lease("a", then)), &lease("a", then)).unwrap_err().contains("does not renew"));
        assert!(judge_lease(Some(&lease("a", then)), &lease("", later)).unwrap_err().contains("nobody holds"));
    }

    #[test]
    fn every_office_must_have_a_verdict_on_its_latest_form() {
        assert_eq!(judge_offices(&[]), Ok("0 have their verdict, 0 are ready".to_owned()));
        assert_eq!(judge_offices(&[judged(1, "True")]), Ok("1 have their verdict, 1 are ready".to_owned()));
        assert_eq!(judge_offices(&[judged(1, "False")]), Ok("1 have their verdict, 0 are ready".to_owned()));
        for bad in [judged(0, "True"), office("store", 1, site("store", None))] {
            assert!(judge_offices(&[bad]).unwrap_err().contains("such as store"));
        }
    }

    #[test]
    fn every_kind_must_be_served() {
        let list = |kinds: &[&str]| -> APIResourceList {
            let resource =
                |kind: &&str| json!({"kind": kind, "name": "", "namespaced": false, "singularName": "", "verbs": []});
            let resources: Vec<Value> = kinds.iter().map(resource).collect();
            serde_json::from_value(json!({"groupVersion": peerdist_crds::API_VERSION, "resources": resources})).unwrap()
        };
        assert!(judge_kinds(&list(&KINDS)).is_ok());
        assert!(judge_kinds(&list(&KINDS[..2])).unwrap_err().contains("VescEndpoint not served"));
    }
}
