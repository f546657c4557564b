//! What an Office's conditions say. Pure. Ready is never said too early: every node must bear its label, the DaemonSet
//! must be of the latest form, its counts of its latest generation, and at least one node must be there. Once said of a
//! generation of the Office it is taken back when clients are counted that do not run, not already when a new form of
//! the pods was written: so a new image costs the operator one write for each office and one for the server, and no
//! status along with them. From the first count on, clients of the form before are taken for ones that do not run, since
//! a rollout under way is not ready: Ready is false until every node has the new form, and statuses follow the counts,
//! each at most once a second.

use k8s_openapi::api::apps::v1::DaemonSetStatus;
use peerdist_crds::office::OfficeNodeCounts;

use super::build::node_selector;
use crate::conditions::{Finding, READY, accepted, refused};
use crate::fleet::{Refusal, ValidOffice};
use crate::held::HeldDaemonSet;
use crate::server::ServerState;
use crate::starting::{StartFailure, Starting, not_created};

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
        /// That nodes of the office still wait for their label, and why, in words for people.
        awaits_labels: Option<String>,
        /// How many nodes belong to the office, those among them whose taints keep clients away.
        nodes: i32,
        /// Clients that have not started.
        starting: Starting,
        /// The server, in the Central Office.
        server: Option<ServerState>,
        /// In any other one: the Central Office, as long as its server never ran. All clients wait for it.
        awaited: Option<String>,
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
        Situation::Applied { awaits_labels: Some(message), .. } => Finding::no(READY, "NodesNotLabelled", message),
        Situation::Applied { current, awaits_labels: None, nodes, starting, server, awaited } => {
            let (counted, server) = (daemon_set.filter(|set| *current && is_observed(set)), server.as_ref());
            let stopped = match counted {
                Some(counted) => stopped(counted, *nodes, starting),
                None => pending(daemon_set, was_ready),
            };
            // Clients wait for the server: what keeps it from running comes before that they do.
            stopped
                .or_else(|| server_stopped(server))
                .or_else(|| counted.and_then(|counted| waiting(counted, awaited.as_deref())))
                .or_else(|| server_differs(server, was_ready))
                .unwrap_or_else(|| ready(daemon_set, *nodes))
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

/// Clients of this form were not counted. Once they were ready, another form of them changes that only when it is counted.
fn pending(daemon_set: Option<&HeldDaemonSet>, was_ready: bool) -> Option<Finding> {
    let pending = Finding::no(READY, "RolloutPending", "the clients of this form are not counted yet");
    (!was_ready || daemon_set.is_none()).then_some(pending)
}

/// What keeps clients from running that somebody must mend.
fn stopped(counted: &HeldDaemonSet, nodes: i32, starting: &Starting) -> Option<Finding> {
    let OfficeNodeCounts { desired, available } = node_counts(counted);
    if desired == 0 {
        return Some(no_client_wanted(nodes));
    }
    if available >= desired {
        return None;
    }
    let refused = || not_created("daemonset", &counted.metadata);
    let failure = starting.failure.clone().or_else(|| lacks_pods(counted, starting).then(refused));
    failure.map(|StartFailure { reason, message }| Finding::no(READY, &reason, message))
}

/// Nodes whose taints clients do not tolerate are not counted as nodes that should run one.
fn no_client_wanted(nodes: i32) -> Finding {
    if nodes == 0 {
        let message = "no node of the cluster belongs to the office: check its nodeSelector or subnets";
        return Finding::no(READY, "NoNodes", message);
    }
    let message = format!(
        "none of the nodes that belong to the office ({nodes}) takes its client: their taints keep it away; see kubectl \
         describe node, and client.tolerations in the chart's values"
    );
    Finding::no(READY, "NodesTainted", message)
}

/// Whether pods are missing and none is on its way. A controller makes them before it counts anew, so that as long as
/// they can be made, those that it has not counted yet are seen to start.
fn lacks_pods(counted: &HeldDaemonSet, starting: &Starting) -> bool {
    let is_short = |status: &DaemonSetStatus| status.current_number_scheduled < status.desired_number_scheduled;
    !starting.is_any && counted.status.as_ref().is_some_and(is_short)
}

/// Clients that start, or that nobody knows more about.
fn waiting(counted: &HeldDaemonSet, awaited: Option<&str>) -> Option<Finding> {
    let OfficeNodeCounts { desired, available } = node_counts(counted);
    let message = match awaited {
        Some(central) => format!("clients wait for the server, which never ran: see kubectl describe office {central}"),
        None => "clients start or fail, or nodes are away: see status.nodes, and the pods with the label \
                 peerdist.io/office"
            .to_owned(),
    };
    (available < desired).then(|| Finding::no(READY, "NodesNotReady", message))
}

/// What keeps the server from running.
fn server_stopped(state: Option<&ServerState>) -> Option<Finding> {
    match state? {
        ServerState::Ready | ServerState::NotCounted | ServerState::StorageKept(_) => None,
        ServerState::NotReady(message) => Some(Finding::no(READY, "ServerNotReady", *message)),
        ServerState::IdentityFailed(failure) => Some(Finding::no(READY, failure.reason(), failure.to_string())),
        ServerState::CannotStart(failure) => {
            Some(Finding::no(READY, &failure.reason, format!("the server, {}", failure.message)))
        }
    }
}

/// The server runs otherwise than is asked for, or nobody has counted it in that form, with the same exception as for
/// clients.
fn server_differs(state: Option<&ServerState>, was_ready: bool) -> Option<Finding> {
    match state? {
        ServerState::StorageKept(message) => Some(Finding::no(READY, "ServerStorageKept", message)),
        ServerState::NotCounted if !was_ready => {
            Some(Finding::no(READY, "ServerNotReady", "the server of this form is not counted yet"))
        }
        _ => None,
    }
}

/// Also of counts of the form before, while those of the latest are awaited.
fn ready(daemon_set: Option<&HeldDaemonSet>, nodes: i32) -> Finding {
    let desired = daemon_set.map(|set| node_counts(set).desired);
    let message = match desired.map_or(0, |desired| nodes.saturating_sub(desired)) {
        ..=0 => "every node runs its client".to_owned(),
        left_out => format!(
            "every node that takes its client runs it; nodes that are left out by their taints, such as that of a node \
             that is away: {left_out}; see client.tolerations in the chart's values"
        ),
    };
    Finding::yes(READY, "NodesReady", message)
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
            "metadata": {"name": "peerdist-office-store", "namespace": "edge", "generation": generation},
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

    /// What Ready says, which is derived last.
    fn message(situation: &Situation, daemon_set: &HeldDaemonSet) -> String {
        derive(situation, Some(daemon_set), false).last().unwrap().message().to_owned()
    }

    /// An office of three nodes.
    fn applied(current: bool, server: Option<ServerState>) -> Situation {
        let starting = Starting::default();
        Situation::Applied { current, awaits_labels: None, nodes: 3, starting, server, awaited: None }
    }

    /// An office of so many nodes, whose clients are in this state.
    fn with_clients(nodes: i32, starting: Starting) -> Situation {
        Situation::Applied { current: true, awaits_labels: None, nodes, starting, server: None, awaited: None }
    }

    fn failure() -> StartFailure {
        StartFailure { reason: "PortInUse".to_owned(), message: "node till-1: held by user 0".to_owned() }
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn ready_is_never_said_too_early() {
        let applied = |current| applied(current, None);
        let unlabelled = Situation::Applied {
            current: true,
            awaits_labels: Some("no".to_owned()),
            nodes: 3,
            starting: Starting::default(),
            server: None,
            awaited: None,
        };
        let of_none = with_clients(0, Starting::default());
        for (situation, daemon_set, expected) in [
            (unlabelled, Some(daemon_set(2, 2, 3, 3, 3)), pair("False", "NodesNotLabelled")),
            (applied(true), None, pair("False", "RolloutPending")),
            (applied(false), Some(daemon_set(2, 2, 3, 3, 3)), pair("False", "RolloutPending")),
            (applied(true), Some(daemon_set(3, 2, 3, 3, 3)), pair("False", "RolloutPending")),
            (of_none, Some(daemon_set(2, 2, 0, 0, 0)), pair("False", "NoNodes")),
            (applied(true), Some(daemon_set(2, 2, 0, 0, 0)), pair("False", "NodesTainted")),
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
        let failed = || ServerState::IdentityFailed(IdentityFailure::RootMissing("root".to_owned()));
        assert_eq!(with(failed()), pair("False", "RootSecretMissing"));
    }

    #[test]
    fn what_keeps_the_server_from_running_is_said_before_that_clients_wait_for_it() {
        let starts = daemon_set(1, 1, 1, 1, 0);
        let with = |server| shown(&applied(true, Some(server)), Some(&starts), READY);
        let failed = ServerState::IdentityFailed(IdentityFailure::RootMissing("root".to_owned()));
        for (server, expected) in [
            (failed, "RootSecretMissing"),
            (ServerState::CannotStart(failure()), "PortInUse"),
            (ServerState::NotReady("no"), "ServerNotReady"),
            (ServerState::NotCounted, "NodesNotReady"),
            (ServerState::StorageKept("no".to_owned()), "NodesNotReady"),
            (ServerState::Ready, "NodesNotReady"),
        ] {
            assert_eq!(with(server.clone()), pair("False", expected), "{server:?}");
        }
    }

    #[test]
    fn what_keeps_pods_from_starting_is_the_reason_while_clients_or_server_are_missing() {
        let failing = with_clients(3, Starting { is_any: true, failure: Some(failure()) });
        assert_eq!(shown(&failing, Some(&daemon_set(2, 2, 3, 3, 2)), READY), pair("False", "PortInUse"));
        assert_eq!(shown(&failing, Some(&daemon_set(2, 2, 3, 3, 3)), READY), pair("True", "NodesReady"));
        let server = applied(true, Some(ServerState::CannotStart(failure())));
        assert_eq!(shown(&server, Some(&daemon_set(2, 2, 3, 3, 3)), READY), pair("False", "PortInUse"));
        assert_eq!(message(&server, &daemon_set(2, 2, 3, 3, 3)), "the server, node till-1: held by user 0");
    }

    #[test]
    fn clients_of_another_office_that_wait_for_the_first_server_lead_to_the_central_office() {
        let waiting = |awaited: Option<&str>| Situation::Applied {
            current: true,
            awaits_labels: None,
            nodes: 3,
            starting: Starting::default(),
            server: None,
            awaited: awaited.map(str::to_owned),
        };
        for (awaited, available, expected, leads) in [
            (Some("hub"), 0, pair("False", "NodesNotReady"), true),
            (None, 0, pair("False", "NodesNotReady"), false),
            // Whoever runs waits for nobody.
            (Some("hub"), 3, pair("True", "NodesReady"), false),
        ] {
            let counted = daemon_set(2, 2, 3, 3, available);
            let situation = waiting(awaited);
            assert_eq!(shown(&situation, Some(&counted), READY), expected);
            let told = message(&situation, &counted);
            assert_eq!(told.contains("kubectl describe office hub"), leads, "{told}");
        }
    }

    #[test]
    fn pods_are_told_as_not_created_only_if_some_are_missing_and_none_is_on_its_way() {
        let starting = |is_any| Starting { is_any, failure: None };
        for (made, starting, expected) in [
            (0, starting(false), "PodsNotCreated"),
            (2, starting(false), "PodsNotCreated"),
            // A new set, or one whose pods are replaced: made, and not counted yet.
            (0, starting(true), "NodesNotReady"),
            (2, starting(true), "NodesNotReady"),
            (3, starting(false), "NodesNotReady"),
            (0, Starting { is_any: true, failure: Some(failure()) }, "PortInUse"),
        ] {
            let mut set = daemon_set(2, 2, 3, made, 0);
            set.status.as_mut().unwrap().current_number_scheduled = made;
            let situation = with_clients(3, starting);
            assert_eq!(shown(&situation, Some(&set), READY), pair("False", expected), "{made} {situation:?}");
            let uncounted = HeldDaemonSet { status: None, ..set };
            assert_eq!(shown(&situation, Some(&uncounted), READY), pair("False", "RolloutPending"));
        }
        let mut set = daemon_set(2, 2, 3, 0, 0);
        set.status.as_mut().unwrap().current_number_scheduled = 0;
        let told = message(&with_clients(3, Starting::default()), &set);
        assert!(told.contains("kubectl -n edge describe daemonset peerdist-office-store"), "{told}");
    }

    #[test]
    fn nodes_that_take_no_client_are_counted_for_whoever_reads_the_condition() {
        let told = |nodes, set: &HeldDaemonSet| message(&with_clients(nodes, Starting::default()), set);
        let none = daemon_set(2, 2, 0, 0, 0);
        assert!(told(2, &none).starts_with("none of the nodes that belong to the office (2) takes its client"));
        assert!(told(0, &none).starts_with("no node of the cluster belongs to the office"));
        let all = daemon_set(2, 2, 3, 3, 3);
        for nodes in [0, 3] {
            assert_eq!(told(nodes, &all), "every node runs its client");
        }
        let partly = told(5, &all);
        assert!(
            partly.contains("left out by their taints")
                && partly.contains(": 2;")
                && partly.contains("client.tolerations")
        );
        let next = daemon_set(3, 2, 3, 3, 3);
        let situation = with_clients(5, Starting::default());
        let findings = derive(&situation, Some(&next), true);
        assert_eq!(findings.last().map(Finding::message), Some(partly.as_str()), "until they are counted anew");
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
