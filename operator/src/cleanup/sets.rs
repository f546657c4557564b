//! The sets run once more, in a form that removes what their program stored: only the nodes themselves can. Then it is
//! waited for those nodes that are there.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::remove::list_all;
use super::{CleanupError, failed};
use crate::names::MANAGED_SELECTOR;
use crate::pod::{PROGRAM, no_rights};

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(3);
/// Label of pods that remove.
const REMOVING_LABEL: &str = "peerdist.io/removes-storage";
/// Nodes that are named.
const NAMED_MAX: usize = 20;

/// A set as far as it counts here.
trait Set: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug {
    /// How all pods are replaced at the same time.
    fn strategy() -> Value;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn selector(&self) -> Option<&LabelSelector>;
    /// How many pods there should be; `None` while nobody counted the latest form.
    fn desired(&self) -> Option<i32>;
}

impl Set for DaemonSet {
    fn strategy() -> Value {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}})
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.selector)
    }

    fn desired(&self) -> Option<i32> {
        let status = self.status.as_ref().filter(|status| status.observed_generation == self.metadata.generation)?;
        Some(status.desired_number_scheduled)
    }
}

impl Set for StatefulSet {
    fn strategy() -> Value {
        json!({"type": "RollingUpdate"})
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.selector)
    }

    fn desired(&self) -> Option<i32> {
        // While a pod is replaced, its status counts none.
        self.status.as_ref().filter(|status| status.observed_generation == self.metadata.generation)?;
        Some(self.spec.replicas.unwrap_or(1))
    }
}

/// Has all sets remove what they stored, and waits until `deadline` at most for nodes that are there. Gives back the nodes
/// that did not say that they are done.
///
/// # Errors
/// [`CleanupError`] when the API server refuses something.
pub(super) async fn empty_storage(
    client: &Client,
    namespace: &str,
    deadline: Instant,
) -> Result<Vec<String>, CleanupError> {
    let (daemon_sets, stateful_sets): (Api<DaemonSet>, Api<StatefulSet>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    turn(&daemon_sets).await?;
    turn(&stateful_sets).await?;
    loop {
        let there = nodes_that_are_there(client).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut progress = look(&daemon_sets, &pods, &there).await?;
        progress.add(look(&stateful_sets, &pods, &there).await?);
        if progress.is_done() || Instant::now() >= deadline {
            return Ok(progress.unfinished.into_iter().take(NAMED_MAX).collect());
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Gives each set its last form, once.
async fn turn<S: Set>(api: &Api<S>) -> Result<(), CleanupError> {
    const ACTION: &str = "have the nodes remove what they stored";
    let ours = ListParams::default().labels(MANAGED_SELECTOR);
    for set in list_all(api, ours).await.map_err(failed(ACTION))? {
        let Some(template) = set.template().filter(|template| !removes(template)).and_then(last_template) else {
            continue;
        };
        let patch = json!({"spec": {"updateStrategy": S::strategy(), "template": template}});
        api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed(ACTION))?;
    }
    Ok(())
}

fn removes(template: &PodTemplateSpec) -> bool {
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    labels.is_some_and(|labels| labels.contains_key(REMOVING_LABEL))
}

/// As a merge patch: the same image and storage, all else of the program gone.
fn last_template(template: &PodTemplateSpec) -> Option<Value> {
    let spec = template.spec.as_ref()?;
    let program = spec.containers.first()?;
    let variables = program.env.iter().flatten();
    let root = variables.filter(|variable| variable.name == "PEERDIST_ROOT").find_map(|root| root.value.clone())?;
    let volumes: Vec<_> = spec.volumes.iter().flatten().filter(|volume| volume.name == "storage").collect();
    let container = |name: &str, further: &[&str]| {
        let arguments = [&["remove-storage", "--root", root.as_str()], further].concat();
        json!({
            "name": name, "image": program.image, "command": [PROGRAM],
            "args": arguments,
            "resources": program.resources, "securityContext": no_rights(),
            "volumeMounts": [{"name": "storage", "mountPath": root}],
        })
    };
    Some(json!({
        "metadata": {"labels": {REMOVING_LABEL: "true"}},
        "spec": {
            "initContainers": [container("remove-storage", &[])],
            "containers": [container("stay", &["--stay"])],
            "volumes": volumes,
        },
    }))
}

/// How far the nodes are.
#[derive(Debug, Default)]
struct Progress {
    /// Pods that should be there and are not, or sets that nobody counted.
    missing: i32,
    /// Nodes, of those that are there, with a pod that is not done.
    waiting: BTreeSet<String>,
    /// Nodes with a pod that is not done.
    unfinished: BTreeSet<String>,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.missing <= 0 && self.waiting.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.missing = self.missing.max(0).saturating_add(other.missing.max(0));
        self.waiting.extend(other.waiting);
        self.unfinished.extend(other.unfinished);
    }

    /// Of one set: with the pods that it has, and how many it should have. A pod without a node is as good as none.
    fn of(pods: &[Pod], desired: Option<i32>, there: &BTreeSet<String>) -> Self {
        let mut progress = Self::default();
        let mut nodes = BTreeSet::new();
        for pod in pods {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
            if !is_done(pod) {
                progress.unfinished.insert(node.clone());
            }
            nodes.insert(node);
        }
        progress.waiting = progress.unfinished.intersection(there).cloned().collect();
        let count = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
        progress.missing = desired.map_or(1, |desired| desired.saturating_sub(count));
        progress
    }
}

fn is_done(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    ready && pod.labels().contains_key(REMOVING_LABEL)
}

async fn look<S: Set>(api: &Api<S>, pods: &Api<Pod>, there: &BTreeSet<String>) -> Result<Progress, CleanupError> {
    const ACTION: &str = "see how far the nodes are";
    let mut progress = Progress::default();
    for set in list_all(api, ListParams::default().labels(MANAGED_SELECTOR)).await.map_err(failed(ACTION))? {
        let labels = set.selector().and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let own = list_all(pods, ListParams::default().labels(&labels.join(","))).await.map_err(failed(ACTION))?;
        progress.add(Progress::of(&own, set.desired(), there));
    }
    Ok(progress)
}

/// Nodes whose kubelet speaks.
pub(super) async fn nodes_that_are_there(client: &Client) -> Result<BTreeSet<String>, CleanupError> {
    let api: Api<Node> = Api::all(client.clone());
    let nodes = list_all(&api, ListParams::default()).await.map_err(failed("see which nodes are there"))?;
    let is_ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
    };
    Ok(nodes.iter().filter(|node| is_ready(node)).map(|node| node.name_any()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests::{judged, office, site};
    use crate::settings::tests::settings;

    fn pod(node: &str, removes: bool, ready: &str) -> Pod {
        let labels = if removes { json!({REMOVING_LABEL: "true"}) } else { json!({}) };
        serde_json::from_value(json!({
            "metadata": {"labels": labels}, "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn only_nodes_that_are_there_are_waited_for() {
        let there: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        let done = |pods: &[Pod], desired| Progress::of(pods, desired, &there).is_done();
        let clean = |node| pod(node, true, "True");
        assert!(done(&[clean("a"), clean("b")], Some(2)));
        assert!(done(&[clean("a"), clean("b"), pod("dead", false, "False")], Some(3)), "a dead node holds nobody");
        assert!(!done(&[clean("a"), pod("b", false, "True")], Some(2)), "the old form still runs");
        assert!(!done(&[clean("a"), pod("b", true, "False")], Some(2)), "it still removes");
        assert!(!done(&[clean("a")], Some(2)), "a pod is not there yet");
        let mut unscheduled = clean("a");
        unscheduled.spec.as_mut().unwrap().node_name = None;
        assert!(!done(&[clean("a"), unscheduled], Some(2)), "a pod has no node yet");
        assert!(!done(&[], None), "nobody counted the set");
        assert!(done(&[], Some(0)));
        let dead = Progress::of(&[clean("a"), pod("dead", false, "False")], Some(2), &there);
        assert_eq!(dead.unfinished.into_iter().collect::<Vec<_>>(), ["dead"]);
    }

    #[test]
    fn the_last_form_removes_the_storage_of_the_office_and_needs_nothing_else() {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let built = crate::office::build(fleet.accepted().next().unwrap(), &settings(), "peerdist");
        let set: DaemonSet = serde_json::from_value(built.daemon_set.body).unwrap();
        let last = last_template(&set.spec.template).unwrap();
        let containers = [&last["spec"]["initContainers"][0], &last["spec"]["containers"][0]];
        for container in containers {
            assert_eq!(container["image"], "registry.example/peerdist:1");
            let expected = ["remove-storage", "--root", "/var/lib/peerdist"];
            assert!(container["args"].as_array().unwrap().iter().zip(expected).all(|(found, wanted)| found == wanted));
        }
        assert_eq!(containers[1]["args"][3], "--stay");
        assert_eq!(last["spec"]["volumes"].as_array().unwrap().len(), 1);
        let turned: PodTemplateSpec = serde_json::from_value(last).unwrap();
        assert!(removes(&turned) && !removes(&set.spec.template));
    }
}
