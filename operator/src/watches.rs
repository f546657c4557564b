//! Caches of what the cluster has, kept by watches, and word of what changed in them. Only what counts is kept, and of
//! nodes, pods and DaemonSets, of which there are many, nothing else is read (see [`held`](crate::held)). A change that
//! changes nothing for us is not told.

mod meaning;

use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Resource, ResourceExt};
use peerdist_crds::readable::{Kind, Readable, unwrapped};
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::meaning::Touch;
use self::meaning::{
    config_map, daemon_set, node, office, office_of, owned, package, pending_pod, secret, server_pod, service_network,
    stateful_set, strip, vesc,
};
use crate::apply::Memory;
use crate::fleet::{Grounds, NodeView};
use crate::held::{HeldDaemonSet, HeldNode, HeldPod};
use crate::names::{CLIENT_POD_SELECTOR, MANAGED_SELECTOR, SERVER, SERVER_IDENTITY, SERVER_POD_SELECTOR};
use crate::storage::StoragePrefixes;

/// Objects that are listed at a time while a cache is filled, where each is long. Most are read as a whole first, and
/// managed fields that were read take several times the memory of what is kept.
const WHOLE_OBJECTS_MAX: u32 = 100;

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
    pub nodes: Store<HeldNode>,
    /// ConfigMaps that we made.
    pub config_maps: Store<ConfigMap>,
    /// ServiceAccounts that we made.
    pub service_accounts: Store<ServiceAccount>,
    /// DaemonSets that we made.
    pub daemon_sets: Store<HeldDaemonSet>,
    /// StatefulSets that we made.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods of the server.
    pub server_pods: Store<HeldPod>,
    /// The Secret with the root, and none besides.
    pub root_secret: Store<Secret>,
    /// The Secret with the server's identity, and none besides.
    pub identity_secret: Store<Secret>,
    /// Networks of services.
    pub service_networks: Store<ServiceCIDR>,
    /// Pods of clients that have not started: a moment long as a rule.
    pub pending_pods: Store<HeldPod>,
}

/// A watch ended before its cache was filled, which happens only when the process ends.
#[derive(Debug, thiserror::Error)]
#[error("a watch ended before it showed what the cluster has")]
pub struct WatchEnded;

impl Caches {
    /// Starts all watches. They tell what changed, and the memory what was deleted.
    pub fn start(
        client: &Client,
        namespace: &str,
        root_secret: &str,
        touches: &mpsc::Sender<Touch>,
        memory: &Memory,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let managed = || watcher::Config::default().labels(MANAGED_SELECTOR).page_size(WHOLE_OBJECTS_MAX);
        // Rights to a Secret by its name extend to a watch of that name alone.
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let ours = || Watches { client, touches, memory, namespace };
        Self {
            offices: ours().start_readable(tasks, office),
            packages: ours().start_readable(tasks, package),
            vescs: ours().start_readable(tasks, vesc),
            nodes: ours().start(tasks, Api::all(client.clone()), watcher::Config::default(), strip, node),
            config_maps: ours().start(tasks, ours().api(), managed(), strip, config_map),
            service_accounts: ours().start(tasks, ours().api(), managed(), strip, owned),
            daemon_sets: ours().start(tasks, ours().api(), managed(), strip, daemon_set),
            stateful_sets: ours().start(tasks, ours().api(), managed(), strip, stateful_set),
            server_pods: ours().start(
                tasks,
                ours().api(),
                watcher::Config::default().labels(SERVER_POD_SELECTOR),
                strip,
                server_pod,
            ),
            root_secret: ours().start(tasks, ours().api(), named(root_secret), strip, secret),
            identity_secret: ours().start(tasks, ours().api(), named(SERVER_IDENTITY), strip, secret),
            service_networks: ours().start(
                tasks,
                Api::all(client.clone()),
                watcher::Config::default(),
                strip,
                service_network,
            ),
            pending_pods: ours().start(
                tasks,
                ours().api(),
                watcher::Config::default().labels(CLIENT_POD_SELECTOR).fields("status.phase=Pending"),
                strip,
                pending_pod,
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
            pending_pods,
            root_secret,
            identity_secret,
            service_networks,
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
        server_pods.wait_until_ready().await.map_err(failed)?;
        pending_pods.wait_until_ready().await.map_err(failed)?;
        root_secret.wait_until_ready().await.map_err(failed)?;
        identity_secret.wait_until_ready().await.map_err(failed)?;
        service_networks.wait_until_ready().await.map_err(failed)
    }
}

/// What a change of an object means; nothing before: it is new, nothing after: it is gone.
type Meaning<K> = fn(Option<&K>, Option<&K>) -> Option<Touch>;

struct Watches<'all> {
    client: &'all Client,
    namespace: &'all str,
    touches: &'all mpsc::Sender<Touch>,
    memory: &'all Memory,
}

impl Watches<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Of a kind of ours, which another release may have written.
    fn start_readable<K>(&self, tasks: &mut JoinSet<()>, meaning: Meaning<K>) -> Store<K>
    where
        K: Kind + Clone + Debug + Send + Sync + 'static,
        K::Status: DeserializeOwned,
    {
        let config = watcher::Config::default().page_size(WHOLE_OBJECTS_MAX);
        let events = watch(Api::<Readable<K>>::all(self.client.clone()), config);
        self.keep(tasks, events.default_backoff().map(|event| event.map(unwrapped)), strip, meaning)
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
        self.keep(tasks, watch(api, config).default_backoff(), strip, meaning)
    }

    fn keep<K>(
        &self,
        tasks: &mut JoinSet<()>,
        events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        strip: fn(&mut K),
        meaning: Meaning<K>,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        let (reader, writer) = store();
        let keeper = Keeper { strip, meaning, writer, touches: self.touches.clone(), memory: self.memory.clone() };
        tasks.spawn(keeper.keep(events));
        reader
    }
}

/// Keeps one cache.
struct Keeper<K: Resource<DynamicType = ()> + Clone + 'static> {
    strip: fn(&mut K),
    meaning: Meaning<K>,
    writer: Writer<K>,
    touches: mpsc::Sender<Touch>,
    memory: Memory,
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static> Keeper<K> {
    /// Until nobody listens any more.
    async fn keep(mut self, events: impl Stream<Item = Result<Event<K>, watcher::Error>>) {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event.modify(self.strip),
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), "a watch failed and is tried again");
                    continue;
                }
            };
            if let Some(touch) = self.take_in(&event)
                && self.touches.send(touch).await.is_err()
            {
                return;
            }
        }
    }

    /// First the cache, then the memory: what is forgotten is gone from the cache too.
    fn take_in(&mut self, event: &Event<K>) -> Option<Touch> {
        let before = |object: &K| self.writer.as_reader().get(&ObjectRef::from_obj(object));
        let touch = match event {
            Event::Apply(object) => (self.meaning)(before(object).as_deref(), Some(object)),
            Event::Delete(object) => (self.meaning)(Some(object), None),
            Event::InitDone => Some(Touch::Everything),
            Event::Init | Event::InitApply(_) => None,
        };
        self.writer.apply_watcher_event(event);
        match event {
            Event::Delete(object) => self.memory.forget(object),
            Event::InitDone => self.memory.forget_kind::<K>(),
            Event::Apply(_) | Event::Init | Event::InitApply(_) => {}
        }
        touch
    }
}

/// What a judgement rests on, as far as the cluster tells it.
pub fn grounds(caches: &Caches, storage_prefixes: &StoragePrefixes) -> Grounds {
    let standing = |set: &HeldDaemonSet| Some((office_of(set)?.name.clone(), set.node_selector.clone()?));
    Grounds {
        storage_prefixes: storage_prefixes.clone(),
        server_owner: server_office(caches).map(|office| office.uid),
        standing: caches.daemon_sets.state().iter().filter_map(|set| standing(set)).collect(),
    }
}

/// The Office that the server in the cluster belongs to.
pub fn server_office(caches: &Caches) -> Option<OwnerReference> {
    let server = caches.stateful_sets.find(|set| set.name_any() == SERVER)?;
    office_of(&*server).cloned()
}

/// Nodes as the fleet sees them, in the order of their names.
pub fn node_views(nodes: &[Arc<HeldNode>]) -> Vec<&NodeView> {
    let mut views: Vec<&NodeView> = nodes.iter().map(|node| &node.view).collect();
    views.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    views
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[tokio::test]
    async fn a_deletion_is_told_after_the_cache_shows_it() {
        let (reader, writer) = store();
        let (touches, mut told) = mpsc::channel(4);
        let keeper = Keeper { strip, meaning: owned, writer, touches, memory: Memory::default() };
        let owner = serde_json::json!({"apiVersion": "a", "kind": "Office", "name": "store", "uid": "u"});
        let metadata = ObjectMeta {
            name: Some("x".to_owned()),
            owner_references: Some(vec![serde_json::from_value(owner).unwrap()]),
            ..ObjectMeta::default()
        };
        let object = ConfigMap { metadata, ..ConfigMap::default() };
        let events = [Event::Init, Event::InitDone, Event::Apply(object.clone()), Event::Delete(object)];
        keeper.keep(futures_util::stream::iter(events.map(Ok))).await;
        let office = || Some(Touch::Office("store".to_owned()));
        assert_eq!(
            [told.recv().await, told.recv().await, told.recv().await],
            [Some(Touch::Everything), office(), office()]
        );
        assert!(reader.state().is_empty());
    }
}
