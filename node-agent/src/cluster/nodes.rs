//! Which nodes the cluster has, by the names of its Node objects alone: a node that is down or starts anew keeps its
//! object, and one whose object is gone has left for good. Nothing is known before the list was whole once, and while the
//! API server is away everything stays as it was.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use peerdist_core::names::NodeName;
use tokio_util::sync::CancellationToken;

use super::{Cluster, WatchLog, WatchPauses};

/// A Node without its spec and status, which change all the time and are large.
type NodeMetadata = PartialObjectMeta<Node>;

/// The names of the cluster's nodes as they are now; clones look at the same.
#[derive(Clone, Default)]
pub struct ClusterNodes(Arc<Mutex<Names>>);

impl ClusterNodes {
    /// Begins to watch, until `stop`. What cannot be watched is tried again and logged.
    pub fn watch(cluster: &Cluster, stop: CancellationToken) -> Self {
        let nodes = Self::default();
        let watching = follow(Api::all(cluster.client.clone()), nodes.clone());
        tokio::spawn(stop.run_until_cancelled_owned(watching));
        nodes
    }

    /// Whether the cluster has no Node of this name. While nobody knows, it lacks none.
    pub fn lacks(&self, node: &NodeName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lacks(node)
    }

    fn take(&self, event: Event<NodeMetadata>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(event);
    }
}

async fn follow(api: Api<NodeMetadata>, nodes: ClusterNodes) {
    let mut events = pin!(watcher(api, watcher::Config::default()).backoff(WatchPauses::default()));
    let mut log = WatchLog::new("Node");
    while let Some(event) = events.next().await {
        log.note(&event);
        event.into_iter().for_each(|event| nodes.take(event));
    }
}

#[derive(Debug, Default)]
struct Names {
    /// `None` before the list was whole once.
    whole: Option<BTreeSet<NodeName>>,
    /// What has come of the next list.
    coming: BTreeSet<NodeName>,
}

impl Names {
    fn lacks(&self, node: &NodeName) -> bool {
        self.whole.as_ref().is_some_and(|names| !names.contains(node))
    }

    fn take(&mut self, event: Event<NodeMetadata>) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(node) => self.coming.extend(name_of(&node)),
            Event::InitDone => self.whole = Some(std::mem::take(&mut self.coming)),
            Event::Apply(node) => self.whole.iter_mut().for_each(|names| names.extend(name_of(&node))),
            Event::Delete(node) => {
                if let (Some(names), Some(name)) = (&mut self.whole, name_of(&node)) {
                    names.remove(&name);
                }
            }
        }
    }
}

/// `None` of a name that no node of ours can have.
fn name_of(node: &NodeMetadata) -> Option<NodeName> {
    NodeName::new(&node.name_any()).ok()
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectMeta, PartialObjectMetaExt};

    use super::*;

    fn node(name: &str) -> NodeMetadata {
        ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }.into_response_partial()
    }

    /// Which of two nodes the cluster lacks after these events.
    fn lacked(nodes: &ClusterNodes, events: impl IntoIterator<Item = Event<NodeMetadata>>) -> Vec<&'static str> {
        events.into_iter().for_each(|event| nodes.take(event));
        let lacks = |name: &&str| nodes.lacks(&NodeName::new(name).unwrap());
        ["till-1", "till-2"].into_iter().filter(lacks).collect()
    }

    #[test]
    fn no_node_is_lacking_before_the_list_was_whole_nor_while_the_next_one_comes() {
        let nodes = ClusterNodes::default();
        assert!(lacked(&nodes, []).is_empty());
        assert!(lacked(&nodes, [Event::Init, Event::InitApply(node("till-1"))]).is_empty());
        // The API server went away in between: the list begins anew.
        assert!(lacked(&nodes, [Event::Init, Event::InitApply(node("till-2"))]).is_empty());
        assert_eq!(lacked(&nodes, [Event::InitDone]), ["till-1"]);
        assert_eq!(lacked(&nodes, [Event::Init, Event::InitApply(node("till-1"))]), ["till-1"]);
        assert_eq!(lacked(&nodes, [Event::InitDone]), ["till-2"]);
    }

    #[test]
    fn node_is_lacking_from_its_deletion_until_it_is_registered_again() {
        let nodes = ClusterNodes::default();
        let all = ["till-1", "till-2"].map(|name| Event::InitApply(node(name)));
        assert!(lacked(&nodes, std::iter::once(Event::Init).chain(all).chain([Event::InitDone])).is_empty());
        assert!(lacked(&nodes, [Event::Apply(node("till-2"))]).is_empty(), "its status changed");
        assert_eq!(lacked(&nodes, [Event::Delete(node("till-2"))]), ["till-2"]);
        assert!(lacked(&nodes, [Event::Apply(node("till-2"))]).is_empty());
    }
}
