//! What the preflight of pods says against their nodes: the message that its container ended with, as `Reason: message`.
//! The check itself is the program's, and what else keeps pods from starting is in [`starting`](crate::starting). Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use crate::conditions::is_word;
use crate::starting::StartFailure;

/// Name of the container.
pub(crate) const PREFLIGHT_CONTAINER: &str = "preflight";
/// Longest message that is kept of one node.
const MESSAGE_CHARACTERS_MAX: usize = 600;

/// What keeps a pod on this node with these init containers from starting, if its preflight failed and was not passed
/// since.
pub fn failure_of(node: Option<&str>, containers: &[ContainerStatus]) -> Option<StartFailure> {
    let container = containers.iter().find(|container| container.name == PREFLIGHT_CONTAINER)?;
    let message = last_end(container)?.message.as_deref()?;
    let (reason, text) = message.split_once(": ").filter(|(reason, _)| is_word(reason))?;
    let node = node.unwrap_or("unknown");
    let text: String = text.trim().chars().take(MESSAGE_CHARACTERS_MAX).collect();
    Some(StartFailure { reason: reason.to_owned(), message: format!("node {node}: {text}") })
}

/// The error that a container ended with. While it runs or waits to run again, the end before counts.
pub(crate) fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or(before).filter(|end| end.exit_code != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::held::HeldPod;

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
}
