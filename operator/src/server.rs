//! What the Central Office has besides its clients: the server's identity (in [`identity`]), its StatefulSet,
//! ServiceAccount, the ConfigMap that tells clients where it is and cleanup where it was, and the one that tells it which
//! networks are the cluster's own. Part of the Office's reconcile.

mod build;
mod networks;
mod place;
mod state;
mod storage;

use std::borrow::Cow;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use peerdist_crds::Office;

pub use self::build::{ServerMaps, ServerObjects, build, build_maps};
pub use self::networks::forbidden_networks;
use self::place::place;
pub use self::place::{Place, nodes_of};
pub use self::state::ServerState;
use self::state::{failure_of, state};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::fleet::ValidOffice;
use crate::held::HeldPod;
use crate::identity;
use crate::names::{NETWORKS, SERVER};
use crate::settings::{ServerSettings, ServerStorage, Settings};
use crate::watches::server_office;

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
    let place = place(&live.pods, live.config_map.as_deref());
    let asked = &context.settings.server.storage;
    let kept = storage::kept(asked, live.stateful_set.as_deref());
    let told = kept.as_ref().map(|kept| storage::message(asked, kept, &context.namespace));
    let settings = with_storage(&context.settings, kept);
    let desired = build(central, place.as_ref(), &networks_of_cluster(context), &settings, &context.namespace);
    let ServerObjects { config_map, networks, service_account, stateful_set } = &desired;
    context.apply(networks, live.networks.as_deref()).await?;
    if let Some(config_map) = config_map {
        context.apply(config_map, live.config_map.as_deref()).await?;
    }
    context.apply(service_account, live.service_account.as_deref()).await?;
    context.apply(stateful_set, live.stateful_set.as_deref()).await?;
    let current = live.stateful_set.as_deref().is_some_and(|set| stateful_set.was_applied_to(set));
    let failure = failure_of(&live.pods, |node| is_away(node, context));
    let state = state(current, place.as_ref(), live.stateful_set.as_deref(), !live.pods.is_empty());
    Ok(match (identity, state, failure) {
        (Err(failure), ..) => ServerState::IdentityFailed(failure),
        (Ok(()), ServerState::NotReady(_), Some(failure)) => ServerState::CannotStart(failure),
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
    let place = place(&live.pods, live.config_map.as_deref());
    let networks = networks_of_cluster(context);
    let desired = build_maps(&office.name_any(), &uid, place.as_ref(), &networks, &context.namespace);
    let ServerMaps { config_map, networks } = &desired;
    context.apply(networks, live.networks.as_deref()).await?;
    match config_map {
        Some(config_map) => context.apply(config_map, live.config_map.as_deref()).await,
        None => Ok(()),
    }
}

/// Whether the server ever ran, so that clients are told where it is. Before, none of them starts.
pub fn has_run(context: &Context) -> bool {
    context.owned(&context.caches.config_maps, SERVER).is_some()
}

fn networks_of_cluster(context: &Context) -> Vec<IpNet> {
    forbidden_networks(
        context.caches.nodes.state().iter().map(|node| &**node),
        context.caches.service_networks.state().iter().map(|network| &**network),
    )
}

/// One that is gone takes its pods with it.
fn is_away(node: &str, context: &Context) -> bool {
    context.caches.nodes.get(&ObjectRef::new(node)).is_some_and(|node| node.is_away)
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
