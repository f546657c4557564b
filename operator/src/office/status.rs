//! What an Office's conditions say. Pure. Ready is never said too early: the DaemonSet must be of the latest form, its
//! counts of its latest generation, and at least one node must be there.

use k8s_openapi::api::apps::v1::DaemonSet;
use peerdist_crds::office::OfficeNodeCounts;

use crate::conditions::{Finding, READY, accepted, refused};
use crate::fleet::Refusal;
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
        /// The server, in the Central Office.
        server: Option<ServerState>,
    },
}

/// The conditions of an office.
pub fn derive(situation: &Situation, daemon_set: Option<&DaemonSet>) -> Vec<Finding> {
    let ready = match situation {
        Situation::Refused(refusal) => return refused(refusal).to_vec(),
        Situation::NotApplied { reason, message } => Finding::no(READY, reason, message),
        Situation::Applied { current, server } => ready(*current, server.as_ref(), daemon_set),
    };
    accepted().into_iter().chain([ready]).collect()
}

/// Counts of an office's nodes.
pub fn node_counts(daemon_set: &DaemonSet) -> OfficeNodeCounts {
    let status = daemon_set.status.clone().unwrap_or_default();
    let latest = status.updated_number_scheduled.unwrap_or_default();
    OfficeNodeCounts {
        desired: status.desired_number_scheduled,
        available: status.number_available.unwrap_or_default().min(latest),
    }
}

fn ready(current: bool, server: Option<&ServerState>, daemon_set: Option<&DaemonSet>) -> Finding {
    let observed = daemon_set.is_some_and(|daemon_set| {
        let observed = daemon_set.status.as_ref().and_then(|status| status.observed_generation);
        observed.is_some() && observed == daemon_set.metadata.generation
    });
    let Some(daemon_set) = daemon_set.filter(|_| current && observed) else {
        return Finding::no(READY, "RolloutPending", "the clients of this form are not counted yet");
    };
    let counts = node_counts(daemon_set);
    if counts.desired == 0 {
        let message = "no node of the cluster belongs to the office: check its nodeSelector or subnets";
        return Finding::no(READY, "NoNodes", message);
    }
    if counts.available < counts.desired {
        return Finding::no(READY, "NodesNotReady", "clients start, or nodes are away: see status.nodes");
    }
    match server {
        Some(ServerState { ready: false, message }) => Finding::no(READY, "ServerNotReady", message),
        _ => Finding::yes(READY, "NodesReady", "every node runs its client"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conditions::{ACCEPTED, STALLED, find, merge};

    fn daemon_set(generation: i64, observed: i64, desired: i32, updated: i32, available: i32) -> DaemonSet {
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

    fn shown(situation: &Situation, daemon_set: Option<&DaemonSet>, kind: &str) -> (String, String) {
        let conditions = merge(&[], &derive(situation, daemon_set), Some(1), k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let condition = find(&conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn ready_is_never_said_too_early() {
        let applied = |current| Situation::Applied { current, server: None };
        for (situation, daemon_set, expected) in [
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
        let server = |ready| Some(ServerState { ready, message: "no".to_owned() });
        let counted = daemon_set(1, 1, 1, 1, 1);
        let situation = Situation::Applied { current: true, server: server(false) };
        assert_eq!(shown(&situation, Some(&counted), READY), pair("False", "ServerNotReady"));
        let situation = Situation::Applied { current: true, server: server(true) };
        assert_eq!(shown(&situation, Some(&counted), READY), pair("True", "NodesReady"));
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
