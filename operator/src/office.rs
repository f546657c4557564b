//! The controller of Offices: dereference, validate, build, apply, status. Validating is done for all offices together
//! in [`fleet`](crate::fleet), and so is labelling nodes.

mod build;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use peerdist_crds::Office;

pub use self::build::{ClientObjects, build};
pub(crate) use self::status::is_observed;
use self::status::was_counted;
pub use self::status::{Situation, derive, expected_nodes, node_counts};
use crate::apply::ApplyError;
use crate::conditions::{READY, holds};
use crate::context::{Context, ReconcileError, key};
use crate::fleet::{Fleet, ValidOffice, Verdict};
use crate::held::HeldDaemonSet;
use crate::identity::{LOOK_INTERVAL, LOOK_INTERVAL_FAILED};
use crate::metrics::Kind;
use crate::names::{client_objects, label_value};
use crate::server::{self, ServerState};
use crate::starting::starting;

/// What the cluster has of an office.
struct Live {
    service_account: Option<Arc<ServiceAccount>>,
    daemon_set: Option<Arc<HeldDaemonSet>>,
}

/// Makes the cluster what the Office says.
///
/// # Errors
/// [`ReconcileError`] when something could not be written; it is tried again.
pub async fn reconcile(object: Arc<Office>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let name = object.name_any();
    let live = dereference(&name, &context);
    let fleet = context.fleet();
    let Some(verdict) = fleet.verdict_on(&object) else {
        // The fleet is judged again within moments, and this object is then told to come again.
        return Ok(Action::await_change());
    };
    let (situation, failure) = match verdict {
        Verdict::Refused(refusal) => {
            (Situation::Refused(refusal.clone()), server::keep_up(&object, &context).await.err())
        }
        Verdict::Accepted(office) => bring_about(office, &fleet, &live, &context).await,
    };
    let told = Told { labels: told_labels(&object, verdict), situation };
    if let Some(error) = failure {
        return failed(&object, error, &told, &live, &context).await;
    }
    let wait = write_status(&object, &told, &live, &context).await?;
    Ok(wait.or(look_again(&told.situation)).map_or_else(Action::await_change, Action::requeue))
}

/// Keys and certificates become old without anything being told, also those of a Central Office that is refused. What is
/// wrong with them may end by itself, such as a root that is not valid yet, and nobody tells that the node of a server is
/// away, or why a node cannot be labelled. Nor are other offices told that the server runs for which they waited: as a
/// rule their clients then start, and that is told.
fn look_again(situation: &Situation) -> Option<Duration> {
    match situation {
        Situation::Applied { awaits_labels: Some(_), .. } => Some(LOOK_INTERVAL_FAILED),
        Situation::Applied {
            server: Some(ServerState::IdentityFailed(_) | ServerState::NotReady(_) | ServerState::CannotStart(_)),
            ..
        } => Some(LOOK_INTERVAL_FAILED),
        Situation::Applied { server: Some(_), .. } | Situation::Refused(_) => Some(LOOK_INTERVAL),
        Situation::Applied { awaited: Some(_), .. } => Some(LOOK_INTERVAL),
        Situation::Applied { server: None, awaited: None, .. } | Situation::NotApplied { .. } => None,
    }
}

/// What the status says besides counts.
struct Told {
    situation: Situation,
    labels: Option<BTreeMap<String, String>>,
}

/// Packages select by the labels that were judged; those of a refused form count as little as the rest of it.
fn told_labels(object: &Office, verdict: &Verdict) -> Option<BTreeMap<String, String>> {
    match verdict {
        Verdict::Accepted(office) => Some(office.office.labels.clone()),
        Verdict::Refused(_) => object.status.as_ref()?.labels.clone(),
    }
}

/// What is no news about the office itself is not told, so that nothing is taken back that was said of it.
async fn failed(
    object: &Office,
    error: ApplyError,
    told: &Told,
    live: &Live,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let failures = context.failures.in_a_row(&key(Kind::Office, None, &object.name_any()));
    if is_news(&error, failures) {
        write_status(object, told, live, context).await?;
    }
    Err(error.into())
}

/// A conflict says that what is known is old, and that is read anew. An API server that cannot answer at this moment says
/// as little, unless the try before failed too.
fn is_news(error: &ApplyError, failures: u32) -> bool {
    !error.is_conflict() && (failures > 0 || !error.is_transient())
}

async fn write_status(
    object: &Office,
    told: &Told,
    live: &Live,
    context: &Context,
) -> Result<Option<Duration>, ApplyError> {
    let status = object.status.clone().unwrap_or_default();
    let was_ready = holds(&status.conditions, READY, object.metadata.generation);
    let findings = derive(&told.situation, live.daemon_set.as_deref(), was_ready);
    // Otherwise each new Office would be written once more to say that it has no nodes, just before they are counted.
    let counts = live.daemon_set.as_deref().filter(|set| was_counted(set)).map(node_counts);
    context.statuses.write_office(object, counts, told.labels.clone(), &findings, Timestamp::now()).await
}

fn dereference(office: &str, context: &Context) -> Live {
    let name = client_objects(office);
    Live {
        service_account: context.owned(&context.caches.service_accounts, &name),
        daemon_set: context.owned(&context.caches.daemon_sets, &name),
    }
}

async fn bring_about(
    office: &ValidOffice,
    fleet: &Fleet,
    live: &Live,
    context: &Context,
) -> (Situation, Option<ApplyError>) {
    let desired = build(office, &context.settings, &context.namespace);
    let applied = apply(&desired, live, context).await;
    let server = match office.is_central() {
        true => Some(server::reconcile(office, context).await),
        false => None,
    };
    let (server, applied) = match server {
        Some(Ok(server)) => (Some(server), applied),
        Some(Err(error)) => (None, applied.and(Err(error))),
        None => (None, applied),
    };
    match applied {
        Err(error) => {
            let situation = Situation::NotApplied { reason: error.reason(), message: error.to_string() };
            (situation, Some(error))
        }
        Ok(()) => {
            let current = live.daemon_set.as_deref().is_some_and(|set| desired.daemon_set.was_applied_to(set));
            let name = office.office.name.as_str();
            let starting = starting(&context.caches.pending_pods.state(), name);
            let awaits_labels = fleet.awaits_labels(name).then(|| awaited_labels(name, fleet, context));
            let nodes = fleet.nodes(name);
            let awaited = fleet.central().filter(|_| !office.is_central() && !server::has_run(context));
            let awaited = awaited.map(str::to_owned);
            (Situation::Applied { current, awaits_labels, nodes, starting, server, awaited }, None)
        }
    }
}

/// That nodes of the office have not got their label, with what was said against it for the first of them.
fn awaited_labels(office: &str, fleet: &Fleet, context: &Context) -> String {
    let label = label_value(office);
    let nodes = fleet.assignments().iter().filter(|(_, assignment)| assignment.label() == Some(label.as_str()));
    let failure = |node: &String| context.failures.message(&key(Kind::Node, None, node));
    nodes
        .map(|(node, _)| node)
        .find_map(failure)
        .unwrap_or_else(|| "nodes of the office wait for their label: clients start after it".to_owned())
}

/// The DaemonSet last: its pods need the other.
async fn apply(desired: &ClientObjects, live: &Live, context: &Context) -> Result<(), ApplyError> {
    let ClientObjects { service_account, daemon_set } = desired;
    context.apply(service_account, live.service_account.as_deref()).await?;
    context.apply(daemon_set, live.daemon_set.as_deref()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::differs;
    use crate::fleet::Refusal;
    use crate::fleet::tests::{judged, office, site};
    use crate::identity::IdentityFailure;
    use crate::settings::tests::settings;
    use crate::starting::{StartFailure, Starting};

    #[test]
    fn what_failed_is_looked_at_soon_and_an_identity_that_holds_every_hour() {
        let with = |server| Situation::Applied {
            current: true,
            awaits_labels: None,
            nodes: 1,
            starting: Starting::default(),
            server,
            awaited: None,
        };
        let waits = Situation::Applied {
            current: true,
            awaits_labels: None,
            nodes: 1,
            starting: Starting::default(),
            server: None,
            awaited: Some("hub".to_owned()),
        };
        let unlabelled = Situation::Applied {
            current: true,
            awaits_labels: Some("cannot label node till-1".to_owned()),
            nodes: 1,
            starting: Starting::default(),
            server: None,
            awaited: None,
        };
        let cannot_start = StartFailure { reason: "ServerNodeAway".to_owned(), message: "m".to_owned() };
        let failure = IdentityFailure::RootMissing("root".to_owned());
        let refusal = Refusal { field: "f".to_owned(), reason: "R", message: "m".to_owned(), stalled: true };
        for (situation, expected) in [
            (with(Some(ServerState::IdentityFailed(failure))), Some(LOOK_INTERVAL_FAILED)),
            (with(Some(ServerState::NotReady("no"))), Some(LOOK_INTERVAL_FAILED)),
            (with(Some(ServerState::CannotStart(cannot_start))), Some(LOOK_INTERVAL_FAILED)),
            (with(Some(ServerState::Ready)), Some(LOOK_INTERVAL)),
            (Situation::Refused(refusal), Some(LOOK_INTERVAL)),
            (waits, Some(LOOK_INTERVAL)),
            (unlabelled, Some(LOOK_INTERVAL_FAILED)),
            (with(None), None),
        ] {
            assert_eq!(look_again(&situation), expected, "{situation:?}");
        }
    }

    #[test]
    fn what_others_add_to_a_daemon_set_does_not_hide_that_its_clients_do_not_run() {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let desired = build(fleet.accepted().next().unwrap(), &settings(), "peerdist").daemon_set;
        let mut live = desired.body.clone();
        live["metadata"]["generation"] = json!(2);
        let variables = &mut live["spec"]["template"]["spec"]["containers"][0]["env"];
        variables.as_array_mut().unwrap().push(json!({"name": "FOO", "value": "bar"}));
        live["status"] = json!({
            "observedGeneration": 2, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "updatedNumberScheduled": 3, "numberAvailable": 0, "numberReady": 0, "numberMisscheduled": 0,
        });
        let live: HeldDaemonSet = serde_json::from_value(live).unwrap();
        assert!(differs(&desired.body, &serde_json::to_value(&live).unwrap()), "nobody takes the variable back");
        let situation = Situation::Applied {
            current: desired.was_applied_to(&live),
            awaits_labels: None,
            nodes: 3,
            starting: Starting::default(),
            server: None,
            awaited: None,
        };
        let findings = derive(&situation, Some(&live), true);
        let ready = findings.last().unwrap();
        assert_eq!((ready.is_false(), ready.reason()), (true, "NodesNotReady"));
    }

    #[test]
    fn an_api_server_that_cannot_answer_is_told_when_it_cannot_for_the_second_time() {
        let answered = |code: u16| {
            let status = kube::core::Status { code, message: "no".to_owned(), ..Default::default() };
            let source = Box::new(kube::Error::Api(Box::new(status)));
            ApplyError::Api { object: "DaemonSet a".to_owned(), source }
        };
        for (code, first, second) in
            [(409, false, false), (429, false, true), (500, false, true), (403, true, true), (422, true, true)]
        {
            let error = answered(code);
            assert_eq!([is_news(&error, 0), is_news(&error, 1)], [first, second], "{code}");
        }
    }
}
