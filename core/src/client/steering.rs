//! The pace of incoming transfers, as the holders are told: rest while a package is paused, keep to a share of the
//! office's ceiling for its uplink, and make way inside the office for a more urgent package. A holder is told only what
//! it was not told before.

use std::time::Instant;

use super::Client;
use super::event::{ControlSignal, Output};
use super::package::{Package, Phase};
use crate::digest::Digest;
use crate::peer::ContentClass;

/// What the holder of a transfer was told last. Every transfer begins without a limit, at the pace of its own class.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pub(super) paused: bool,
    /// 0 is no limit.
    bits_per_second: u64,
    makes_way: bool,
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
        self.pace_due = true;
    }

    /// Tells the holders of running transfers a new pace, if transfers or packages changed since.
    pub(super) fn steer_paces(&mut self) {
        if !std::mem::take(&mut self.pace_due) {
            return;
        }
        let bits_per_second = self.background_share();
        let urgency = self.packages.values().filter(|package| self.is_fetched(package));
        let most_urgent = urgency.map(|package| package.planned.priority).max();
        for (&transfer, incoming) in self.transfers.iter_mut().filter(|(_, incoming)| !incoming.pace.paused) {
            let pace = &mut incoming.pace;
            let signal = match incoming.class {
                ContentClass::Background if pace.bits_per_second != bits_per_second => {
                    pace.bits_per_second = bits_per_second;
                    ControlSignal::Rate(bits_per_second)
                }
                ContentClass::Foreground => {
                    let package = self.packages.get(&incoming.digest);
                    let makes_way = package.is_some_and(|package| Some(package.planned.priority) < most_urgent);
                    if makes_way == pace.makes_way {
                        continue;
                    }
                    pace.makes_way = makes_way;
                    let class = if makes_way { ContentClass::Background } else { ContentClass::Foreground };
                    ControlSignal::Class(class)
                }
                ContentClass::Background => continue,
            };
            self.outputs.push_back(Output::Steer { transfer, signal });
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
