//! What the Central Office has besides its clients: the server's identity (in [`identity`]), its StatefulSet,
//! ServiceAccount, the ConfigMap that tells clients where it is, and the one that tells it which networks are the
//! cluster's own. Part of the Office's reconcile.

mod build;
mod networks;
mod storage;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use peerdist_crds::Office;

pub use self::build::{ServerMaps, ServerObjects, build, build_maps};
pub use self::networks::forbidden_networks;
use crate::apply::{ApplyError, differs};
use crate::context::Context;
use crate::fleet::ValidOffice;
use crate::held::HeldPod;
use crate::identity::{self, IdentityFailure};
use crate::names::{NETWORKS, SERVER, SERVER_ADDRESS_KEY};
use crate::preflight::PreflightFailure;
use crate::settings::{ServerSettings, ServerStorage, Settings};
use crate::watches::server_office;

/// How the server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// It runs in the form that was asked for.
    Ready,
    /// Nobody counted that form yet.
    NotCounted,
    /// It does not run; the text says what is missing.
    NotReady(&'static str),
    /// Its pod cannot start on its node.
    PreflightFailed(PreflightFailure),
    /// It has no identity, or one that cannot be kept up.
    IdentityFailed(IdentityFailure),
    /// It runs, on another storage than is asked for; the text says what to do.
    StorageKept(String),
}

/// What the cluster has of the server.
struct Live {
    config_map: Option<Arc<ConfigMap>>,
    networks: Option<Arc<ConfigMap>>,
    service_account: Option<Arc<ServiceAccount>>,
    stateful_set: Option<Arc<StatefulSet>>,
    pods: Vec<Arc<HeldPod>>,
}

/// Makes the cluster have the server.
///
/// # Errors
/// [`ApplyError`] when something could not be written.
pub async fn reconcile(central: &ValidOffice, context: &Context) -> Result<ServerState, ApplyError> {
    let identity = identity::reconcile(context, Timestamp::now()).await?;
    let live = dereference(context);
    let address = address(&live.pods, live.config_map.as_deref());
    let asked = &context.settings.server.storage;
    let kept = storage::kept(asked, live.stateful_set.as_deref());
    let told = kept.as_ref().map(|kept| storage::message(asked, kept, &context.namespace));
    let settings = with_storage(&context.settings, kept);
    let desired = build(central, address, &networks_of_cluster(context), &settings, &context.namespace);
    let ServerObjects { config_map, networks, service_account, stateful_set } = &desired;
    context.apply(networks, live.networks.as_deref()).await?;
    if let Some(config_map) = config_map {
        context.apply(config_map, live.config_map.as_deref()).await?;
    }
    context.apply(service_account, live.service_account.as_deref()).await?;
    context.apply(stateful_set, live.stateful_set.as_deref()).await?;
    let shown = live.stateful_set.as_deref().and_then(|set| serde_json::to_value(set).ok());
    let current = shown.is_some_and(|shown| !differs(&stateful_set.body, &shown));
    let failure = live.pods.iter().find_map(|pod| pod.failure.clone());
    let state = state(current, address, live.stateful_set.as_deref());
    Ok(match (identity, state, failure) {
        (Err(failure), ..) => ServerState::IdentityFailed(failure),
        (Ok(()), ServerState::NotReady(_), Some(failure)) => ServerState::PreflightFailed(failure),
        (Ok(()), ServerState::Ready, _) => told.map_or(ServerState::Ready, ServerState::StorageKept),
        (Ok(()), state, _) => state,
    })
}

fn with_storage(settings: &Settings, kept: Option<ServerStorage>) -> Cow<'_, Settings> {
    let Some(storage) = kept else { return Cow::Borrowed(settings) };
    let server = ServerSettings { storage, ..settings.server.clone() };
    Cow::Owned(Settings { server, ..settings.clone() })
}

/// Keeps up what a server needs that runs, while its Office is refused: its identity, its address, the networks of the
/// cluster. Its pod stays as it is. Nothing is done for another Office.
///
/// # Errors
/// [`ApplyError`] when something could not be written.
pub async fn keep_up(office: &Office, context: &Context) -> Result<(), ApplyError> {
    let owner = server_office(&context.caches).map(|owner| owner.uid);
    let Some(uid) = owner.filter(|uid| office.uid().as_ref() == Some(uid)) else { return Ok(()) };
    if let Err(failure) = identity::reconcile(context, Timestamp::now()).await? {
        tracing::warn!(%failure, "the identity of the server cannot be kept up");
    }
    let live = dereference(context);
    let address = address(&live.pods, live.config_map.as_deref());
    let networks = networks_of_cluster(context);
    let desired = build_maps(&office.name_any(), &uid, address, &networks, &context.namespace);
    let ServerMaps { config_map, networks } = &desired;
    context.apply(networks, live.networks.as_deref()).await?;
    match config_map {
        Some(config_map) => context.apply(config_map, live.config_map.as_deref()).await,
        None => Ok(()),
    }
}

fn networks_of_cluster(context: &Context) -> Vec<IpNet> {
    forbidden_networks(
        context.caches.nodes.state().iter().map(|node| &**node),
        context.caches.service_networks.state().iter().map(|network| &**network),
    )
}

fn dereference(context: &Context) -> Live {
    Live {
        config_map: context.owned(&context.caches.config_maps, SERVER),
        networks: context.owned(&context.caches.config_maps, NETWORKS),
        service_account: context.owned(&context.caches.service_accounts, SERVER),
        stateful_set: context.owned(&context.caches.stateful_sets, SERVER),
        pods: context.caches.server_pods.state(),
    }
}

/// Where the server runs, or ran last: while it moves, the old address is better than none.
fn address(pods: &[Arc<HeldPod>], config_map: Option<&ConfigMap>) -> Option<IpAddr> {
    let running = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let host = running.filter_map(|pod| pod.host.as_deref()?.parse().ok()).next();
    let known = config_map.and_then(|map| map.data.as_ref()?.get(SERVER_ADDRESS_KEY)?.parse().ok());
    host.or(known)
}

fn state(current: bool, address: Option<IpAddr>, stateful_set: Option<&StatefulSet>) -> ServerState {
    let Some((set, status)) = stateful_set.filter(|_| current).and_then(|set| Some((set, set.status.as_ref()?))) else {
        return ServerState::NotCounted;
    };
    if status.observed_generation != set.metadata.generation {
        ServerState::NotCounted
    } else if status.updated_replicas.unwrap_or_default() < 1 {
        ServerState::NotReady("the server is being replaced")
    } else if status.ready_replicas.unwrap_or_default() < 1 {
        ServerState::NotReady(
            "the server does not run: label a node peerdist.io/server, and see the pod peerdist-server-0",
        )
    } else if address.is_none() {
        ServerState::NotReady("the address of the server is not known yet")
    } else {
        ServerState::Ready
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value, deleted: bool) -> Arc<HeldPod> {
        let mut pod = json!({"metadata": {"name": "peerdist-server-0"}, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_address_is_that_of_the_node_and_the_last_one_while_it_moves() {
        let known: ConfigMap = serde_json::from_value(json!({"data": {"address": "10.0.0.1"}})).unwrap();
        let here = pod(json!({"hostIP": "10.0.0.2"}), false);
        let leaving = pod(json!({"hostIP": "10.0.0.3"}), true);
        assert_eq!(address(&[leaving.clone(), here], Some(&known)), "10.0.0.2".parse().ok());
        assert_eq!(address(&[leaving, pod(json!({}), false)], Some(&known)), "10.0.0.1".parse().ok());
        assert_eq!(address(&[], None), None);
    }

    #[test]
    fn the_server_is_ready_only_in_its_latest_form_and_with_an_address() {
        let set = |observed: i64, updated: i32, ready: i32| -> StatefulSet {
            let status = json!({"observedGeneration": observed, "updatedReplicas": updated, "readyReplicas": ready, "replicas": 1});
            serde_json::from_value(json!({"metadata": {"generation": 2}, "status": status})).unwrap()
        };
        let address = "10.0.0.1".parse().ok();
        let not_ready = |state: ServerState| matches!(state, ServerState::NotReady(_));
        assert_eq!(state(true, address, Some(&set(2, 1, 1))), ServerState::Ready);
        assert_eq!(state(false, address, Some(&set(2, 1, 1))), ServerState::NotCounted);
        assert_eq!(state(true, address, Some(&set(1, 1, 1))), ServerState::NotCounted);
        assert_eq!(state(true, address, None), ServerState::NotCounted);
        assert!(not_ready(state(true, address, Some(&set(2, 0, 1)))));
        assert!(not_ready(state(true, address, Some(&set(2, 1, 0)))));
        assert!(not_ready(state(true, None, Some(&set(2, 1, 1)))));
    }
}
