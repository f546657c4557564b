//! The store's slow verbs on threads that may wait: flushing when due, publishing, deleting, retention.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peerdist_core::client::Event;
use peerdist_core::digest::Digest;
use peerdist_core::names::{DistributionKey, NodeName};
use peerdist_core::rollout::{HeldVersion, decide_retention};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node::Context;
use crate::store::{NodeStore, Publication};

/// Written chunks are journalled at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Flushes when enough was written, when a package is whole, and once a second.
pub(super) async fn flush_when_due(context: Context, stop: CancellationToken) {
    let mut failure = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = context.flush.notified() => {}
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
        }
        let failed = flush(&context).await;
        // A disk that stays full is said once.
        if let Some(message) = failed.as_ref().filter(|_| failed != failure) {
            tracing::error!(node = %context.settings.node, %message, "written chunks cannot be brought to the disk");
        }
        failure = failed;
    }
    // The node has stopped listening: what is written is journalled, and nobody needs to know in this run.
    drop(measured(&context, NodeStore::flush).await);
}

/// Has the store do something on a thread that may wait, and counts the time as the disk's.
fn measured<T: Send + 'static>(
    context: &Context,
    step: impl FnOnce(&NodeStore) -> T + Send + 'static,
) -> JoinHandle<T> {
    let (store, progress) = (context.store.clone(), context.progress.clone());
    tokio::task::spawn_blocking(move || progress.on_disk(|| step(&store)))
}

/// Why it failed, if it did.
async fn flush(context: &Context) -> Option<String> {
    match measured(context, NodeStore::flush).await {
        Ok(Ok(flushed)) => {
            for (digest, runs) in flushed {
                context.tell(Event::Flushed { digest, runs }).await;
            }
            None
        }
        Ok(Err(error)) => {
            let (reason, message) = (error.source.reason().to_owned(), error.source.to_string());
            for (digest, runs) in error.lost {
                context.tell(Event::ChunksLost { digest, runs }).await;
                let (reason, message) = (reason.clone(), message.clone());
                context.tell(Event::StoreFailed { digest, reason, message }).await;
            }
            Some(message)
        }
        Err(_) => None,
    }
}

pub(super) async fn publish(context: Context, digest: Digest) {
    let event = match measured(&context, move |store| store.publish(digest)).await {
        Ok(Ok(publication)) => {
            say_published(&context, digest, publication);
            Event::Published { digest }
        }
        Ok(Err(error)) => Event::StoreFailed { digest, reason: error.reason().to_owned(), message: error.to_string() },
        Err(_) => return,
    };
    context.tell(event).await;
}

/// What was there already and current, as after a restart, is no news.
fn say_published(context: &Context, digest: Digest, publication: Publication) {
    let node = &context.settings.node;
    let Ok(root) = context.store.manifest_root(digest) else { return };
    let (package, bytes) = (root.package(), root.total_bytes());
    match publication {
        Publication::Published => tracing::info!(%node, %package, bytes, "package published"),
        Publication::Activated => tracing::info!(%node, %package, bytes, "package made current again"),
        Publication::Unchanged => {}
    }
}

/// Deletes a package, however often it has to be tried, and tells when nothing of it is left.
pub(super) async fn delete(
    store: Arc<NodeStore>,
    events: mpsc::Sender<Event>,
    node: NodeName,
    digest: Digest,
    retry: Duration,
) {
    loop {
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.delete(digest)).await {
            // Nobody listens: the node has stopped.
            Ok(Ok(())) => return drop(events.send(Event::Deleted { digest }).await),
            Ok(Err(error)) => tracing::warn!(%node, %digest, %error, "package cannot be deleted yet"),
            Err(_) => return,
        }
        tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep(retry) => {}
        }
    }
}

/// Has retention look at a distribution, and tells what it deleted.
pub(super) async fn prune_and_tell(
    context: Context,
    distribution: DistributionKey,
    versions: u32,
    retention_seconds: u64,
) {
    let store = context.store.clone();
    let pruned = tokio::task::spawn_blocking(move || prune(&store, &distribution, versions, retention_seconds)).await;
    for digest in pruned.unwrap_or_default() {
        context.tell(Event::Pruned { digest }).await;
    }
}

/// Deletes versions that retention gives up, and returns them.
pub(in crate::driver) fn prune(
    store: &NodeStore,
    distribution: &DistributionKey,
    versions: u32,
    retention_seconds: u64,
) -> Vec<Digest> {
    let (now, wall) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let mut packages: Vec<_> = store
        .inventory()
        .into_iter()
        .filter(|package| package.key.distribution == *distribution && package.published)
        .collect();
    // The current one became current last; of the others whoever stopped last.
    packages.sort_by_key(|package| (package.current, package.superseded_at_seconds));
    let held: Vec<HeldVersion> = packages
        .iter()
        .map(|package| HeldVersion {
            version: package.key.version.clone(),
            superseded_at: (!package.current).then(|| {
                let ago = package.superseded_at_seconds.map_or(0, |at| wall.saturating_sub(at));
                now.checked_sub(Duration::from_secs(ago)).unwrap_or(now)
            }),
        })
        .collect();
    let current = packages.iter().find(|package| package.current).map(|package| &package.key.version);
    let retention = decide_retention(&held, current, versions, Duration::from_secs(retention_seconds), now);
    let mut pruned = Vec::new();
    for package in packages.iter().filter(|package| retention.evictable.contains(&package.key.version)) {
        match store.delete(package.digest) {
            Ok(()) => pruned.push(package.digest),
            Err(error) => tracing::warn!(package = %package.key, %error, "old version cannot be deleted"),
        }
    }
    pruned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::client::fixture::TestNode;
    use crate::store::tests::fixture::{Root, TestPackage};

    #[tokio::test]
    async fn flushing_and_publishing_count_as_time_of_the_disk() {
        let (mut node, package) = (TestNode::new(40), TestPackage::mixed("1"));
        let (store, progress) = (node.context.store.clone(), node.context.progress.clone());
        package.put_manifest(&store);
        store.prepare(package.digest()).unwrap();
        package.write(&store, 0..package.count());
        assert_eq!(flush(&node.context).await, None);
        let flushing = progress.time_on_disk();
        assert!(flushing > Duration::ZERO);
        publish(node.context.clone(), package.digest()).await;
        assert!(progress.time_on_disk() > flushing);
        assert!(matches!(node.events.recv().await, Some(Event::Flushed { .. })));
        assert!(matches!(node.events.recv().await, Some(Event::Published { .. })));
    }

    #[tokio::test]
    async fn deletion_that_fails_is_tried_again_and_told_when_nothing_is_left() {
        let (root, retry) = (Root::new(), Duration::from_millis(5));
        let (store, package) = (Arc::new(root.open()), TestPackage::mixed("1"));
        package.deliver(&store);
        let digest = package.digest();
        // Where the tree is moved before it is removed, there is something already.
        let place = root.path().join("staging").join(format!("{}.removed", digest.to_hex()));
        std::fs::create_dir_all(place.join("in-the-way")).unwrap();
        let (events, mut told) = mpsc::channel(1);
        let deleting = tokio::spawn(delete(store.clone(), events, NodeName::new("n").unwrap(), digest, retry));
        tokio::time::sleep(retry * 10).await;
        assert!(told.try_recv().is_err() && !deleting.is_finished());
        std::fs::rename(place, root.path().join("elsewhere")).unwrap();
        assert!(matches!(told.recv().await, Some(Event::Deleted { digest: deleted }) if deleted == digest));
        assert!(store.inventory().is_empty());
        assert!(!store.published_path(package.root.package()).exists());
    }

    #[tokio::test]
    async fn deletion_that_fails_ends_with_the_node() {
        let (root, retry) = (Root::new(), Duration::from_millis(5));
        let (store, package) = (Arc::new(root.open()), TestPackage::mixed("1"));
        package.deliver(&store);
        let place = root.path().join("staging").join(format!("{}.removed", package.digest().to_hex()));
        std::fs::create_dir_all(place.join("in-the-way")).unwrap();
        let (events, told) = mpsc::channel(1);
        drop(told);
        let deleting = delete(store.clone(), events, NodeName::new("n").unwrap(), package.digest(), retry);
        tokio::time::timeout(Duration::from_secs(30), deleting).await.expect("nobody waits for it");
        assert!(store.published_path(package.root.package()).exists());
    }
}
