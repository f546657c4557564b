//! The sets run once more, in a form that removes what their program stored: only the nodes themselves can. Then it is
//! waited for those nodes that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{CleanupError, failed};
use crate::names::{FIELD_MANAGER, FORMER_SERVER_COMPONENT, MANAGED_SELECTOR, OFFICE_LABEL, POD_SELECTOR};
use crate::pages::{Pages, for_all};
use crate::pod::{PROGRAM, no_rights};

mod former;

/// Shortest pause between two looks. A look that takes longer is followed by a pause as long.
const LOOK_PAUSE: Duration = Duration::from_secs(3);
/// What a look is for.
const LOOK: &str = "see how far the nodes are";
/// Label of pods that remove.
const REMOVING_LABEL: &str = "peerdist.io/removes-storage";
/// What of an object's metadata is applied: what the operator applies, and which object is meant. A set that is gone is
/// not made again.
const METADATA: [&str; 5] = ["name", "namespace", "uid", "labels", "ownerReferences"];

/// A set as far as it counts here.
trait Set:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug
{
    /// How all pods are replaced at the same time.
    fn strategy() -> Value;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn selector(&self) -> Option<&LabelSelector>;
    /// How many pods there should be; `None` while nobody counted the latest form.
    fn desired(&self) -> Option<i32>;
    /// Whether it stores on volumes of the cluster, which need no node to go.
    fn has_claim(&self) -> bool;
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

    fn has_claim(&self) -> bool {
        false
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

    fn has_claim(&self) -> bool {
        self.spec.volume_claim_templates.as_ref().is_some_and(|templates| !templates.is_empty())
    }
}

/// Has all sets remove what they stored, and waits until `deadline` at most for nodes that are there. Gives back the nodes
/// that did not say that they are done. With `keep_claim` a set whose volume is kept is left as it is.
///
/// # Errors
/// [`CleanupError`] when the API server refuses something.
pub(super) async fn empty_storage(
    client: &Client,
    namespace: &str,
    keep_claim: bool,
    deadline: Instant,
) -> Result<Progress, CleanupError> {
    let sets = Sets {
        daemon_sets: Api::namespaced(client.clone(), namespace),
        stateful_sets: Api::namespaced(client.clone(), namespace),
        pods: Api::namespaced(client.clone(), namespace),
        keep_claim,
    };
    // Before the server's set is turned, which tells where the server stores.
    let time = deadline.saturating_duration_since(Instant::now());
    let server_node = former::empty(client, namespace, &nodes_that_are_there(client).await?, time).await?;
    turn(&sets.daemon_sets, keep_claim, None).await?;
    turn(&sets.stateful_sets, keep_claim, server_node.as_deref()).await?;
    let mut told = None;
    loop {
        let begun = Instant::now();
        let progress = sets.look().await?;
        if progress.is_done(&nodes_that_are_there(client).await?) || Instant::now() >= deadline {
            return Ok(progress);
        }
        let left = progress.left();
        if told.replace(left) != Some(left) {
            println!("{left} nodes have not removed yet what they stored");
        }
        sleep(begun.elapsed().max(LOOK_PAUSE)).await;
    }
}

/// Everything that stores.
struct Sets {
    daemon_sets: Api<DaemonSet>,
    stateful_sets: Api<StatefulSet>,
    pods: Api<Pod>,
    keep_claim: bool,
}

impl Sets {
    async fn look(&self) -> Result<Progress, CleanupError> {
        let pods = self.pods().await?;
        let mut progress = Progress::default();
        self.count(&self.daemon_sets, &pods, &mut progress).await?;
        self.count(&self.stateful_sets, &pods, &mut progress).await?;
        let former = pods.get(&(Some(FORMER_SERVER_COMPONENT.to_owned()), None));
        progress.add(Progress::of(former.map(Vec::as_slice).unwrap_or_default(), Some(0)));
        Ok(progress)
    }

    /// All pods in one list, by what tells whose they are.
    async fn pods(&self) -> Result<BTreeMap<Group, Vec<SeenPod>>, CleanupError> {
        let mut pods: BTreeMap<Group, Vec<SeenPod>> = BTreeMap::new();
        let mut pages = Pages::new(&self.pods, ListParams::default().labels(POD_SELECTOR));
        while let Some(page) = pages.next().await.map_err(failed(LOOK))? {
            for pod in page {
                pods.entry(group(pod.labels())).or_default().push(SeenPod::of(&pod));
            }
        }
        Ok(pods)
    }

    async fn count<S: Set>(
        &self,
        api: &Api<S>,
        pods: &BTreeMap<Group, Vec<SeenPod>>,
        progress: &mut Progress,
    ) -> Result<(), CleanupError> {
        let mut pages = Pages::new(api, ListParams::default().labels(MANAGED_SELECTOR));
        while let Some(page) = pages.next().await.map_err(failed(LOOK))? {
            for set in page.iter().filter(|set| is_emptied(*set, self.keep_claim)) {
                let labels = set.selector().and_then(|selector| selector.match_labels.as_ref());
                let own = labels.and_then(|labels| pods.get(&group(labels))).map(Vec::as_slice).unwrap_or_default();
                progress.add(Progress::of(own, set.desired()));
            }
        }
        Ok(())
    }
}

/// Gives each set its last form, once; on this node alone, if one is named.
async fn turn<S: Set>(api: &Api<S>, keep_claim: bool, node: Option<&str>) -> Result<(), CleanupError> {
    let ours = ListParams::default().labels(MANAGED_SELECTOR);
    for_all(api, ours, async |set: S| {
        let Some(form) = last_form(&set, node).filter(|_| is_emptied(&set, keep_claim)) else { return Ok(()) };
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&set.name_any(), &parameters, &Patch::Apply(&form)).await;
        match applied {
            // Its Office went just before: nobody waits for a set that is gone.
            Err(_) if api.get_opt(&set.name_any()).await?.is_none() => Ok(()),
            applied => applied.map(drop),
        }
    })
    .await
    .map_err(failed("have the nodes remove what they stored"))
}

fn is_emptied<S: Set>(set: &S, keep_claim: bool) -> bool {
    !(keep_claim && set.has_claim())
}

/// The whole set in its last form, applied as the operator applies it: an operator that is installed again takes all of it
/// back with its next apply. Without the annotation that says what was applied, so that there is a next one.
fn last_form<S: Set>(set: &S, node: Option<&str>) -> Option<Value> {
    let mut template = set.template().filter(|template| !removes(template)).and_then(last_template)?;
    if let (Some(node), Some(pod)) = (node, template["spec"].as_object_mut()) {
        former::stay_on(node, pod);
    }
    let mut form = serde_json::to_value(set).ok()?;
    form.as_object_mut()?.remove("status");
    form["metadata"].as_object_mut()?.retain(|field, _| METADATA.contains(&field.as_str()));
    form["spec"]["updateStrategy"] = S::strategy();
    form["spec"]["template"] = template;
    Some(form)
}

fn removes(template: &PodTemplateSpec) -> bool {
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    labels.is_some_and(|labels| labels.contains_key(REMOVING_LABEL))
}

/// The same place, image and storage, all else of the program gone.
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
    let mut last = serde_json::to_value(template).ok()?;
    last["metadata"]["labels"][REMOVING_LABEL] = json!("true");
    last["spec"]["initContainers"] = json!([container("remove-storage", &[])]);
    last["spec"]["containers"] = json!([container("stay", &["--stay"])]);
    last["spec"]["volumes"] = json!(volumes);
    Some(last)
}

/// How far the nodes are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Pods that should be there and are not, or sets that nobody counted.
    missing: i32,
    /// Nodes with a pod that is not done.
    pub(super) unfinished: BTreeSet<String>,
}

impl Progress {
    fn is_done(&self, there: &BTreeSet<String>) -> bool {
        self.missing <= 0 && self.unfinished.is_disjoint(there)
    }

    /// How many nodes are to come, those that are away among them.
    pub(super) fn left(&self) -> usize {
        self.unfinished.len().saturating_add(usize::try_from(self.missing).unwrap_or_default())
    }

    fn add(&mut self, other: Self) {
        self.missing = self.missing.max(0).saturating_add(other.missing.max(0));
        self.unfinished.extend(other.unfinished);
    }

    /// Of one set: with the pods that it has, and how many it should have. A pod without a node is as good as none.
    fn of(pods: &[SeenPod], desired: Option<i32>) -> Self {
        let mut progress = Self::default();
        let mut nodes = BTreeSet::new();
        for SeenPod { node, is_done } in pods {
            let Some(node) = node else { continue };
            if !is_done {
                progress.unfinished.insert(node.clone());
            }
            nodes.insert(node);
        }
        let count = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
        progress.missing = desired.map_or(1, |desired| desired.saturating_sub(count));
        progress
    }
}

/// What tells whose a pod is: its component and its office.
type Group = (Option<String>, Option<String>);

fn group(labels: &BTreeMap<String, String>) -> Group {
    (labels.get("app.kubernetes.io/component").cloned(), labels.get(OFFICE_LABEL).cloned())
}

/// A pod as far as it counts here.
struct SeenPod {
    node: Option<String>,
    is_done: bool,
}

impl SeenPod {
    fn of(pod: &Pod) -> Self {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Self { node, is_done: is_done(pod) }
    }
}

fn is_done(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
    (ready || ended) && pod.labels().contains_key(REMOVING_LABEL)
}

/// Names of the nodes whose kubelet speaks.
pub(super) async fn nodes_that_are_there(client: &Client) -> Result<BTreeSet<String>, CleanupError> {
    let api: Api<Node> = Api::all(client.clone());
    let is_ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
    };
    let (mut there, mut pages) = (BTreeSet::new(), Pages::new(&api, ListParams::default()));
    while let Some(page) = pages.next().await.map_err(failed("see which nodes are there"))? {
        there.extend(page.iter().filter(|node| is_ready(node)).map(|node| node.name_any()));
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::differs;
    use crate::fleet::tests::{judged, office, site};
    use crate::settings::Settings;
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
        let progress = |pods: &[Pod], desired| {
            let seen: Vec<SeenPod> = pods.iter().map(SeenPod::of).collect();
            Progress::of(&seen, desired)
        };
        let done = |pods: &[Pod], desired| progress(pods, desired).is_done(&there);
        let clean = |node| pod(node, true, "True");
        assert!(done(&[clean("a"), clean("b")], Some(2)));
        assert!(done(&[clean("a"), clean("b"), pod("dead", false, "False")], Some(3)), "a dead node holds nobody");
        assert!(!done(&[clean("a"), pod("b", false, "True")], Some(2)), "the old form still runs");
        assert!(!done(&[clean("a"), pod("b", true, "False")], Some(2)), "it still removes");
        assert!(!done(&[clean("a")], Some(2)), "a pod is not there yet");
        let ended = |phase: &str| {
            let mut pod = pod("a", true, "False");
            pod.status.as_mut().unwrap().phase = Some(phase.to_owned());
            pod
        };
        assert!(done(&[ended("Succeeded")], Some(1)) && !done(&[ended("Failed")], Some(1)));
        let mut unscheduled = clean("a");
        unscheduled.spec.as_mut().unwrap().node_name = None;
        assert!(!done(&[clean("a"), unscheduled], Some(2)), "a pod has no node yet");
        assert!(!done(&[], None), "nobody counted the set");
        assert!(done(&[], Some(0)));
        let dead = progress(&[clean("a"), pod("dead", false, "False")], Some(3));
        assert_eq!(dead.left(), 2, "one is not done and one is not there");
        assert_eq!(dead.unfinished.into_iter().collect::<Vec<_>>(), ["dead"]);
    }

    fn daemon_set() -> DaemonSet {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let built = crate::office::build(fleet.accepted().next().unwrap(), &settings(), "peerdist");
        serde_json::from_value(built.daemon_set.body).unwrap()
    }

    pub(super) fn stateful_set(storage: &str) -> StatefulSet {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let settings = Settings::parse(&format!("image: a\nserver: {{storage: {{{storage}}}}}")).unwrap();
        let built = crate::server::build(fleet.accepted().next().unwrap(), None, &[], &settings, "peerdist");
        serde_json::from_value(built.stateful_set.body).unwrap()
    }

    #[test]
    fn the_last_form_removes_the_storage_of_the_office_and_needs_nothing_else() {
        let set = daemon_set();
        let last = last_template(&set.spec.template).unwrap();
        let containers = [&last["spec"]["initContainers"][0], &last["spec"]["containers"][0]];
        for container in containers {
            assert_eq!(container["image"], "registry.example/peerdist:1");
            let expected = ["remove-storage", "--root", "/var/lib/peerdist"];
            assert!(container["args"].as_array().unwrap().iter().zip(expected).all(|(found, wanted)| found == wanted));
        }
        assert_eq!(containers[1]["args"][3], "--stay");
        for list in ["initContainers", "containers", "volumes"] {
            assert_eq!(last["spec"][list].as_array().unwrap().len(), 1, "{list}");
        }
        let turned: PodTemplateSpec = serde_json::from_value(last).unwrap();
        assert!(removes(&turned) && !removes(&set.spec.template));
    }

    #[test]
    fn the_last_form_is_an_apply_of_the_whole_set_that_the_next_operator_takes_back() {
        let mut set = daemon_set();
        set.metadata.uid = Some("uid".to_owned());
        set.metadata.resource_version = Some("7".to_owned());
        set.status = Some(Default::default());
        let (before, last) = (serde_json::to_value(&set).unwrap(), last_form(&set, None).unwrap());
        assert_eq!((&last["apiVersion"], &last["kind"]), (&json!("apps/v1"), &json!("DaemonSet")));
        for field in ["name", "namespace", "uid", "labels", "ownerReferences"] {
            assert_eq!(last["metadata"][field], before["metadata"][field], "{field}");
        }
        assert_eq!((&last["metadata"]["resourceVersion"], &last["status"]), (&Value::Null, &Value::Null));
        assert_eq!(last["spec"]["selector"], before["spec"]["selector"]);
        for field in ["nodeSelector", "hostNetwork", "serviceAccountName", "affinity"] {
            assert_eq!(last["spec"]["template"]["spec"][field], before["spec"]["template"]["spec"][field], "{field}");
        }
        assert!(differs(&before, &last), "the operator applies its own form again");
        let turned: DaemonSet = serde_json::from_value(last).unwrap();
        assert_eq!(last_form(&turned, None), None, "once is enough");
    }

    #[test]
    fn the_server_removes_its_folder_where_it_is_and_not_on_the_next_best_node() {
        let set = stateful_set("hostPath: /var/lib/server");
        let place = |node| {
            let pod = last_form(&set, node).unwrap()["spec"]["template"]["spec"].clone();
            (pod["nodeName"].clone(), pod["affinity"].is_null())
        };
        assert_eq!(place(Some("a")), (json!("a"), true));
        assert_eq!(place(None), (Value::Null, false), "a volume may go anywhere");
    }

    #[test]
    fn a_volume_that_is_kept_is_not_emptied() {
        let (claim, directory) = (stateful_set("claim: {size: 100Gi}"), stateful_set("hostPath: /var/lib/server"));
        assert!(is_emptied(&claim, false) && !is_emptied(&claim, true));
        assert!(is_emptied(&directory, true) && is_emptied(&daemon_set(), true));
        let last = last_form(&claim, None).unwrap();
        assert_eq!(last["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "storage");
    }
}
