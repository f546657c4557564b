//! The store's slow verbs on threads that may wait: flushing when due, publishing, deleting, retention.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peerdist_core::client::Event;
use peerdist_core::digest::Digest;
use peerdist_core::names::DistributionKey;
use peerdist_core::rollout::{HeldVersion, decide_retention};
use tokio_util::sync::CancellationToken;

use super::node::Context;
use crate::store::NodeStore;

/// Written chunks are journalled at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// A package that cannot be deleted, because the disk is too full to note it for example, is tried again after this.
const DELETE_RETRY: Duration = Duration::from_secs(10);

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
    let store = context.store.clone();
    drop(tokio::task::spawn_blocking(move || store.flush()).await);
}

/// Why it failed, if it did.
async fn flush(context: &Context) -> Option<String> {
    let store = context.store.clone();
    match tokio::task::spawn_blocking(move || store.flush()).await {
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
    let store = context.store.clone();
    let event = match tokio::task::spawn_blocking(move || store.publish(digest)).await {
        Ok(Ok(_)) => Event::Published { digest },
        Ok(Err(error)) => Event::StoreFailed { digest, reason: error.reason().to_owned(), message: error.to_string() },
        Err(_) => return,
    };
    context.tell(event).await;
}

pub(super) async fn delete(context: Context, digest: Digest) {
    loop {
        let store = context.store.clone();
        match tokio::task::spawn_blocking(move || store.delete(digest)).await {
            Ok(Ok(())) => return context.tell(Event::Deleted { digest }).await,
            Ok(Err(error)) => {
                tracing::warn!(node = %context.settings.node, %digest, %error, "package cannot be deleted yet");
            }
            Err(_) => return,
        }
        tokio::select! {
            () = context.events.closed() => return,
            () = tokio::time::sleep(DELETE_RETRY) => {}
        }
    }
}

/// Deletes versions that retention gives up.
pub(in crate::driver) fn prune(
    store: &NodeStore,
    distribution: &DistributionKey,
    versions: u32,
    retention_seconds: u64,
) {
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
    for package in packages.iter().filter(|package| retention.evictable.contains(&package.key.version)) {
        if let Err(error) = store.delete(package.digest) {
            tracing::warn!(package = %package.key, %error, "old version cannot be deleted");
        }
    }
}
