//! What the preflight of pods says against their nodes: the message that its container ended with, as `Reason: message`.
//! The check itself is the program's. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use crate::conditions::is_word;
use crate::held::HeldPod;
use crate::names::label_value;

/// Name of the container.
pub(crate) const PREFLIGHT_CONTAINER: &str = "preflight";
/// Longest message that is kept of one node.
const MESSAGE_CHARACTERS_MAX: usize = 600;

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightFailure {
    /// One word, such as PortInUse.
    pub reason: String,
    /// The node, what was found, and what to do.
    pub message: String,
}

/// What keeps a pod on this node with these init containers from starting, if its preflight failed and was not passed
/// since.
pub fn failure_of(node: Option<&str>, containers: &[ContainerStatus]) -> Option<PreflightFailure> {
    let container = containers.iter().find(|container| container.name == PREFLIGHT_CONTAINER)?;
    let message = last_end(container)?.message.as_deref()?;
    let (reason, text) = message.split_once(": ").filter(|(reason, _)| is_word(reason))?;
    let node = node.unwrap_or("unknown");
    let text: String = text.trim().chars().take(MESSAGE_CHARACTERS_MAX).collect();
    Some(PreflightFailure { reason: reason.to_owned(), message: format!("node {node}: {text}") })
}

/// While it runs or waits to run again, the end before counts.
fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or(before).filter(|end| end.exit_code != 0)
}

/// What keeps clients of an office from starting: the first node by name, and how many more there are.
pub fn failure_of_office(pods: &[Arc<HeldPod>], office: &str) -> Option<PreflightFailure> {
    let label = label_value(office);
    let of_office = pods.iter().filter(|pod| pod.office.as_ref() == Some(&label));
    let mut failures: Vec<PreflightFailure> = of_office.filter_map(|pod| pod.failure.clone()).collect();
    failures.sort_by(|one, other| one.message.cmp(&other.message));
    let more = failures.len().saturating_sub(1);
    let mut first = failures.into_iter().next()?;
    if more > 0 {
        first.message = format!("{}; and {more} more nodes", first.message);
    }
    Some(first)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod on a node whose preflight is in this state.
    pub(crate) fn pod(node: &str, container: Value) -> Arc<HeldPod> {
        let mut status = json!({"name": "preflight", "image": "", "imageID": "", "ready": false, "restartCount": 1});
        container.as_object().unwrap().iter().for_each(|(key, value)| status[key] = value.clone());
        let pod = json!({
            "metadata": {"name": format!("pod-{node}"), "labels": {"peerdist.io/office": "store"}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Pending", "initContainerStatuses": [status]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn ended(code: i32, message: &str) -> Value {
        json!({"terminated": {"exitCode": code, "message": message}})
    }

    #[test]
    fn a_port_in_use_is_told_while_the_pod_waits_and_forgotten_when_it_passes() {
        let said = "PortInUse: 10.0.0.1:34760/udp is held by user 0: stop it";
        let waits = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(2, said)});
        let failure = pod("till-1", waits).failure.clone().unwrap();
        assert_eq!(failure.reason, "PortInUse");
        assert_eq!(failure.message, "node till-1: 10.0.0.1:34760/udp is held by user 0: stop it");
        let passed = json!({"state": ended(0, ""), "lastState": ended(2, said)});
        assert_eq!(pod("till-1", passed).failure, None);
        for odd in ["", "no reason", "not a word: x"] {
            assert_eq!(pod("till-1", json!({"state": ended(2, odd)})).failure, None, "{odd}");
        }
    }

    #[test]
    fn the_first_node_speaks_for_the_office() {
        let failing = |node| pod(node, json!({"state": ended(2, "PortInUse: x")}));
        let pods = [failing("till-2"), failing("till-1"), pod("till-3", json!({}))];
        let failure = failure_of_office(&pods, "store").unwrap();
        assert_eq!(failure.message, "node till-1: x; and 1 more nodes");
        assert_eq!(failure_of_office(&pods, "hub"), None);
    }
}
