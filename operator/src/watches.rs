//! Caches of what the cluster has, kept by watches, and word of what changed in them. Only what counts is kept: of a
//! node its labels and addresses, of nothing the managed fields. A change that changes nothing for us is not told.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeStatus, Pod, ServiceAccount};
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Resource, ResourceExt};
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::fleet::NodeView;
use crate::names::{MANAGED_SELECTOR, SERVER_POD_SELECTOR};

/// What the cluster has.
#[derive(Clone)]
pub struct Caches {
    /// All Offices.
    pub offices: Store<Office>,
    /// All PackageDistributions.
    pub packages: Store<PackageDistribution>,
    /// All VescEndpoints.
    pub vescs: Store<VescEndpoint>,
    /// All nodes, without most of what they say.
    pub nodes: Store<Node>,
    /// ConfigMaps that we made.
    pub config_maps: Store<ConfigMap>,
    /// ServiceAccounts that we made.
    pub service_accounts: Store<ServiceAccount>,
    /// DaemonSets that we made.
    pub daemon_sets: Store<DaemonSet>,
    /// StatefulSets that we made.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods of the server.
    pub server_pods: Store<Pod>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// A cache was filled anew.
    Everything,
    /// An Office or a node, in what counts for the others.
    Fleet,
    /// An Office, or an object that belongs to it.
    Office(String),
    /// How many nodes an Office has.
    Counts(String),
    /// A PackageDistribution: namespace and name.
    Package(String, String),
    /// A VescEndpoint: namespace and name.
    Vesc(String, String),
    /// The server's pod.
    Server,
}

/// A watch ended before its cache was filled, which happens only when the process ends.
#[derive(Debug, thiserror::Error)]
#[error("a watch ended before it showed what the cluster has")]
pub struct WatchEnded;

impl Caches {
    /// Starts all watches.
    pub fn start(client: &Client, namespace: &str, touches: &mpsc::Sender<Touch>, tasks: &mut JoinSet<()>) -> Self {
        let managed = || watcher::Config::default().labels(MANAGED_SELECTOR);
        let ours = || Watches { client, touches, namespace };
        Self {
            offices: ours().start(tasks, Api::all(client.clone()), watcher::Config::default(), strip, office),
            packages: ours().start(tasks, Api::all(client.clone()), watcher::Config::default(), strip, package),
            vescs: ours().start(tasks, Api::all(client.clone()), watcher::Config::default(), strip, vesc),
            nodes: ours().start(tasks, Api::all(client.clone()), watcher::Config::default(), strip_node, node),
            config_maps: ours().start(tasks, ours().api(), managed(), strip, owned),
            service_accounts: ours().start(tasks, ours().api(), managed(), strip, owned),
            daemon_sets: ours().start(tasks, ours().api(), managed(), strip, daemon_set),
            stateful_sets: ours().start(tasks, ours().api(), managed(), strip, owned),
            server_pods: ours().start(
                tasks,
                ours().api(),
                watcher::Config::default().labels(SERVER_POD_SELECTOR),
                strip_pod,
                server_pod,
            ),
        }
    }

    /// Waits until every cache shows what the cluster had when we looked first.
    ///
    /// # Errors
    /// [`WatchEnded`].
    pub async fn ready(&self) -> Result<(), WatchEnded> {
        let Self {
            offices,
            packages,
            vescs,
            nodes,
            config_maps,
            service_accounts,
            daemon_sets,
            stateful_sets,
            server_pods,
        } = self;
        let failed = |_| WatchEnded;
        offices.wait_until_ready().await.map_err(failed)?;
        packages.wait_until_ready().await.map_err(failed)?;
        vescs.wait_until_ready().await.map_err(failed)?;
        nodes.wait_until_ready().await.map_err(failed)?;
        config_maps.wait_until_ready().await.map_err(failed)?;
        service_accounts.wait_until_ready().await.map_err(failed)?;
        daemon_sets.wait_until_ready().await.map_err(failed)?;
        stateful_sets.wait_until_ready().await.map_err(failed)?;
        server_pods.wait_until_ready().await.map_err(failed)
    }
}

/// What a change of an object means; nothing before: it is new, nothing after: it is gone.
type Meaning<K> = fn(Option<&K>, Option<&K>) -> Option<Touch>;

struct Watches<'all> {
    client: &'all Client,
    namespace: &'all str,
    touches: &'all mpsc::Sender<Touch>,
}

impl Watches<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    fn start<K>(
        &self,
        tasks: &mut JoinSet<()>,
        api: Api<K>,
        config: watcher::Config,
        strip: fn(&mut K),
        meaning: Meaning<K>,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        let (reader, writer) = store();
        tasks.spawn(keep(api, config, strip, meaning, writer, self.touches.clone()));
        reader
    }
}

async fn keep<K>(
    api: Api<K>,
    config: watcher::Config,
    strip: fn(&mut K),
    meaning: Meaning<K>,
    mut writer: Writer<K>,
    touches: mpsc::Sender<Touch>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let reader = writer.as_reader();
    let mut events = pin!(watch(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(strip),
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "a watch failed and is tried again");
                continue;
            }
        };
        let touch = match &event {
            Event::Apply(object) => meaning(reader.get(&ObjectRef::from_obj(object)).as_deref(), Some(object)),
            Event::Delete(object) => meaning(Some(object), None),
            Event::InitDone => Some(Touch::Everything),
            Event::Init | Event::InitApply(_) => None,
        };
        writer.apply_watcher_event(&event);
        if let Some(touch) = touch
            && touches.send(touch).await.is_err()
        {
            return;
        }
    }
}

fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn strip_node(node: &mut Node) {
    strip(node);
    node.metadata.annotations = None;
    node.spec = None;
    let addresses = node.status.take().and_then(|status| status.addresses);
    node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
}

fn strip_pod(pod: &mut Pod) {
    strip(pod);
    pod.spec = None;
}

fn office(before: Option<&Office>, after: Option<&Office>) -> Option<Touch> {
    let judged = |office: &Office| {
        let meta = &office.metadata;
        (office.spec.clone(), meta.labels.clone(), meta.uid.clone(), meta.creation_timestamp.clone())
    };
    let name = after.or(before)?.name_any();
    let same = before.map(judged) == after.map(judged) && before.map(generation) == after.map(generation);
    Some(if same { Touch::Office(name) } else { Touch::Fleet })
}

fn generation<K: Resource>(object: &K) -> Option<i64> {
    object.meta().generation
}

fn package(_: Option<&PackageDistribution>, after: Option<&PackageDistribution>) -> Option<Touch> {
    let after = after?;
    Some(Touch::Package(after.namespace().unwrap_or_default(), after.name_any()))
}

fn vesc(_: Option<&VescEndpoint>, after: Option<&VescEndpoint>) -> Option<Touch> {
    let after = after?;
    Some(Touch::Vesc(after.namespace().unwrap_or_default(), after.name_any()))
}

fn node(before: Option<&Node>, after: Option<&Node>) -> Option<Touch> {
    (before.map(NodeView::of) != after.map(NodeView::of)).then_some(Touch::Fleet)
}

fn server_pod(before: Option<&Pod>, after: Option<&Pod>) -> Option<Touch> {
    let host = |pod: &Pod| (pod.metadata.deletion_timestamp.clone(), pod.status.clone().and_then(|s| s.host_ip));
    (before.map(host) != after.map(host)).then_some(Touch::Server)
}

/// What belongs to an Office is looked at when it changes in any way: by us, by Kubernetes, or by somebody's hand.
fn owned<K: Resource>(before: Option<&K>, after: Option<&K>) -> Option<Touch> {
    let owners = after.or(before)?.meta().owner_references.as_ref()?;
    owners.iter().find(|owner| owner.kind == "Office").map(|owner| Touch::Office(owner.name.clone()))
}

fn daemon_set(before: Option<&DaemonSet>, after: Option<&DaemonSet>) -> Option<Touch> {
    let desired = |set: &DaemonSet| set.status.as_ref().map(|status| status.desired_number_scheduled);
    let same = before.and_then(desired) == after.and_then(desired);
    match owned(before, after)? {
        Touch::Office(office) if !same => Some(Touch::Counts(office)),
        touch => Some(touch),
    }
}

/// Nodes as the fleet sees them, by name.
pub fn node_views(nodes: &Store<Node>) -> Vec<NodeView> {
    let views: BTreeMap<String, NodeView> =
        nodes.state().iter().map(|node| (node.name_any(), NodeView::of(node))).collect();
    views.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::tests::{office as office_object, site};

    fn node_object(heartbeat: &str, label: &str) -> Node {
        let object: Value = json!({
            "metadata": {"name": "n", "resourceVersion": heartbeat, "labels": {"site": label}, "annotations": {"a": "b"}},
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
                "images": [{"names": ["x"]}],
            },
        });
        let mut node: Node = serde_json::from_value(object).unwrap();
        strip_node(&mut node);
        node
    }

    #[test]
    fn a_heartbeat_of_a_node_is_not_told_and_its_bulk_not_kept() {
        let (before, after) = (node_object("1", "hq"), node_object("2", "hq"));
        assert_eq!(node(Some(&before), Some(&after)), None);
        assert_eq!(node(Some(&before), Some(&node_object("2", "store"))), Some(Touch::Fleet));
        assert_eq!(node(Some(&before), None), Some(Touch::Fleet));
        let status = after.status.unwrap();
        assert!(after.spec.is_none() && status.images.is_none() && after.metadata.annotations.is_none());
        assert_eq!(status.addresses.unwrap().len(), 1);
    }

    #[test]
    fn an_office_is_judged_anew_only_when_what_counts_has_changed() {
        let before = office_object("store", 1, site("store", Some("hub")));
        let mut after = before.clone();
        after.status = Some(peerdist_crds::OfficeStatus { observed_generation: Some(1), ..Default::default() });
        assert_eq!(office(Some(&before), Some(&after)), Some(Touch::Office("store".to_owned())));
        let edited = office_object("store", 1, site("other", Some("hub")));
        assert_eq!(office(Some(&before), Some(&edited)), Some(Touch::Fleet));
        assert_eq!(office(Some(&before), None), Some(Touch::Fleet));
    }

    #[test]
    fn what_belongs_to_an_office_leads_to_it() {
        let set = |desired: i32| -> DaemonSet {
            let owner = json!({"apiVersion": "peerdist.io/v1alpha1", "kind": "Office", "name": "store", "uid": "u"});
            let status = json!({"desiredNumberScheduled": desired, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
            serde_json::from_value(json!({"metadata": {"name": "x", "ownerReferences": [owner]}, "status": status}))
                .unwrap()
        };
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(1))), Some(Touch::Office("store".to_owned())));
        assert_eq!(daemon_set(Some(&set(1)), Some(&set(2))), Some(Touch::Counts("store".to_owned())));
        assert_eq!(owned::<ConfigMap>(Some(&ConfigMap::default()), None), None);
    }
}
