//! What keeps pods from starting: their preflight (in [`preflight`](crate::preflight)), an image that cannot be pulled, a
//! container that fails, or somebody who does not let them be made. A client that fails once it has started is not seen
//! here: of clients only those are watched that have not. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::held::HeldPod;
use crate::names::label_value;
use crate::preflight::last_end;

/// A container that was started anew so often and does not run fails, also in the moments in which kubelet does not say
/// so because it runs once more. After one restart it may just have been its node.
const RESTARTS_MIN: i32 = 2;

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// One word, such as PortInUse.
    pub reason: String,
    /// Where, what was found, and what to do.
    pub message: String,
}

/// What kubelet says against a container of a pod. In few bytes, since all pods of a large fleet may wait at the same time,
/// and in words that do not change from one attempt to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// An image cannot be pulled.
    ImageNotPulled,
    /// The container with this name cannot be made, or ends with an error again and again.
    ContainerFails(Box<str>),
}

/// Clients of an office that have not started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Starting {
    /// Whether there is one.
    pub is_any: bool,
    /// What keeps them from it: that of the first node by name, what a preflight says before all else, and how many more
    /// there are.
    pub failure: Option<StartFailure>,
}

/// The first obstacle among these containers of a pod.
pub fn obstacle_of(init_containers: &[ContainerStatus], containers: &[ContainerStatus]) -> Option<Obstacle> {
    init_containers.iter().chain(containers).find_map(obstacle)
}

fn obstacle(container: &ContainerStatus) -> Option<Obstacle> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let is_failing = match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") => {
            return Some(Obstacle::ImageNotPulled);
        }
        Some("CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError") => true,
        _ => waiting.is_none() && !container.ready && container.restart_count >= RESTARTS_MIN && ended_badly(container),
    };
    is_failing.then(|| Obstacle::ContainerFails(container.name.as_str().into()))
}

fn ended_badly(container: &ContainerStatus) -> bool {
    last_end(container).is_some()
}

/// The clients of an office among those pods that have not started. One that ends is none any more.
pub fn starting(pods: &[Arc<HeldPod>], office: &str) -> Starting {
    let label = label_value(office);
    let of_office = pods.iter().map(|pod| &**pod).filter(|pod| pod.office.as_ref() == Some(&label));
    let starting: Vec<&HeldPod> = of_office.filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let failing = || starting.iter().copied().filter(|pod| pod.failure.is_some() || pod.obstacle.is_some());
    let first = failing().min_by(|one, other| order(one).cmp(&order(other)));
    let mut failure = first.and_then(failure_of_pod);
    let more = failing().count().saturating_sub(1);
    if let Some(failure) = failure.as_mut().filter(|_| more > 0) {
        failure.message = format!("{}; and further nodes: {more}", failure.message);
    }
    Starting { is_any: !starting.is_empty(), failure }
}

fn order(pod: &HeldPod) -> (bool, Option<&str>) {
    (pod.failure.is_none(), pod.node.as_deref())
}

/// What keeps this pod from starting.
pub fn failure_of_pod(pod: &HeldPod) -> Option<StartFailure> {
    pod.failure.clone().or_else(|| pod.obstacle.as_ref().map(|obstacle| told(obstacle, pod)))
}

fn told(obstacle: &Obstacle, pod: &HeldPod) -> StartFailure {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (reason, problem) = match obstacle {
        Obstacle::ImageNotPulled => (
            "ImageNotPulled",
            format!(
                "its image cannot be pulled: check agent.image and imagePullSecrets in the chart's values; kubectl -n \
                 {namespace} describe pod {name} says what the registry answers"
            ),
        ),
        Obstacle::ContainerFails(container) => (
            "ContainerFails",
            format!(
                "container {container} fails: kubectl -n {namespace} logs {name} -c {container} --previous says why, or \
                 kubectl -n {namespace} describe pod {name} if there never was one"
            ),
        ),
    };
    let node = pod.node.as_deref().unwrap_or("unknown");
    StartFailure { reason: reason.to_owned(), message: format!("node {node}: {problem}") }
}

/// Pods of a set are not even made, which only its events explain. The kind as kubectl takes it.
pub fn not_created(kind: &str, set: &ObjectMeta) -> StartFailure {
    let name = set.name.as_deref().unwrap_or_default();
    let namespace = set.namespace.as_deref().unwrap_or_default();
    let message = format!(
        "{kind} {name}: pods of it are not created: kubectl -n {namespace} describe {kind} {name} says why; if Pod Security \
         does not let them be: kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged \
         --overwrite"
    );
    StartFailure { reason: "PodsNotCreated".to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::preflight::tests::pod;

    fn waits(name: &str, reason: &str) -> Value {
        json!({"name": name, "state": {"waiting": {"reason": reason}}})
    }

    fn fails() -> Option<Obstacle> {
        Some(Obstacle::ContainerFails("storage".into()))
    }

    #[test]
    fn what_kubelet_says_is_kept_in_words_that_do_not_change_with_each_attempt() {
        let waits = |reason: &str| waits("storage", reason);
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let again = |state: Value, restarts: i32| {
            let last = ended(1);
            json!({"name": "storage", "state": state, "lastState": last, "restartCount": restarts})
        };
        for (container, expected) in [
            (waits("ErrImagePull"), Some(Obstacle::ImageNotPulled)),
            (waits("ImagePullBackOff"), Some(Obstacle::ImageNotPulled)),
            (waits("InvalidImageName"), Some(Obstacle::ImageNotPulled)),
            (waits("CreateContainerConfigError"), fails()),
            (waits("CrashLoopBackOff"), fails()),
            (again(json!({"running": {}}), 2), fails()),
            (again(ended(1), 2), fails()),
            (again(json!({"running": {}}), 1), None),
            (again(ended(0), 2), None),
            // Its node was started anew.
            (again(json!({"waiting": {"reason": "PodInitializing"}}), 5), None),
            (waits("ContainerCreating"), None),
            (json!({"state": {"running": {}}}), None),
            (json!({}), None),
        ] {
            assert_eq!(pod("till-1", container.clone()).obstacle, expected, "{container}");
        }
        let mut ready = again(json!({"running": {}}), 7);
        ready["ready"] = json!(true);
        assert_eq!(pod("till-1", ready).obstacle, None, "it runs now");
    }

    #[test]
    fn the_first_node_speaks_for_the_office_and_a_preflight_before_all_else() {
        let refused = |node| pod(node, json!({"state": {"terminated": {"exitCode": 2, "message": "PortInUse: x"}}}));
        let unpulled = |node| pod(node, waits("storage", "ImagePullBackOff"));
        let fine = || pod("till-9", json!({}));
        let said = |pods: &[Arc<HeldPod>]| {
            let failure = starting(pods, "store").failure.unwrap();
            (failure.reason, failure.message)
        };
        let in_use = |message: &str| ("PortInUse".to_owned(), message.to_owned());
        assert_eq!(
            said(&[refused("till-2"), refused("till-1"), fine()]),
            in_use("node till-1: x; and further nodes: 1")
        );
        assert_eq!(said(&[unpulled("till-1"), refused("till-2")]), in_use("node till-2: x; and further nodes: 1"));
        let (reason, message) = said(&[unpulled("till-2"), unpulled("till-3"), unpulled("till-1")]);
        assert_eq!(reason, "ImageNotPulled");
        assert!(message.starts_with("node till-1: ") && message.ends_with("; and further nodes: 2"), "{message}");
        assert_eq!(starting(&[unpulled("till-1")], "hub"), Starting::default());
    }

    #[test]
    fn pods_that_start_are_seen_and_those_that_end_are_not() {
        let mut ends = HeldPod::clone(&pod("till-1", waits("storage", "ImagePullBackOff")));
        ends.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(starting(&[Arc::new(ends)], "store"), Starting::default());
        assert_eq!(starting(&[pod("till-1", json!({}))], "store"), Starting { is_any: true, failure: None });
    }

    #[test]
    fn failures_name_where_they_are_and_what_to_type() {
        let told = |container: Value| {
            let mut pod = HeldPod::clone(&pod("till-1", container));
            pod.metadata.namespace = Some("edge".to_owned());
            failure_of_pod(&pod).unwrap()
        };
        let set: ObjectMeta = serde_json::from_value(json!({"name": "peerdist-server", "namespace": "edge"})).unwrap();
        for (failure, reason, parts) in [
            (
                told(waits("storage", "ErrImagePull")),
                "ImageNotPulled",
                ["node till-1: ", "agent.image and imagePullSecrets", "kubectl -n edge describe pod pod-till-1"],
            ),
            (
                told(waits("storage", "CrashLoopBackOff")),
                "ContainerFails",
                ["node till-1: ", "container storage", "kubectl -n edge logs pod-till-1 -c storage --previous"],
            ),
            (
                not_created("statefulset", &set),
                "PodsNotCreated",
                [
                    "statefulset peerdist-server: ",
                    "kubectl -n edge describe statefulset peerdist-server",
                    "kubectl label namespace edge pod-security.kubernetes.io/enforce=privileged --overwrite",
                ],
            ),
        ] {
            assert_eq!(failure.reason, reason);
            for part in parts {
                assert!(failure.message.contains(part), "{}", failure.message);
            }
        }
    }
}
