//! What is done again and again: the snapshot, keys and certificate, the library.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use peerdist_core::server::ServerEvent;

use super::Node;
use crate::cluster::Standing;
use crate::driver::progress::count_queue_delay;
use crate::driver::server::{keys, library, snapshot};

impl Node {
    pub(super) fn show(&mut self) {
        count_queue_delay(&self.parts.transport, &self.parts.metrics);
        let Some(desired) = &self.desired else { return };
        let overview = &self.parts.overview;
        let made = self.snapshot.make(&self.machine, desired, overview);
        snapshot::count(&self.parts.metrics, &made);
        let evictions = self.evictions.look(&self.machine, &desired.objects, self.started, Instant::now());
        let snapshot = Arc::new(made);
        self.parts.standings.send_replace(Standing {
            snapshot: snapshot.clone(),
            objects: self.objects.clone(),
            evictions,
        });
        self.parts.snapshots.send_replace(snapshot);
    }

    /// Another intermediate or manifest key takes effect at once; nodes need not be told of the first.
    pub(super) fn follow_keys(&mut self) {
        let Some(change) = self.keys.look(&self.parts.authority) else { return };
        if change.certificates {
            self.renew_own_certificate();
        }
        if change.manifest_key {
            let roots = keys::signed_anew(&self.machine, &self.parts.authority.manifest_key());
            self.handle(ServerEvent::SignedAnew(roots));
        }
    }

    fn renew_own_certificate(&mut self) {
        let (identity, address) = (self.parts.transport.identity(), self.parts.settings.address);
        match self.parts.authority.renew_server(identity, address, SystemTime::now()) {
            Ok(()) => self.keys.certificate_is_old = false,
            Err(error) => tracing::error!(%error, "the server's certificate cannot be renewed"),
        }
    }

    pub(super) fn keep_up(&mut self) {
        if self.keys.certificate_is_old || self.parts.transport.identity().renewal_due(SystemTime::now()) {
            self.renew_own_certificate();
        }
        // An object that cannot be used may still want what is in the library.
        let in_cluster = self.parts.settings.cluster.is_some();
        let may_prune = library::may_prune(&self.parts.overview.object_errors(), in_cluster);
        if let Some(desired) = self.desired.as_ref().filter(|_| may_prune) {
            let (store, database) = (self.parts.store.clone(), self.parts.database.clone());
            let desired = desired.clone();
            let (events, retention_seconds) = (self.events.clone(), self.parts.settings.retention_seconds);
            tokio::spawn(async move {
                let removed = library::prune_library(store, database, desired, retention_seconds).await;
                if !removed.is_empty() {
                    drop(events.send(ServerEvent::Removed(removed)).await);
                }
            });
        }
    }
}
