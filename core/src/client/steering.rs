//! The pace of incoming transfers, as the holders are told: rest while a package is paused, keep to a share of the
//! office's ceiling for its uplink, and make way inside the office for a more urgent package. A holder is told only
//! what it was not told before.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Client;
use super::event::{ControlSignal, Output};
use super::package::{Package, Phase};
use super::receiving::Incoming;
use crate::digest::Digest;
use crate::distribution::Priority;
use crate::message::{TransferId, TransferPace};
use crate::peer::ContentClass;

/// What the holder of a transfer was told last.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pub(super) paused: bool,
    told: TransferPace,
}

impl Pace {
    /// The rate below which something is wrong, in bits a second: this one, or less if the holder has to keep to less.
    pub(super) fn slowest(&self, bits_per_second: u64) -> u64 {
        let told = self.told.bits_per_second;
        if told == 0 { bits_per_second } else { bits_per_second.min(told) }
    }
}

/// What the paces of all transfers depend upon.
struct Paces {
    /// In bits a second; 0 is no limit.
    background_share: u64,
    /// Of the packages that are being fetched.
    most_urgent: Option<Priority>,
}

impl Paces {
    fn of(&self, incoming: &Incoming, packages: &BTreeMap<Digest, Package>) -> TransferPace {
        match incoming.class {
            ContentClass::Background => TransferPace { bits_per_second: self.background_share, makes_way: false },
            ContentClass::Foreground => {
                let priority = packages.get(&incoming.digest).map(|package| package.planned.priority);
                let makes_way = priority.is_some_and(|priority| Some(priority) < self.most_urgent);
                TransferPace { bits_per_second: 0, makes_way }
            }
        }
    }
}

impl Client {
    /// Pauses or resumes what is on its way for a package.
    pub(super) fn pause_package(&mut self, now: Instant, digest: Digest, paused: bool) {
        let signal = if paused { ControlSignal::Pause } else { ControlSignal::Resume };
        for transfer in self.transfers_of(digest) {
            if let Some(incoming) = self.transfers.get_mut(&transfer) {
                incoming.pace.paused = paused;
                incoming.last_progress = now;
            }
            self.outputs.push_back(Output::Steer { transfer, signal: signal.clone() });
        }
        if let Some(package) = self.packages.get_mut(&digest) {
            package.upstream.wait_anew();
        }
        self.pace_due = true;
    }

    /// The pace that a transfer begins with: what asks for it carries it to the holder.
    pub(super) fn begin_at_pace(&mut self, transfer: TransferId) -> TransferPace {
        let paces = self.paces();
        let Some(incoming) = self.transfers.get_mut(&transfer) else { return TransferPace::default() };
        incoming.pace.told = paces.of(incoming, &self.packages);
        incoming.pace.told
    }

    /// Tells the holders of running transfers a new pace, if transfers or packages changed since.
    pub(super) fn steer_paces(&mut self) {
        if !std::mem::take(&mut self.pace_due) {
            return;
        }
        let paces = self.paces();
        for (&transfer, incoming) in self.transfers.iter_mut().filter(|(_, incoming)| !incoming.pace.paused) {
            let pace = paces.of(incoming, &self.packages);
            let told = std::mem::replace(&mut incoming.pace.told, pace);
            if told.bits_per_second != pace.bits_per_second {
                let signal = ControlSignal::Rate(pace.bits_per_second);
                self.outputs.push_back(Output::Steer { transfer, signal });
            }
            if told.makes_way != pace.makes_way {
                let class = if pace.makes_way { ContentClass::Background } else { ContentClass::Foreground };
                self.outputs.push_back(Output::Steer { transfer, signal: ControlSignal::Class(class) });
            }
        }
    }

    fn paces(&self) -> Paces {
        let fetched = self.packages.values().filter(|package| self.is_fetched(package));
        Paces {
            background_share: self.background_share(),
            most_urgent: fetched.map(|package| package.planned.priority).max(),
        }
    }

    /// What each running transfer from the parent office may take of the ceiling, in bits a second; 0 is no limit.
    fn background_share(&self) -> u64 {
        let ceiling = self.plan.as_ref().map_or(0, |plan| plan.background_bits_per_second_max);
        if ceiling == 0 {
            return 0;
        }
        let background = self.transfers.values().filter(|incoming| incoming.class == ContentClass::Background);
        let running = background.filter(|incoming| !incoming.pace.paused).count() as u64;
        (ceiling / running.max(1)).max(1)
    }

    /// Whether chunks of the package are being brought here. A transit copy waits for what its children ask for, so it
    /// counts only while something is on its way.
    fn is_fetched(&self, package: &Package) -> bool {
        let digest = package.planned.digest;
        package.phase == Phase::Fetching
            && !package.superseded
            && !package.planned.paused
            && package.state.error.is_none()
            && !package.available.is_full()
            && (package.planned.target || self.transfers.values().any(|incoming| incoming.digest == digest))
    }
}

#[cfg(test)]
mod tests;
