//! Runs the election against the API server: one request at a time, each with a time limit. Every answer sets the fence
//! anew. Deciding is the machine's business. The Lease also says where the installation is that it belongs to: offices
//! have no namespace, so a second installation would fight over them.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Action, Election, Event, Fence, LEASE_DURATION, LeaseRecord, Moment, Standing};
use crate::names::INSTALLATION_ANNOTATION;

/// Longest wait for an answer; shorter than what is left of a Lease after a failed renewal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Which Lease, and under which name.
#[derive(Debug, Clone)]
pub struct ElectionOptions {
    /// Namespace of the Lease, the same for all that take part.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// A name that no other process has, not even the one before in the same pod.
    pub identity: String,
    /// Namespace of all that this operator makes.
    pub installation: String,
}

/// Why who takes part cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// It went to somebody else, or could not be renewed in time.
    #[error("the lease {0} was lost: another operator goes on")]
    Lost(String),
    /// It belongs to an installation in another namespace.
    #[error(
        "the lease {namespace}/{name} belongs to an installation of peerdist in the namespace {found}, and this operator \
         makes everything in {expected}: expected one installation in a cluster; uninstall one of them, and if the lease \
         still names a namespace without one: kubectl annotate lease --overwrite --namespace {namespace} {name} \
         {INSTALLATION_ANNOTATION}={expected}"
    )]
    AnotherInstallation {
        /// Namespace of the Lease.
        namespace: String,
        /// Name of the Lease.
        name: String,
        /// Where the other installation is.
        found: String,
        /// Where this one is.
        expected: String,
    },
}

/// Takes part until `stop`, then gives the Lease back. `standing` tells how it stands. The client must not be fenced.
///
/// # Errors
/// [`ElectionError`] when the Lease was ours and is not any more, or can never be.
pub async fn elect(
    client: Client,
    options: ElectionOptions,
    fence: Fence,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
) -> Result<(), ElectionError> {
    let mut election = Election::new(&options.identity, Moment::now());
    let mut desk = Desk { api: Api::namespaced(client, &options.namespace), options, seen: None };
    let (mut stopping, mut is_heard) = (false, false);
    while !election.is_ended() {
        if stop.is_cancelled() && !stopping {
            stopping = true;
            fence.set(None);
            election.handle(Moment::now(), Event::Stop);
        }
        if let Some(action) = election.poll(Moment::now()) {
            let event = desk.perform(action).await.inspect_err(|_| fence.set(None))?;
            is_heard = event != Event::Failed;
            election.handle(Moment::now(), event);
        } else if let Some(at) = election.poll_timeout() {
            tokio::select! {
                () = sleep(at.saturating_duration_since(Moment::now())) => {}
                () = stop.cancelled(), if !stopping => {}
            }
        }
        fence.set(election.may_write_until());
        standing.send_if_modified(|standing| {
            let now = election.standing(is_heard);
            std::mem::replace(standing, now) != now
        });
    }
    fence.set(None);
    if stopping { Ok(()) } else { Err(ElectionError::Lost(desk.options.name)) }
}

/// Where the Lease is read and written.
struct Desk {
    api: Api<Lease>,
    options: ElectionOptions,
    /// The Lease as it was read or written last.
    seen: Option<Lease>,
}

/// What a write makes of the Lease.
struct Change<'text> {
    /// The version that must be there.
    version: Option<String>,
    /// Who holds it then.
    holder: &'text str,
    transitions: i32,
    taking: bool,
}

impl Desk {
    async fn perform(&mut self, action: Action) -> Result<Event, ElectionError> {
        let identity = self.options.identity.clone();
        let change = match action {
            Action::Read => {
                let answer = timeout(REQUEST_TIMEOUT, self.api.get_opt(&self.options.name)).await;
                let Ok(Ok(lease)) = answer else {
                    return Ok(self.failed(answer.map(|answer| answer.map(drop)), false));
                };
                self.seen = lease;
                self.check_installation()?;
                return Ok(Event::Read(self.seen.as_ref().map(record)));
            }
            Action::Write { version, transitions, taking } => {
                Change { version, holder: &identity, transitions, taking }
            }
            Action::Release { version, transitions } => {
                Change { version: Some(version), holder: "", transitions, taking: false }
            }
        };
        let is_new = change.version.is_none();
        let lease = next(self.seen.clone(), &self.options, change, Timestamp::now());
        let answer = timeout(REQUEST_TIMEOUT, self.write(is_new, &lease)).await;
        let Ok(Ok(written)) = answer else { return Ok(self.failed(answer.map(|answer| answer.map(drop)), is_new)) };
        let version = written.resource_version().unwrap_or_default();
        self.seen = Some(written);
        Ok(Event::Written(version))
    }

    async fn write(&self, is_new: bool, lease: &Lease) -> Result<Lease, kube::Error> {
        let parameters = PostParams::default();
        match is_new {
            true => self.api.create(&parameters, lease).await,
            false => self.api.replace(&self.options.name, &parameters, lease).await,
        }
    }

    fn failed(&self, answer: Result<Result<(), kube::Error>, tokio::time::error::Elapsed>, is_new: bool) -> Event {
        let lease = &self.options.name;
        match answer {
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Event::Conflict,
            Ok(Err(error)) => tracing::warn!(%error, lease, "{}", problem(&error, is_new)),
            Ok(Ok(())) | Err(_) => tracing::warn!(lease, "the API server did not answer in time about the lease"),
        }
        Event::Failed
    }

    /// A Lease that says nothing is nobody's.
    fn check_installation(&self) -> Result<(), ElectionError> {
        let ElectionOptions { namespace, name, identity: _, installation } = &self.options;
        let found = self.seen.as_ref().and_then(|lease| lease.annotations().get(INSTALLATION_ANNOTATION));
        match found.filter(|found| *found != installation) {
            None => Ok(()),
            Some(found) => Err(ElectionError::AnotherInstallation {
                namespace: namespace.clone(),
                name: name.clone(),
                found: found.clone(),
                expected: installation.clone(),
            }),
        }
    }
}

/// The Lease comes with the installation, and the operator has no right to make one unless that is asked for.
fn problem(error: &kube::Error, is_new: bool) -> &'static str {
    match error {
        kube::Error::Api(status) if is_new && status.code == 403 => {
            "the lease is missing: helm upgrade, or apply deploy/manifests again"
        }
        _ => "the lease could not be read or written",
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map_or(LEASE_DURATION, Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.resource_version().unwrap_or_default(),
    }
}

/// The Lease to write: what was seen, with our part of it changed.
fn next(seen: Option<Lease>, options: &ElectionOptions, change: Change<'_>, now: Timestamp) -> Lease {
    let Change { version, holder, transitions, taking } = change;
    let mut lease = seen.filter(|_| version.is_some()).unwrap_or_default();
    lease.metadata.name = Some(options.name.clone());
    lease.metadata.namespace = Some(options.namespace.clone());
    lease.metadata.resource_version = version;
    lease.metadata.managed_fields = None;
    lease.annotations_mut().insert(INSTALLATION_ANNOTATION.to_owned(), options.installation.clone());
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
    spec.lease_transitions = Some(transitions);
    spec.renew_time = Some(MicroTime(now));
    if taking {
        spec.acquire_time = Some(MicroTime(now));
    }
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(installation: &str) -> ElectionOptions {
        ElectionOptions {
            namespace: "kube-system".to_owned(),
            name: "peerdist-operator".to_owned(),
            identity: "a".to_owned(),
            installation: installation.to_owned(),
        }
    }

    fn change(version: Option<&str>, taking: bool) -> Change<'static> {
        Change { version: version.map(str::to_owned), holder: "a", transitions: 1, taking }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_renewal_keeps_when_the_lease_was_taken_and_what_others_wrote() {
        let mut taken = next(None, &options("peerdist"), change(None, true), at(1));
        taken.labels_mut().insert("theirs".to_owned(), "kept".to_owned());
        let renewed = next(Some(taken), &options("peerdist"), change(Some("7"), false), at(3));
        assert_eq!(renewed.labels()["theirs"], "kept");
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        let spec = renewed.spec.clone().unwrap();
        assert_eq!((spec.acquire_time.unwrap().0, spec.renew_time.unwrap().0), (at(1), at(3)));
        let retaken = next(Some(renewed), &options("peerdist"), change(Some("8"), true), at(5));
        assert_eq!(retaken.spec.unwrap().acquire_time.unwrap().0, at(5));
    }

    /// Where nobody answers.
    fn desk(installation: &str, seen: Option<Lease>) -> Desk {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        config.default_retry = false;
        let api = Api::namespaced(Client::try_from(config).unwrap(), "kube-system");
        Desk { api, options: options(installation), seen }
    }

    #[tokio::test]
    async fn what_is_known_of_the_lease_outlives_a_renewal_that_failed() {
        let seen = next(None, &options("ours"), change(None, true), at(1));
        let mut desk = desk("ours", Some(seen.clone()));
        let renewal = Action::Write { version: Some("7".to_owned()), transitions: 1, taking: false };
        assert_eq!(desk.perform(renewal).await, Ok(Event::Failed));
        assert_eq!(desk.seen, Some(seen), "it is given back with all that others wrote");
    }

    #[tokio::test]
    async fn the_lease_of_an_installation_in_another_namespace_is_left_alone() {
        let seen = next(None, &options("theirs"), change(None, true), at(1));
        let error = desk("ours", Some(seen.clone())).check_installation().unwrap_err().to_string();
        let command = "kubectl annotate lease --overwrite --namespace kube-system peerdist-operator \
                       peerdist.io/installation=ours";
        for part in ["theirs", "ours", command] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(desk("theirs", Some(seen)).check_installation(), Ok(()));
        assert_eq!(desk("ours", Some(Lease::default())).check_installation(), Ok(()));
        assert_eq!(desk("ours", None).check_installation(), Ok(()));
        assert_eq!(record(&Lease::default()).holder, "", "one that nobody held yet is free");
    }

    #[test]
    fn a_lease_that_is_missing_and_may_not_be_made_is_told_as_that() {
        let answered = |code: u16| {
            let status = kube::core::Status { code, message: "no".to_owned(), ..Default::default() };
            kube::Error::Api(Box::new(status))
        };
        assert!(problem(&answered(403), true).contains("helm upgrade"));
        for (error, is_new) in [(answered(403), false), (answered(500), true)] {
            assert_eq!(problem(&error, is_new), "the lease could not be read or written");
        }
    }
}
