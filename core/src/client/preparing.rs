//! How a package is begun: whom its manifest is asked of, and what follows when manifest and place on disk are there or
//! could not be made.

use std::time::{Duration, Instant};

use super::Client;
use super::event::{DISK_FULL, Output, PreparedPackage};
use super::package::Phase;
use crate::digest::Digest;
use crate::peer::Peer;

/// Pause after a failure that will not go away by itself (disk full, foreign directory).
pub(super) const FINAL_RETRY: Duration = Duration::from_secs(30);

/// What is deleted to make room takes so long.
const AFTER_MAKING_ROOM: Duration = Duration::from_secs(2);

impl Client {
    pub(super) fn retry_packages(&mut self, now: Instant) {
        let due: Vec<Digest> = self
            .packages
            .iter()
            .filter(|(_, package)| !package.superseded)
            .filter(|(_, package)| match package.phase {
                Phase::Planned(at) => at.is_none_or(|at| at <= now),
                Phase::PublishFailed(at) => at <= now,
                _ => false,
            })
            .map(|(&digest, _)| digest)
            .collect();
        for digest in due {
            match self.packages.get(&digest).map(|package| package.phase) {
                Some(Phase::PublishFailed(_)) => self.publish_if_whole(digest),
                _ => self.prepare(now, digest),
            }
        }
    }

    /// Asks for the manifest, if somebody is known who has it and this node is to hold the package.
    pub(super) fn prepare(&mut self, now: Instant, digest: Digest) {
        let leading = self.election.is_leading();
        let from = if self.config.central {
            Some(Peer::Server)
        } else if leading {
            self.parent_node(now).map(Peer::Node)
        } else {
            self.election.leader().cloned().map(Peer::Node)
        };
        let Some(package) = self.packages.get_mut(&digest) else { return };
        if package.is_left_to_others(leading) {
            return;
        }
        let Some(from) = from else { return };
        package.phase = Phase::Preparing;
        self.outputs.push_back(Output::Prepare { planned: package.planned.clone(), from });
    }

    pub(super) fn prepared(&mut self, now: Instant, prepared: PreparedPackage) {
        let digest = prepared.digest;
        let Some(package) = self.packages.get_mut(&digest) else {
            self.delete(digest);
            return;
        };
        package.take_prepared(now, prepared);
        self.pace_due = true;
        // A version that another one is to replace, or that the library lost meanwhile, replaces none itself.
        if !package.superseded {
            let distribution = package.planned.key.distribution.clone();
            self.drop_replaced(&distribution);
        }
        self.show_own_package(now, digest);
        self.prune_at = now;
        self.publish_if_whole(digest);
        self.hurry(now);
    }

    pub(super) fn prepare_failed(
        &mut self,
        now: Instant,
        digest: Digest,
        reason: String,
        message: String,
        is_final: bool,
    ) {
        let Some(package) = self.packages.get(&digest) else { return };
        let (distribution, superseded) = (package.planned.key.distribution.clone(), package.superseded);
        let made_room = reason == DISK_FULL && !superseded && self.drop_unfinished(|other| *other == distribution);
        let Some(package) = self.packages.get_mut(&digest) else { return };
        let growing = package.prepare_failed();
        if made_room {
            package.phase = Phase::Planned(Some(now + AFTER_MAKING_ROOM));
            return self.wake_at(now + AFTER_MAKING_ROOM);
        }
        let pause = if is_final { FINAL_RETRY } else { growing };
        package.phase = Phase::Planned(Some(now + pause));
        if is_final {
            package.state.error = Some((reason, message.clone()));
            package.touch();
        }
        self.wake_at(now + pause);
        if !is_final && !self.config.central && self.election.is_leading() {
            self.manifest_did_not_come(now, digest, message);
        }
    }
}
