//! Transfers that bring nothing are ended: how long each may be silent.

use std::time::{Duration, Instant};

use super::Client;
use super::receiving::Incoming;
use crate::message::{TransferId, UnservedReason};
use crate::peer::ContentClass;

/// A transfer inside the office that brings nothing for so long is given up.
const SILENCE_IN_OFFICE: Duration = Duration::from_secs(5);
/// A holder of the parent office has so long to open its stream.
const SILENCE_BEFORE_START: Duration = Duration::from_secs(10);
/// A transfer over a link may be silent for so long, and for as long as a chunk takes at [`SLOWEST_BITS_PER_SECOND`],
/// twice as long after every failure in a row, so that a chunk comes over a slower link too,
const SILENCE_OVER_LINK_MIN: Duration = Duration::from_secs(30);
/// and this long at most. A dead holder is noticed sooner, by its connection.
const SILENCE_OVER_LINK_MAX: Duration = Duration::from_secs(600);
/// The patience doubles at most so often.
const FAILURES_MAX: u32 = 5;
/// A transfer that runs slower than this over a link may be given up and asked for again.
const SLOWEST_BITS_PER_SECOND: u64 = 64_000;

impl Client {
    pub(super) fn end_silent_transfers(&mut self, now: Instant) {
        let silent: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, incoming)| !incoming.pace.paused)
            .filter(|(_, incoming)| incoming.last_progress + self.patience(incoming) <= now)
            .map(|(&transfer, _)| transfer)
            .collect();
        for transfer in silent {
            self.transfer_ended(now, transfer, Some(UnservedReason::Unreachable));
        }
    }

    /// How long a transfer may bring nothing.
    fn patience(&self, incoming: &Incoming) -> Duration {
        match (incoming.class, incoming.started) {
            (ContentClass::Foreground, _) => SILENCE_IN_OFFICE,
            (ContentClass::Background, false) => SILENCE_BEFORE_START,
            (ContentClass::Background, true) => {
                let package = self.packages.get(&incoming.digest);
                let largest = package.and_then(|package| incoming.remaining.iter().map(|i| package.bytes_of(i)).max());
                let rate = incoming.pace.slowest(SLOWEST_BITS_PER_SECOND);
                let for_chunk = Duration::from_secs(largest.unwrap_or(0) * 8 / rate);
                let failures = package.map_or(0, |package| package.upstream.failures());
                let patience = (SILENCE_OVER_LINK_MIN + for_chunk).saturating_mul(1 << failures.min(FAILURES_MAX));
                patience.min(SILENCE_OVER_LINK_MAX)
            }
        }
    }
}
