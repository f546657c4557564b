//! What a rendezvous point asks of its parent office, and what it wants of the holders that the parent named. It asks
//! ahead, because an answer that nobody acted upon costs nothing; what it wants stays within a window that bounds what
//! its death costs. Sending and receiving are the client's business.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::assigner::LINK_WINDOW_BYTES;
use super::avoidance::{AVOID_UNREACHABLE, Avoided};
use super::office_view::ChunkLengths;
use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, runs_of};
use crate::message::{RUNS_MAX, UnservedReason};
use crate::names::NodeName;
use crate::peer::NodeRef;

/// Most bytes that are asked for and not wanted of a holder yet, without those that went to another node of the office.
pub const ASKED_AHEAD_BYTES: u64 = 16 << 20;
/// When more than this went to another node, nothing is asked for until those may be asked for again: that is more than a
/// dead rendezvous point can leave behind.
const GIVEN_BEFORE_BYTES_MAX: u64 = 2 * ASKED_AHEAD_BYTES;
/// While chunks are on their way, holders are asked for so much more at once at least.
pub const WANT_BYTES_MIN: u64 = 256 << 10;
/// A request without an answer is asked again after this time.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A chunk that the parent does not have yet is asked for again after this time, should its promise be lost.
pub const PROMISE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest pause while transfers fail one after the other.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
/// Most holders that a request names as good.
const DELIVERED_BY_MAX: usize = 64;
/// The pause doubles at most so often.
const FAILURES_MAX: u32 = 8;
/// Pause after a request that could not be delivered, after the first transfer that failed, and before what another node
/// was given is asked for again.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// Asked, no answer so far.
    Request(Instant),
    /// The parent promised to grant it when somebody has it.
    Promised(Instant),
    /// It went to another node of this office, which may pass it on. What follows it is asked for meanwhile: otherwise
    /// what a dead rendezvous point had asked ahead would keep the next one from beginning.
    GivenBefore(Instant),
    /// This holder may be asked for it.
    Granted(NodeRef),
    /// A holder was asked for it: a transfer is to bring it.
    Wanted,
}

/// The requests of one package over the link to the parent office.
#[derive(Debug, Default)]
pub struct Upstream {
    asked: BTreeMap<ChunkIndex, Asked>,
    lost_holders: BTreeSet<NodeName>,
    quiet_until: Option<Instant>,
    /// Holders that did not deliver, whomever the parent names.
    avoided: Avoided<NodeName>,
    /// Holders that delivered something of which the parent has not heard.
    delivered_by: BTreeSet<NodeName>,
    /// Transfers that failed in a row.
    failures: u32,
    /// Since when nothing has come although something was asked for.
    waits_since: Option<Instant>,
    promised_at: Option<Instant>,
}

impl Upstream {
    /// Chooses what to ask the parent next; `present` is what the office has, `demand` what it wants, if not all.
    pub fn next_request(
        &mut self,
        now: Instant,
        present: &ChunkSet,
        demand: Option<&ChunkSet>,
        lengths: &ChunkLengths,
    ) -> Vec<ChunkRun> {
        self.asked.retain(|&index, asked| match asked {
            // It is on its way and counts for the window, whoever says that the office has it.
            Asked::Wanted => true,
            _ if present.contains(index) => false,
            Asked::Request(since) => *since + ANSWER_TIMEOUT > now,
            Asked::Promised(since) => *since + PROMISE_TIMEOUT > now,
            Asked::GivenBefore(since) => *since + RETRY_DELAY > now,
            Asked::Granted(_) => true,
        });
        let mut absent = present.complement();
        if let Some(demand) = demand {
            absent.intersect_with(demand);
        }
        if absent.is_empty() {
            self.waits_since = None;
        }
        if self.quiet_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let given_before = self.bytes(lengths, |asked| matches!(asked, Asked::GivenBefore(_)));
        if given_before > GIVEN_BEFORE_BYTES_MAX {
            return Vec::new();
        }
        let ahead = self.bytes(lengths, |asked| !matches!(asked, Asked::Wanted | Asked::GivenBefore(_)));
        // In large steps, so that requests are few.
        if ahead > ASKED_AHEAD_BYTES / 2 {
            return Vec::new();
        }
        let mut room = ASKED_AHEAD_BYTES - ahead;
        let mut request = Vec::new();
        for index in absent.iter() {
            if room == 0 || request.len() >= RUNS_MAX {
                break;
            }
            if let Entry::Vacant(place) = self.asked.entry(index) {
                place.insert(Asked::Request(now));
                request.push(index);
                room = room.saturating_sub(length_of(lengths, index));
            }
        }
        if !request.is_empty() {
            self.waits_since.get_or_insert(now);
        }
        runs_of(request)
    }

    /// What is on its way over the link.
    pub fn wanted_bytes(&self, lengths: &ChunkLengths) -> u64 {
        self.bytes(lengths, |asked| *asked == Asked::Wanted)
    }

    /// Chooses what to want of holders now.
    ///
    /// `other_bytes` is what only one member has although others want it, and what other packages have on the link. With
    /// what is wanted of this package it stays within [`LINK_WINDOW_BYTES`]; a chunk that is larger goes alone.
    pub fn next_wants(&mut self, other_bytes: u64, lengths: &ChunkLengths) -> BTreeMap<NodeRef, Vec<ChunkRun>> {
        let mut at_risk = other_bytes + self.wanted_bytes(lengths);
        let mut wants: BTreeMap<NodeRef, Vec<ChunkIndex>> = BTreeMap::new();
        if begins_full(at_risk) {
            return BTreeMap::new();
        }
        for (&index, asked) in &mut self.asked {
            let Asked::Granted(holder) = asked else { continue };
            let bytes = length_of(lengths, index);
            if !fits(at_risk, bytes) {
                break;
            }
            at_risk += bytes;
            wants.entry(holder.clone()).or_default().push(index);
            *asked = Asked::Wanted;
        }
        wants.into_iter().map(|(holder, chunks)| (holder, runs_of(chunks))).collect()
    }

    /// Whether something would be wanted now if no other package had anything on the link.
    pub fn waits_for_link(&self, unshared_bytes: u64, lengths: &ChunkLengths) -> bool {
        let granted = self.asked.iter().find(|(_, asked)| matches!(asked, Asked::Granted(_)));
        let at_risk = unshared_bytes + self.wanted_bytes(lengths);
        granted.is_some_and(|(&index, _)| !begins_full(at_risk) && fits(at_risk, length_of(lengths, index)))
    }

    /// Others have the link: that nothing comes is not the parent's silence.
    pub fn wait_for_link(&mut self, now: Instant) {
        self.waits_since = Some(now);
    }

    /// First receivers that the next request names as lost, once.
    pub fn take_lost_holders(&mut self) -> Vec<NodeName> {
        std::mem::take(&mut self.lost_holders).into_iter().collect()
    }

    /// A request could not be delivered: what nobody answered is open again, after a pause.
    pub fn undelivered(&mut self, now: Instant, runs: &[ChunkRun]) {
        self.open_again(runs, |asked| matches!(asked, Asked::Request(_)));
        self.quiet_until = Some(now + RETRY_DELAY);
    }

    /// The parent granted the chunk from this holder. Ignored when it was not asked for, or is on its way already.
    /// False when this holder is left alone: the chunk is open again, and the parent has to name another one.
    pub fn granted(&mut self, now: Instant, index: ChunkIndex, holder: &NodeRef) -> bool {
        let Some(asked @ (Asked::Request(_) | Asked::Promised(_))) = self.asked.get_mut(&index) else { return true };
        if self.avoided.contains(now, &holder.name) {
            self.asked.remove(&index);
            self.quiet_until = self.quiet_until.max(Some(now + RETRY_DELAY));
            return false;
        }
        *asked = Asked::Granted(holder.clone());
        true
    }

    /// The parent does not have these yet and remembers that they are wanted.
    pub fn promised(&mut self, now: Instant, runs: &[ChunkRun]) {
        for index in runs.iter().flat_map(|run| run.range()) {
            if let Some(asked @ Asked::Request(_)) = self.asked.get_mut(&index) {
                *asked = Asked::Promised(now);
                self.promised_at = Some(now);
            }
        }
    }

    /// When the parent promised something last, which it has not got itself.
    pub fn promised_at(&self) -> Option<Instant> {
        self.promised_at
    }

    /// The chunks went to another node of this office. If that node is lost, the next request says so; otherwise they are
    /// asked for again after a pause, should they not have come.
    pub fn given_before(&mut self, now: Instant, receiver: &NodeName, lost: bool, runs: &[ChunkRun]) {
        if lost {
            self.open_again(runs, |asked| *asked != Asked::Wanted);
            self.lost_holders.insert(receiver.clone());
            return;
        }
        for run in runs {
            let asked = self.asked.range_mut(run.range()).map(|(_, asked)| asked);
            asked.filter(|asked| **asked != Asked::Wanted).for_each(|asked| *asked = Asked::GivenBefore(now));
        }
    }

    /// A holder did not deliver: the chunks are open again, and what else it was to send is not wanted of it for a
    /// while. While every transfer fails, less and less is asked, so that rubbish costs the link less and less.
    pub fn not_served(&mut self, now: Instant, holder: &NodeName, reason: &UnservedReason, runs: &[ChunkRun]) {
        self.release(runs);
        if *reason == UnservedReason::Ended {
            return;
        }
        self.avoided.failed(now, holder, AVOID_UNREACHABLE);
        self.asked.retain(|_, asked| !matches!(asked, Asked::Granted(node) if node.name == *holder));
        if self.quiet_until.is_none_or(|until| until <= now) {
            let pause = RETRY_DELAY.saturating_mul(1 << self.failures.min(FAILURES_MAX)).min(RETRY_DELAY_MAX);
            (self.quiet_until, self.failures) = (Some(now + pause), self.failures.saturating_add(1));
        }
    }

    /// How often in a row transfers have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A verified chunk came.
    pub fn delivered(&mut self, now: Instant, index: ChunkIndex, holder: &NodeName) {
        self.asked.remove(&index);
        (self.failures, self.waits_since) = (0, Some(now));
        self.avoided.delivered(holder);
        if self.delivered_by.len() < DELIVERED_BY_MAX {
            self.delivered_by.insert(holder.clone());
        }
    }

    /// Holders that the next request names as good, once.
    pub fn take_delivered_by(&mut self) -> Vec<NodeName> {
        std::mem::take(&mut self.delivered_by).into_iter().collect()
    }

    /// The wait begins anew: until now nothing was asked for.
    pub fn wait_anew(&mut self) {
        self.waits_since = None;
    }

    /// Since when nothing has come although something is lacking.
    pub fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    /// Forgets what was asked for and not wanted of a holder. Returns what was granted of it.
    pub fn give_back(&mut self) -> Vec<ChunkRun> {
        let given_back = self.asked.extract_if(.., |_, asked| *asked != Asked::Wanted);
        runs_of(given_back.filter(|(_, asked)| matches!(asked, Asked::Granted(_))).map(|(index, _)| index))
    }

    /// Chunks that did not come are open again.
    pub fn release(&mut self, runs: &[ChunkRun]) {
        self.open_again(runs, |_| true);
    }

    /// The parent's rendezvous point is another one, or started anew: what it was asked for, it has to be asked again.
    pub fn ask_again(&mut self) {
        self.asked.retain(|_, asked| matches!(asked, Asked::Granted(_) | Asked::Wanted));
        self.quiet_until = None;
    }

    /// What was granted and has not come: a new rendezvous point of the parent is told of it.
    pub fn outstanding(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        let on_the_way = |asked: &Asked| matches!(asked, Asked::Granted(_) | Asked::Wanted);
        self.asked.iter().filter(move |(_, asked)| on_the_way(asked)).map(|(&index, _)| index)
    }

    fn open_again(&mut self, runs: &[ChunkRun], which: impl Fn(&Asked) -> bool) {
        for run in runs {
            let stale: Vec<ChunkIndex> =
                self.asked.range(run.range()).filter(|(_, asked)| which(asked)).map(|(&index, _)| index).collect();
            stale.iter().for_each(|index| {
                self.asked.remove(index);
            });
        }
    }

    fn bytes(&self, lengths: &ChunkLengths, which: impl Fn(&Asked) -> bool) -> u64 {
        self.asked.iter().filter(|(_, asked)| which(asked)).map(|(&index, _)| length_of(lengths, index)).sum()
    }
}

/// Whether so little room is left that it waits for more.
fn begins_full(at_risk: u64) -> bool {
    at_risk > 0 && LINK_WINDOW_BYTES.saturating_sub(at_risk) < WANT_BYTES_MIN
}

fn fits(at_risk: u64, bytes: u64) -> bool {
    at_risk == 0 || at_risk + bytes <= LINK_WINDOW_BYTES
}

fn length_of(lengths: &ChunkLengths, index: ChunkIndex) -> u64 {
    lengths.get(index as usize).copied().map_or(0, u64::from)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
