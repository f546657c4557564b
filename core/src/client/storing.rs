//! What the store says of a package, from the flush of its chunks to the published tree and its old versions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::event::Output;
use super::package::Phase;
use super::preparing::FINAL_RETRY;
use super::{Client, PRUNE_INTERVAL_MAX};
use crate::chunk_set::{ChunkRun, indices_of};
use crate::digest::Digest;
use crate::message::Message;
use crate::names::DistributionKey;
use crate::peer::{MessageClass, Peer};

/// Pause before publishing is tried again.
const PUBLISH_RETRY: Duration = Duration::from_secs(5);

impl Client {
    pub(super) fn flushed(&mut self, now: Instant, digest: Digest, runs: &[ChunkRun]) {
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let capacity = package.capacity();
        for index in indices_of(runs, capacity) {
            // The flush may overtake the word that the chunk was stored: both are needed before the package is whole.
            if package.held.insert(index) {
                package.state.bytes_held += package.bytes_of(index);
            }
        }
        package.touch();
        self.publish_if_whole(digest);
        self.hurry(now);
    }

    pub(super) fn publish_if_whole(&mut self, digest: Digest) {
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let ready = matches!(package.phase, Phase::Fetching | Phase::PublishFailed(_));
        if ready && package.planned.target && !package.superseded && package.is_whole() {
            package.phase = Phase::Publishing;
            self.outputs.push_back(Output::Publish { digest });
        }
    }

    pub(super) fn published(&mut self, now: Instant, digest: Digest) {
        let Some(package) = self.packages.get_mut(&digest) else { return };
        package.phase = Phase::Published;
        package.published = true;
        package.state.complete = true;
        package.state.error = None;
        package.completion_due = true;
        package.touch();
        self.prune_at = now;
        self.prune(now);
        self.announce_completions();
        self.hurry(now);
    }

    /// Has versions deleted whose time is over, of every distribution whose newest version is published, and those that
    /// will never be finished: after a publication, after a new plan, and regularly because time passes.
    pub(super) fn prune(&mut self, now: Instant) {
        if self.prune_at > now {
            return;
        }
        let Some(plan) = &self.plan else { return };
        let retention_seconds = plan.retention_seconds;
        let interval = Duration::from_secs(retention_seconds.saturating_add(1)).min(PRUNE_INTERVAL_MAX);
        self.prune_at = now + interval;
        let published = self.packages.values().filter(|package| package.phase == Phase::Published);
        for package in published.filter(|package| !package.superseded) {
            self.outputs.push_back(Output::Prune {
                distribution: package.planned.key.distribution.clone(),
                versions: package.planned.retention_versions,
                retention_seconds,
            });
        }
        // An object that went back to an earlier version has no use for what was begun of the other.
        let made_ready = self.packages.values().filter(|package| !package.superseded && package.is_prepared());
        let made_ready: BTreeSet<DistributionKey> =
            made_ready.map(|package| package.planned.key.distribution.clone()).collect();
        self.drop_unfinished(|of| made_ready.contains(of));
    }

    /// Tells the server of published packages until it has heard.
    pub(super) fn announce_completions(&mut self) {
        let plan_revision = Some(self.revision());
        let due: Vec<Message> = self
            .packages
            .values_mut()
            .filter_map(|package| {
                std::mem::take(&mut package.completion_due).then(|| Message::Complete {
                    digest: package.planned.digest,
                    bytes: package.lengths.iter().map(|&bytes| u64::from(bytes)).sum(),
                    plan_revision,
                })
            })
            .collect();
        for message in due {
            self.send(Peer::Server, MessageClass::Small, message);
        }
    }

    pub(super) fn store_failed(&mut self, now: Instant, digest: Digest, reason: String, message: String) {
        let Some(package) = self.packages.get_mut(&digest) else { return };
        package.state.error = Some((reason, message));
        package.touch();
        package.phase = match package.phase {
            Phase::Publishing => Phase::PublishFailed(now + PUBLISH_RETRY),
            // A write failed: the place on disk is made again, with what is there.
            _ => Phase::Planned(Some(now + FINAL_RETRY)),
        };
        self.pace_due = true;
        if matches!(package.phase, Phase::Planned(_)) {
            self.cancel_transfers(digest);
        }
        self.hurry(now);
    }

    pub(super) fn chunks_lost(&mut self, now: Instant, digest: Digest, runs: &[ChunkRun]) {
        let me = self.config.me.name.clone();
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let capacity = package.capacity();
        for index in indices_of(runs, capacity) {
            package.lose(index);
        }
        package.state.complete = false;
        let capacity = package.capacity();
        if let Some(leading) = &mut self.leading
            && let Some(own) = leading.view.package(&me, digest, capacity)
        {
            own.lose(runs);
        }
        // The store makes the place ready again: a published tree that lost chunks is repaired in staging.
        package.phase = Phase::Planned(Some(now));
        self.cancel_transfers(digest);
        self.hurry(now);
    }
}
