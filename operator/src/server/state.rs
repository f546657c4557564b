//! How the server stands, from what the cluster counts and what its pod says. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;

use super::Place;
use crate::held::HeldPod;
use crate::identity::IdentityFailure;
use crate::starting::{StartFailure, failure_of_pod, not_created};

/// How the server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// It runs in the form that was asked for.
    Ready,
    /// Nobody counted that form yet.
    NotCounted,
    /// It does not run; the text says what is missing.
    NotReady(&'static str),
    /// Its pod cannot start, or cannot make way for the next one.
    CannotStart(StartFailure),
    /// It has no identity, or one that cannot be kept up.
    IdentityFailed(IdentityFailure),
    /// It runs, on another storage than is asked for; the text says what to do.
    StorageKept(String),
}

/// What the counts of its set say.
pub(super) fn state(
    current: bool,
    place: Option<&Place>,
    stateful_set: Option<&StatefulSet>,
    has_pod: bool,
) -> ServerState {
    let Some((set, status)) = stateful_set.filter(|_| current).and_then(|set| Some((set, set.status.as_ref()?))) else {
        return ServerState::NotCounted;
    };
    if status.observed_generation != set.metadata.generation {
        ServerState::NotCounted
    } else if status.replicas < 1 && !has_pod {
        // A pod that was just made is seen before its controller counts it.
        ServerState::CannotStart(not_created("statefulset", &set.metadata))
    } else if status.updated_replicas.unwrap_or_default() < 1 {
        ServerState::NotReady("the server is being replaced")
    } else if status.ready_replicas.unwrap_or_default() < 1 {
        ServerState::NotReady(
            "the server does not run: label a node peerdist.io/server, and see the pod peerdist-server-0",
        )
    } else if place.is_none() {
        ServerState::NotReady("the address of the server is not known yet")
    } else {
        ServerState::Ready
    }
}

/// What its pod says against a server that does not run. A set makes no second pod while the first may still be there.
pub(super) fn failure_of(pods: &[Arc<HeldPod>], is_away: impl Fn(&str) -> bool) -> Option<StartFailure> {
    let mut nodes = pods.iter().filter_map(|pod| pod.node.as_deref());
    let away = nodes.find(|node| is_away(node)).map(away);
    let mut stays = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    away.or_else(|| stays.find_map(|pod| failure_of_pod(pod)))
}

fn away(node: &str) -> StartFailure {
    let message = format!(
        "node {node}: its pod cannot end since that node is away: when the machine is off for good, kubectl delete node \
         {node}; never while it may still run"
    );
    StartFailure { reason: "ServerNodeAway".to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(node: &str, waits: &str, ends: bool) -> Arc<HeldPod> {
        let container = json!({
            "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": waits}},
        });
        let mut pod = json!({
            "metadata": {"name": "peerdist-server-0", "namespace": "edge"}, "spec": {"nodeName": node},
            "status": {"containerStatuses": [container]},
        });
        if ends {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn set(observed: i64, replicas: i32, updated: i32, ready: i32) -> StatefulSet {
        let status: Value = json!({
            "observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready,
        });
        let metadata = json!({"name": "peerdist-server", "namespace": "edge", "generation": 2});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn the_server_is_ready_only_in_its_latest_form_and_with_a_place() {
        let place = Place { address: "10.0.0.1".parse().unwrap(), nodes: Vec::new() };
        let place = Some(&place);
        let is_not_ready = |state: ServerState| matches!(state, ServerState::NotReady(_));
        assert_eq!(state(true, place, Some(&set(2, 1, 1, 1)), false), ServerState::Ready);
        assert_eq!(state(false, place, Some(&set(2, 1, 1, 1)), false), ServerState::NotCounted);
        assert_eq!(state(true, place, Some(&set(1, 1, 1, 1)), false), ServerState::NotCounted);
        assert_eq!(state(true, place, Some(&set(1, 0, 0, 0)), false), ServerState::NotCounted, "a new set");
        assert_eq!(state(true, place, None, false), ServerState::NotCounted);
        assert!(is_not_ready(state(true, place, Some(&set(2, 1, 0, 1)), false)));
        assert!(is_not_ready(state(true, place, Some(&set(2, 1, 1, 0)), false)));
        assert!(is_not_ready(state(true, None, Some(&set(2, 1, 1, 1)), false)));
        let refused = set(2, 0, 0, 0);
        let expected = ServerState::CannotStart(not_created("statefulset", &refused.metadata));
        assert_eq!(state(true, place, Some(&refused), false), expected);
        assert!(is_not_ready(state(true, place, Some(&refused), true)), "it was just made");
    }

    #[test]
    fn a_pod_says_what_keeps_it_from_running_until_it_ends() {
        let reason = |pods: &[Arc<HeldPod>]| failure_of(pods, |_| false).map(|failure| failure.reason);
        for (waits, ends, expected) in [
            ("ImagePullBackOff", false, Some("ImageNotPulled")),
            ("CrashLoopBackOff", false, Some("ContainerFails")),
            ("CrashLoopBackOff", true, None),
            ("ContainerCreating", false, None),
        ] {
            assert_eq!(reason(&[pod("hub-1", waits, ends)]).as_deref(), expected, "{waits} {ends}");
        }
        assert_eq!(reason(&[]), None);
    }

    #[test]
    fn a_pod_on_a_node_that_is_away_is_told_with_what_lets_the_next_one_begin() {
        for ends in [true, false] {
            let pods = [pod("hub-1", "CrashLoopBackOff", ends)];
            let StartFailure { reason, message } = failure_of(&pods, |node| node == "hub-1").unwrap();
            assert_eq!(reason, "ServerNodeAway");
            for part in ["node hub-1: ", "kubectl delete node hub-1", "never while it may still run"] {
                assert!(message.contains(part), "{message}");
            }
        }
        assert_eq!(failure_of(&[pod("hub-2", "ContainerCreating", true)], |node| node == "hub-1"), None);
    }
}
