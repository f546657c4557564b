//! Runs the election against the API server: one request at a time, each with a time limit. Every answer sets the fence
//! anew. Deciding is the machine's business.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Action, Election, Event, Fence, LEASE_DURATION, LeaseRecord};

/// Longest wait for an answer; shorter than what is left of a Lease after a failed renewal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Which Lease, and under which name.
#[derive(Debug, Clone)]
pub struct ElectionOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// A name that no other process has, not even the one before in the same pod.
    pub identity: String,
}

/// The Lease went to somebody else, or could not be renewed in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lease {0} was lost: another operator goes on")]
pub struct ElectionError(String);

/// Takes part until `stop`, then gives the Lease back. `leads` tells when it is ours. The client must not be fenced.
///
/// # Errors
/// [`ElectionError`] when the Lease was ours and is not any more.
pub async fn elect(
    client: Client,
    options: ElectionOptions,
    fence: Fence,
    leads: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<(), ElectionError> {
    let api: Api<Lease> = Api::namespaced(client, &options.namespace);
    let mut election = Election::new(&options.identity, Instant::now());
    let mut stopping = false;
    while !election.is_ended() {
        if stop.is_cancelled() && !stopping {
            stopping = true;
            fence.set(None);
            election.handle(Instant::now(), Event::Stop);
        }
        if let Some(action) = election.poll(Instant::now()) {
            let event = perform(&api, &options, action).await;
            election.handle(Instant::now(), event);
        } else if let Some(at) = election.poll_timeout() {
            tokio::select! {
                () = sleep_until(at.into()) => {}
                () = stop.cancelled(), if !stopping => {}
            }
        }
        fence.set(election.may_write_until());
        leads.send_if_modified(|leads| {
            let now = election.may_write_until().is_some();
            std::mem::replace(leads, now) != now
        });
    }
    fence.set(None);
    if stopping { Ok(()) } else { Err(ElectionError(options.name)) }
}

async fn perform(api: &Api<Lease>, options: &ElectionOptions, action: Action) -> Event {
    let answer = match action {
        Action::Read => timeout(REQUEST_TIMEOUT, async { api.get_opt(&options.name).await.map(read) }).await,
        Action::Write { version, transitions, taking } => {
            let lease = lease(options, version.as_deref(), &options.identity, transitions, taking);
            timeout(REQUEST_TIMEOUT, write(api, &options.name, version.is_none(), lease)).await
        }
        Action::Release { version, transitions } => {
            let lease = lease(options, Some(&version), "", transitions, false);
            timeout(REQUEST_TIMEOUT, write(api, &options.name, false, lease)).await
        }
    };
    match answer {
        Ok(Ok(event)) => event,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Event::Conflict,
        Ok(Err(error)) => {
            tracing::warn!(%error, lease = %options.name, "the lease could not be read or written");
            Event::Failed
        }
        Err(_) => {
            tracing::warn!(lease = %options.name, "the API server did not answer in time about the lease");
            Event::Failed
        }
    }
}

async fn write(api: &Api<Lease>, name: &str, new: bool, lease: Lease) -> Result<Event, kube::Error> {
    let parameters = PostParams::default();
    let written =
        if new { api.create(&parameters, &lease).await? } else { api.replace(name, &parameters, &lease).await? };
    Ok(Event::Written(written.metadata.resource_version.unwrap_or_default()))
}

fn read(lease: Option<Lease>) -> Event {
    Event::Read(lease.map(|lease| {
        let spec = lease.spec.unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        LeaseRecord {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: seconds.map_or(LEASE_DURATION, Duration::from_secs),
            transitions: spec.lease_transitions.unwrap_or_default(),
            version: lease.metadata.resource_version.unwrap_or_default(),
        }
    }))
}

fn lease(options: &ElectionOptions, version: Option<&str>, holder: &str, transitions: i32, taking: bool) -> Lease {
    let now = Some(MicroTime(Timestamp::now()));
    Lease {
        metadata: ObjectMeta {
            name: Some(options.name.clone()),
            namespace: Some(options.namespace.clone()),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: now.clone().filter(|_| taking),
            renew_time: now,
            ..LeaseSpec::default()
        }),
    }
}
