//! What an Office's conditions say. Pure. Ready is never said too early: every node must bear its label, the DaemonSet
//! must be of the latest form, its counts of its latest generation, and at least one node must be there. Once said of a
//! generation of the Office it is taken back when clients are counted that do not run, not already when a new form of
//! the pods was written: so a new image for all offices costs one write an office.

use peerdist_crds::office::OfficeNodeCounts;

use super::build::node_selector;
use crate::conditions::{Finding, READY, accepted, refused};
use crate::fleet::{Refusal, ValidOffice};
use crate::held::HeldDaemonSet;
use crate::preflight::PreflightFailure;
use crate::server::ServerState;

/// What became of an office.
#[derive(Debug, Clone, PartialEq)]
pub enum Situation {
    /// It was refused.
    Refused(Refusal),
    /// Something could not be written.
    NotApplied {
        /// One word.
        reason: &'static str,
        /// What, and why.
        message: String,
    },
    /// Everything was written.
    Applied {
        /// Whether the DaemonSet that is counted is the one that was asked for.
        current: bool,
        /// Whether nodes of the office still wait for their label.
        awaits_labels: bool,
        /// What keeps clients from starting on their nodes.
        preflight: Option<PreflightFailure>,
        /// The server, in the Central Office.
        server: Option<ServerState>,
    },
}

/// The conditions of an office. `was_ready`: Ready was said of this generation of it.
pub fn derive(situation: &Situation, daemon_set: Option<&HeldDaemonSet>, was_ready: bool) -> Vec<Finding> {
    let ready = match situation {
        Situation::Refused(refusal) => return refused(refusal).to_vec(),
        Situation::NotApplied { reason, message } => Finding::no(READY, reason, message),
        Situation::Applied { server: Some(ServerState::IdentityFailed(failure)), .. } => {
            Finding::no(READY, failure.reason(), failure.to_string())
        }
        Situation::Applied { awaits_labels: true, .. } => {
            Finding::no(READY, "NodesNotLabelled", "nodes of the office wait for their label: clients start after it")
        }
        Situation::Applied { current, awaits_labels: false, preflight, server } => {
            let clients = clients(*current, daemon_set, preflight.as_ref(), was_ready);
            clients.or_else(|| self::server(server.as_ref(), was_ready)).unwrap_or_else(ready)
        }
    };
    accepted().into_iter().chain([ready]).collect()
}

/// Counts of an office's nodes.
pub fn node_counts(daemon_set: &HeldDaemonSet) -> OfficeNodeCounts {
    let status = daemon_set.status.clone().unwrap_or_default();
    let latest = status.updated_number_scheduled.unwrap_or_default();
    OfficeNodeCounts {
        desired: status.desired_number_scheduled,
        available: status.number_available.unwrap_or_default().min(latest),
    }
}

/// How many nodes the clients of an office should run on. `None`: its DaemonSet is missing, selects other nodes, or was
/// not counted in its latest form.
pub fn expected_nodes(office: &ValidOffice, daemon_set: Option<&HeldDaemonSet>) -> Option<i32> {
    let daemon_set = daemon_set.filter(|daemon_set| is_observed(daemon_set))?;
    (daemon_set.node_selector.as_ref() == Some(&node_selector(office))).then(|| node_counts(daemon_set).desired)
}

/// Whether the counts speak about the latest form.
pub(crate) fn is_observed(daemon_set: &HeldDaemonSet) -> bool {
    let observed = daemon_set.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed == daemon_set.metadata.generation
}

/// Whether the nodes of the DaemonSet were ever counted: a new one says that there are none.
pub(super) fn was_counted(daemon_set: &HeldDaemonSet) -> bool {
    daemon_set.status.as_ref().is_some_and(|status| status.observed_generation.is_some())
}

/// What keeps an office from being ready as far as its clients go.
fn clients(
    current: bool,
    daemon_set: Option<&HeldDaemonSet>,
    preflight: Option<&PreflightFailure>,
    was_ready: bool,
) -> Option<Finding> {
    let Some(counted) = daemon_set.filter(|daemon_set| current && is_observed(daemon_set)) else {
        let pending = Finding::no(READY, "RolloutPending", "the clients of this form are not counted yet");
        return (!was_ready || daemon_set.is_none()).then_some(pending);
    };
    let counts = node_counts(counted);
    if counts.desired == 0 {
        let message = "no node of the cluster belongs to the office: check its nodeSelector or subnets";
        return Some(Finding::no(READY, "NoNodes", message));
    }
    let message = "clients start, or nodes are away: see status.nodes";
    let waits = || Finding::no(READY, "NodesNotReady", message);
    let fails = |failure: &PreflightFailure| Finding::no(READY, &failure.reason, &failure.message);
    (counts.available < counts.desired).then(|| preflight.map_or_else(waits, fails))
}

/// What keeps an office from being ready as far as the server goes.
fn server(state: Option<&ServerState>, was_ready: bool) -> Option<Finding> {
    match state? {
        ServerState::Ready => None,
        ServerState::NotCounted if was_ready => None,
        ServerState::NotCounted => {
            Some(Finding::no(READY, "ServerNotReady", "the server of this form is not counted yet"))
        }
        ServerState::NotReady(message) => Some(Finding::no(READY, "ServerNotReady", *message)),
        ServerState::IdentityFailed(failure) => Some(Finding::no(READY, failure.reason(), failure.to_string())),
        ServerState::StorageKept(message) => Some(Finding::no(READY, "ServerStorageKept", message)),
        ServerState::PreflightFailed(failure) => {
            Some(Finding::no(READY, &failure.reason, format!("the server, {}", failure.message)))
        }
    }
}

fn ready() -> Finding {
    Finding::yes(READY, "NodesReady", "every node runs its client")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conditions::{ACCEPTED, STALLED, find, merge};
    use crate::fleet::tests::{judged, office, site};
    use crate::identity::IdentityFailure;

    fn daemon_set(generation: i64, observed: i64, desired: i32, updated: i32, available: i32) -> HeldDaemonSet {
        serde_json::from_value(json!({
            "metadata": {"generation": generation},
            "status": {
                "observedGeneration": observed, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
                "updatedNumberScheduled": updated, "numberAvailable": available, "numberReady": available,
                "numberMisscheduled": 0,
            },
        }))
        .unwrap()
    }

    fn shown(situation: &Situation, daemon_set: Option<&HeldDaemonSet>, kind: &str) -> (String, String) {
        after(situation, daemon_set, false, kind)
    }

    fn after(
        situation: &Situation,
        daemon_set: Option<&HeldDaemonSet>,
        was_ready: bool,
        kind: &str,
    ) -> (String, String) {
        let findings = derive(situation, daemon_set, was_ready);
        let conditions = merge(&[], &findings, Some(1), k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let condition = find(&conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn applied(current: bool, server: Option<ServerState>) -> Situation {
        Situation::Applied { current, awaits_labels: false, preflight: None, server }
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn ready_is_never_said_too_early() {
        let applied = |current| applied(current, None);
        let unlabelled = Situation::Applied { current: true, awaits_labels: true, preflight: None, server: None };
        for (situation, daemon_set, expected) in [
            (unlabelled, Some(daemon_set(2, 2, 3, 3, 3)), pair("False", "NodesNotLabelled")),
            (applied(true), None, pair("False", "RolloutPending")),
            (applied(false), Some(daemon_set(2, 2, 3, 3, 3)), pair("False", "RolloutPending")),
            (applied(true), Some(daemon_set(3, 2, 3, 3, 3)), pair("False", "RolloutPending")),
            (applied(true), Some(daemon_set(2, 2, 0, 0, 0)), pair("False", "NoNodes")),
            (applied(true), Some(daemon_set(2, 2, 3, 3, 2)), pair("False", "NodesNotReady")),
            (applied(true), Some(daemon_set(2, 2, 3, 1, 3)), pair("False", "NodesNotReady")),
            (applied(true), Some(daemon_set(2, 2, 3, 3, 3)), pair("True", "NodesReady")),
        ] {
            assert_eq!(shown(&situation, daemon_set.as_ref(), READY), expected, "{situation:?}");
            assert_eq!(shown(&situation, daemon_set.as_ref(), ACCEPTED).0, "True");
        }
    }

    #[test]
    fn the_central_office_is_ready_with_its_server() {
        let counted = daemon_set(1, 1, 1, 1, 1);
        let with = |server| shown(&applied(true, Some(server)), Some(&counted), READY);
        assert_eq!(with(ServerState::NotCounted), pair("False", "ServerNotReady"));
        assert_eq!(with(ServerState::NotReady("no")), pair("False", "ServerNotReady"));
        assert_eq!(with(ServerState::Ready), pair("True", "NodesReady"));
        assert_eq!(with(ServerState::StorageKept("no".to_owned())), pair("False", "ServerStorageKept"));
        let failure = || ServerState::IdentityFailed(IdentityFailure::RootMissing("root".to_owned()));
        assert_eq!(with(failure()), pair("False", "RootSecretMissing"));
        let starting = daemon_set(1, 1, 1, 1, 0);
        let said = shown(&applied(true, Some(failure())), Some(&starting), READY);
        assert_eq!(said, pair("False", "RootSecretMissing"), "clients wait for the same");
    }

    #[test]
    fn a_port_in_use_is_the_reason_while_clients_or_server_are_missing() {
        let failure =
            || PreflightFailure { reason: "PortInUse".to_owned(), message: "node till-1: held by user 0".to_owned() };
        let failing =
            |server| Situation::Applied { current: true, awaits_labels: false, preflight: Some(failure()), server };
        assert_eq!(shown(&failing(None), Some(&daemon_set(2, 2, 3, 3, 2)), READY), pair("False", "PortInUse"));
        assert_eq!(shown(&failing(None), Some(&daemon_set(2, 2, 3, 3, 3)), READY), pair("True", "NodesReady"));
        let server = Some(ServerState::PreflightFailed(failure()));
        assert_eq!(shown(&failing(server), Some(&daemon_set(2, 2, 3, 3, 3)), READY), pair("False", "PortInUse"));
    }

    #[test]
    fn ready_of_this_generation_stays_until_clients_are_counted_that_do_not_run() {
        let ready = pair("True", "NodesReady");
        let then =
            |situation: &Situation, daemon_set: Option<&HeldDaemonSet>| after(situation, daemon_set, true, READY);
        // Written, not in the cache yet; in the cache, not counted yet; then counted.
        assert_eq!(then(&applied(false, None), Some(&daemon_set(2, 2, 3, 3, 3))), ready);
        assert_eq!(then(&applied(true, None), Some(&daemon_set(3, 2, 3, 3, 3))), ready);
        assert_eq!(then(&applied(true, None), Some(&daemon_set(3, 3, 3, 0, 3))), pair("False", "NodesNotReady"));
        let counted = daemon_set(2, 2, 3, 3, 3);
        assert_eq!(then(&applied(true, Some(ServerState::NotCounted)), Some(&counted)), ready);
        let server = Some(ServerState::NotReady("no"));
        assert_eq!(then(&applied(true, server), Some(&counted)), pair("False", "ServerNotReady"));
        assert_eq!(then(&applied(false, None), None), pair("False", "RolloutPending"));
    }

    #[test]
    fn nodes_are_expected_only_by_a_counted_daemon_set_that_selects_them() {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let valid = fleet.accepted().next().unwrap();
        let selecting = |label: &str, observed: i64| {
            let node_selector = Some([("site".to_owned(), label.to_owned())].into());
            HeldDaemonSet { node_selector, ..daemon_set(2, observed, 3, 0, 0) }
        };
        assert_eq!(expected_nodes(valid, None), None);
        assert_eq!(expected_nodes(valid, Some(&selecting("hub", 1))), None);
        assert_eq!(expected_nodes(valid, Some(&selecting("other", 2))), None);
        assert_eq!(expected_nodes(valid, Some(&selecting("hub", 2))), Some(3));
    }

    #[test]
    fn a_new_daemon_set_says_nothing_about_nodes_until_they_are_counted() {
        let new = json!({"status": {"desiredNumberScheduled": 0, "numberReady": 0}});
        assert!(!was_counted(&serde_json::from_value(new).unwrap()));
        assert!(!was_counted(&HeldDaemonSet { status: None, ..daemon_set(1, 1, 0, 0, 0) }));
        assert!(was_counted(&daemon_set(2, 1, 0, 0, 0)));
    }

    #[test]
    fn a_refused_office_stalls_only_if_it_must_be_edited_itself() {
        let refusal = |stalled| {
            Situation::Refused(Refusal { field: "f".to_owned(), reason: "R", message: "m".to_owned(), stalled })
        };
        let counted = daemon_set(1, 1, 1, 1, 1);
        assert_eq!(shown(&refusal(true), Some(&counted), READY), pair("False", "R"));
        assert_eq!(shown(&refusal(true), Some(&counted), STALLED), pair("True", "R"));
        assert_eq!(shown(&refusal(false), Some(&counted), STALLED), pair("False", "R"));
        assert_eq!(shown(&refusal(false), None, ACCEPTED), pair("False", "R"));
    }
}
