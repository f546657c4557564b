//! Nodes on which the server was before it moved: its folder is still there, and its set has a pod on one node only. A pod
//! of its own on each of them removes it, once: should the server come back there meanwhile, nothing is removed again. A
//! volume of the cluster moves with the server and leaves nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use peerdist_crds::names::shortened;
use serde_json::{Value, json};

use super::{REMOVING_LABEL, Set, last_template, removes};
use crate::apply::{describe, unless_gone};
use crate::cleanup::{CleanupError, failed};
use crate::names::{FORMER_SERVER_COMPONENT, SERVER, SERVER_POD_SELECTOR, labels};
use crate::server::nodes_of;

/// What the pods are for.
const ACTION: &str = "have the nodes remove what the server stored before it moved";

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;

/// Makes a pod on each of these nodes that is there. It ends by itself after this time. Gives back the node on which the
/// server is and stores: its set must not go elsewhere to remove that.
pub(super) async fn empty(
    client: &Client,
    namespace: &str,
    there: &BTreeSet<String>,
    time: Duration,
) -> Result<Option<String>, CleanupError> {
    let servers: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let server = servers.get_opt(SERVER).await.map_err(failed(ACTION))?;
    let Some(server) = server.filter(|server| !server.has_claim()) else { return Ok(None) };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let nodes = maps.get_opt(SERVER).await.map_err(failed(ACTION))?.as_ref().map(nodes_of).unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let running = pods.list(&ListParams::default().labels(SERVER_POD_SELECTOR)).await.map_err(failed(ACTION))?;
    forget_failed(&pods).await?;
    let here = running.items.into_iter().find_map(|pod| pod.spec?.node_name);
    for node in former(&nodes, here.as_deref()).filter(|node| there.contains(*node)) {
        let Some(pod) = pod(node, &server, time) else { break };
        make(&pods, node, pod).await?;
    }
    Ok(here)
}

/// Somebody may refuse a pod, such as a quota or a policy: that is said, and everything else goes on.
async fn make(pods: &Api<Pod>, node: &str, pod: Value) -> Result<(), CleanupError> {
    let pod: Pod = serde_json::from_value(pod).map_err(kube::Error::SerdeError).map_err(failed(ACTION))?;
    match pods.create(&PostParams::default(), &pod).await {
        // Made by a cleanup that did not come to its end.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(kube::Error::Api(status)) => {
            println!("{node}: what the server stored there stays: {}", describe(&kube::Error::Api(status)));
            Ok(())
        }
        made => made.map(drop).map_err(failed(ACTION)),
    }
}

/// Those of a cleanup before that did not get to it in time. They would never try again.
async fn forget_failed(pods: &Api<Pod>) -> Result<(), CleanupError> {
    let component = format!("app.kubernetes.io/component={FORMER_SERVER_COMPONENT}");
    let failed_pods = ListParams::default().labels(&component).fields("status.phase=Failed");
    for pod in pods.list(&failed_pods).await.map_err(failed(ACTION))? {
        let deleted = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        unless_gone(deleted).map_err(failed(ACTION))?;
    }
    Ok(())
}

/// All but the one on which the server is now.
fn former<'nodes>(nodes: &'nodes [String], here: Option<&'nodes str>) -> impl Iterator<Item = &'nodes String> {
    nodes.iter().filter(move |node| here != Some(node.as_str()))
}

/// The pod on a node. `None`: the server's set removes already, and so this was done.
fn pod(node: &str, server: &StatefulSet, time: Duration) -> Option<Value> {
    let template = Some(&server.spec.template).filter(|template| !removes(template))?;
    let mut last = last_template(template)?;
    let spec = last["spec"].as_object_mut()?;
    let once = spec.remove("initContainers")?;
    spec.insert("containers".to_owned(), once);
    stay_on(node, spec);
    spec.insert("restartPolicy".to_owned(), json!("OnFailure"));
    spec.insert("activeDeadlineSeconds".to_owned(), json!(time.as_secs().max(1)));
    let mut labels = labels(FORMER_SERVER_COMPONENT);
    labels.insert(REMOVING_LABEL.to_owned(), "true".to_owned());
    let name = shortened(&format!("peerdist-{FORMER_SERVER_COMPONENT}-{node}"), NAME_BYTES_MAX);
    let metadata = json!({"name": name, "labels": labels});
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// Whatever labels the node still has, and whatever is put there.
pub(super) fn stay_on(node: &str, pod: &mut serde_json::Map<String, Value>) {
    pod.remove("affinity");
    pod.insert("nodeName".to_owned(), json!(node));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::sets::tests::stateful_set;

    const TIME: Duration = Duration::from_secs(180);

    #[test]
    fn every_node_but_that_of_the_server_is_a_former_one() {
        let nodes = ["a", "b", "c"].map(str::to_owned);
        let former = |here| former(&nodes, here).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(former(Some("c")), ["a", "b"]);
        assert_eq!(former(Some("a")), ["b", "c"], "it came back, and nobody noted it yet");
        assert_eq!(former(Some("d")), ["a", "b", "c"], "it moved, and nobody noted it yet");
        assert_eq!(former(None), ["a", "b", "c"], "it waits for a node");
    }

    #[test]
    fn a_pod_removes_the_folder_of_the_server_once_and_ends() {
        let pod = pod("a", &stateful_set("hostPath: /srv/library"), TIME).unwrap();
        let spec = &pod["spec"];
        assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
        assert_eq!(spec["containers"][0]["args"], json!(["remove-storage", "--root", "/srv/library"]));
        assert_eq!((&spec["nodeName"], &spec["restartPolicy"]), (&json!("a"), &json!("OnFailure")));
        assert_eq!(spec["activeDeadlineSeconds"], 180);
        assert_eq!((&spec["initContainers"], &spec["affinity"]), (&Value::Null, &Value::Null));
        assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/srv/library");
        assert_eq!(pod["metadata"]["name"], "peerdist-former-server-a");
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(crate::cleanup::sets::SeenPod::of(&pod).node.as_deref(), Some("a"));
        let (component, office) = crate::cleanup::sets::group(pod.metadata.labels.as_ref().unwrap());
        assert_eq!((component.as_deref(), office), (Some(FORMER_SERVER_COMPONENT), None), "by which it is found again");
    }

    #[test]
    fn a_set_that_removes_already_gets_no_further_pods() {
        let turned = crate::cleanup::sets::last_form(&stateful_set("hostPath: /srv/library"), None).unwrap();
        assert_eq!(pod("a", &serde_json::from_value(turned).unwrap(), TIME), None);
    }
}
