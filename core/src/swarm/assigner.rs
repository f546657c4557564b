//! Which member fetches which chunk from whom. Rare chunks first and each to one member, so that the first holder
//! sends a chunk about once and the members pass it on among themselves; the least busy holder serves.
//!
//! A chunk that only one node has and that somebody fetches already is left out: it is about to have two holders.
//! In the Central Office, chunks that nobody has or fetches come from the server, each through one member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::office_view::{ChunkLengths, OfficeView};
use crate::chunk_set::{ChunkIndex, ChunkSet, runs_of};
use crate::digest::Digest;
use crate::message::{ASSIGNMENTS_MAX, Assignment, Holder, RUNS_MAX};
use crate::names::NodeName;
use crate::peer::NodeRef;

/// Most bytes a member fetches at once.
pub const MEMBER_WINDOW_BYTES: u64 = 8 << 20;
/// Most bytes one node receives at once over a link that is paid for once, of all packages over the link to a parent
/// office; bounds what its death costs.
pub const LINK_WINDOW_BYTES: u64 = 4 << 20;
/// The server is asked for so much at once at least, while it sends already: each request is a stream of its own.
const SERVER_REQUEST_BYTES: u64 = LINK_WINDOW_BYTES / 4;
/// Share handed to a member before the next has its turn.
const TURN_BYTES: u64 = 1 << 20;
/// A holder is kept for neighbouring chunks until it is busier than the least busy by this much.
const HOLDER_SWITCH_BYTES: u64 = 1 << 20;

/// What the assigner needs to know of a package.
#[derive(Debug, Clone)]
pub struct Job {
    /// The package.
    pub digest: Digest,
    /// Length of each chunk.
    pub lengths: ChunkLengths,
    /// Transit: only this member wants it, and only those chunks of it that nobody here has; otherwise all members
    /// want all of it.
    pub transit: Option<(NodeName, ChunkSet)>,
    /// Whether chunks that nobody here has come from the server.
    pub from_server: bool,
    /// Members whose claims do not count.
    pub doubted: BTreeSet<NodeName>,
    /// First receivers whom the server may disregard.
    pub lost_holders: Vec<NodeName>,
}

/// Assigns what can be assigned now and notes it in the view. Returns the orders by member.
pub fn assign(view: &mut OfficeView, now: Instant, job: &Job) -> Vec<(NodeRef, Vec<Assignment>)> {
    let capacity = job.lengths.len() as u32;
    let is_wanted = view
        .live(now)
        .filter_map(|member| member.packages.get(&job.digest))
        .any(|package| !package.available.is_full());
    if !is_wanted {
        return Vec::new();
    }
    let mut spoken = view.spoken_for(now, job.digest, capacity);
    spoken.union_with(&view.coming(now, job.digest, &job.lengths));
    let (once, twice) = view.spread(now, job.digest, capacity, &job.doubted);
    let members: Vec<NodeRef> = view
        .live(now)
        .filter(|member| job.transit.as_ref().is_none_or(|(only, _)| *only == member.node.name))
        .map(|member| member.node.clone())
        .collect();
    let busy = busy_holders(view, now, &job.lengths);
    let turns = order_of_turns(view, job, &members, &busy, once.len() as usize);
    let mut round = Round { now, job, once, twice, spoken, busy, orders: BTreeMap::new() };
    loop {
        let mut given = 0;
        for &position in &turns {
            let start = capacity as usize * position / members.len();
            given += round.turn(view, &members[position], start as ChunkIndex);
        }
        if given == 0 {
            break;
        }
    }
    round.finish(&members)
}

/// Positions of the members, whoever has least to receive and to send first. Over a thin link chunks come a few at a
/// time: were the same member always first, it would be the only second holder and serve the whole office. Among idle
/// members the turn moves on with what has come.
fn order_of_turns(
    view: &mut OfficeView,
    job: &Job,
    members: &[NodeRef],
    busy: &BTreeMap<Option<NodeName>, u64>,
    come: usize,
) -> Vec<usize> {
    let mut load = |member: &NodeRef| {
        let receives = view
            .known_package(&member.name, job.digest)
            .map_or(0, |package| bytes_of(package.assigned.keys(), &job.lengths));
        receives + busy.get(&Some(member.name.clone())).copied().unwrap_or(0)
    };
    let mut turns: Vec<(u64, usize, usize)> = members
        .iter()
        .enumerate()
        .map(|(position, member)| (load(member), (position + come) % members.len(), position))
        .collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, _, position)| position).collect()
}

struct Round<'a> {
    now: Instant,
    job: &'a Job,
    once: ChunkSet,
    twice: ChunkSet,
    spoken: ChunkSet,
    busy: BTreeMap<Option<NodeName>, u64>,
    orders: BTreeMap<NodeName, BTreeMap<Holder, Vec<ChunkIndex>>>,
}

impl Round<'_> {
    /// One member's turn. Returns the bytes assigned.
    fn turn(&mut self, view: &mut OfficeView, member: &NodeRef, start: ChunkIndex) -> u64 {
        let lengths = &self.job.lengths;
        let Some(package) = view.known_package(&member.name, self.job.digest) else { return 0 };
        if package.state.error.is_some() {
            return 0;
        }
        let in_flight: u64 = bytes_of(package.assigned.keys(), lengths);
        let from_server: u64 = bytes_of(
            package.assigned.iter().filter(|(_, assigned)| assigned.holder.is_none()).map(|(index, _)| index),
            lengths,
        );
        let room = MEMBER_WINDOW_BYTES.saturating_sub(in_flight).min(TURN_BYTES);
        let mut candidates = package.available.complement();
        for &index in package.assigned.keys() {
            candidates.remove(index);
        }
        let mut server_room = LINK_WINDOW_BYTES.saturating_sub(from_server);
        if from_server > 0 && server_room < SERVER_REQUEST_BYTES && !self.orders.contains_key(&member.name) {
            server_room = 0;
        }
        let picked = self.pick(&candidates, start, room, server_room);
        let mut given = 0;
        let mut last: Option<Holder> = None;
        for index in picked {
            let Some(holder) = self.holder(view, member, index, last.as_ref()) else { continue };
            let bytes = u64::from(lengths[index as usize]);
            let name = holder.node_name().cloned();
            *self.busy.entry(name.clone()).or_default() += bytes;
            self.spoken.insert(index);
            given += bytes;
            if let Some(package) = view.known_package(&member.name, self.job.digest) {
                package.assign(self.now, index, name);
            }
            self.orders.entry(member.name.clone()).or_default().entry(holder.clone()).or_default().push(index);
            last = Some(holder);
        }
        given
    }

    /// Chunks for one turn: rare ones nobody fetches, then chunks with several holders, then chunks of the server.
    fn pick(&self, candidates: &ChunkSet, start: ChunkIndex, room: u64, server_room: u64) -> Vec<ChunkIndex> {
        let mut picked = Vec::new();
        let mut left = room;
        let mut rare = candidates.clone();
        rare.intersect_with(&self.once);
        let mut plenty = rare.clone();
        plenty.intersect_with(&self.twice);
        rare.subtract(&plenty);
        rare.subtract(&self.spoken);
        if self.job.transit.is_none() {
            self.take(&rare, 0, &mut left, &mut picked);
            self.take(&plenty, start, &mut left, &mut picked);
        }
        if self.job.from_server && left > 0 {
            let mut absent = candidates.clone();
            absent.subtract(&self.once);
            absent.subtract(&self.spoken);
            if let Some((_, demand)) = &self.job.transit {
                absent.intersect_with(demand);
            }
            let mut server_left = left.min(server_room);
            self.take(&absent, 0, &mut server_left, &mut picked);
        }
        picked
    }

    fn take(&self, from: &ChunkSet, start: ChunkIndex, left: &mut u64, picked: &mut Vec<ChunkIndex>) {
        for index in from.iter_from(start) {
            if *left == 0 || picked.len() >= RUNS_MAX {
                return;
            }
            picked.push(index);
            *left = left.saturating_sub(u64::from(self.job.lengths[index as usize]));
        }
    }

    fn holder(&self, view: &OfficeView, member: &NodeRef, index: ChunkIndex, last: Option<&Holder>) -> Option<Holder> {
        let receiver = view.member(&member.name)?.packages.get(&self.job.digest)?;
        if !self.once.contains(index) {
            return (self.job.from_server && receiver.may_use(self.now, &None)).then_some(Holder::Server);
        }
        let busy = |name: &NodeName| self.busy.get(&Some(name.clone())).copied().unwrap_or(0);
        let candidates = || {
            view.holders(self.now)
                .filter(|other| other.node.name != member.name && !self.job.doubted.contains(&other.node.name))
                .filter(|other| {
                    other.packages.get(&self.job.digest).is_some_and(|package| package.available.contains(index))
                })
                .filter(|other| receiver.may_use(self.now, &Some(other.node.name.clone())))
        };
        let best = candidates().min_by_key(|other| busy(&other.node.name))?;
        let kept = last.and_then(Holder::node_name).and_then(|name| {
            candidates()
                .find(|other| other.node.name == *name)
                .filter(|_| busy(name) <= busy(&best.node.name) + HOLDER_SWITCH_BYTES)
        });
        Some(Holder::Node(kept.unwrap_or(best).node.clone()))
    }

    fn finish(self, members: &[NodeRef]) -> Vec<(NodeRef, Vec<Assignment>)> {
        let mut orders = self.orders;
        let lost = &self.job.lost_holders;
        members
            .iter()
            .filter_map(|member| {
                let by_holder = orders.remove(&member.name)?;
                let assignments = by_holder
                    .into_iter()
                    .take(ASSIGNMENTS_MAX)
                    .map(|(holder, mut chunks)| {
                        chunks.sort_unstable();
                        let lost_holders = if holder == Holder::Server { lost.clone() } else { Vec::new() };
                        Assignment { holder, runs: runs_of(chunks), lost_holders }
                    })
                    .collect();
                Some((member.clone(), assignments))
            })
            .collect()
    }
}

/// Bytes that each holder was asked to send already.
fn busy_holders(view: &OfficeView, now: Instant, lengths: &ChunkLengths) -> BTreeMap<Option<NodeName>, u64> {
    let mut busy = BTreeMap::new();
    for package in view.live(now).flat_map(|member| member.packages.values()) {
        for (index, assigned) in &package.assigned {
            let bytes = lengths.get(*index as usize).copied().unwrap_or(0);
            *busy.entry(assigned.holder.clone()).or_default() += u64::from(bytes);
        }
    }
    busy
}

fn bytes_of<'a>(chunks: impl Iterator<Item = &'a ChunkIndex>, lengths: &ChunkLengths) -> u64 {
    chunks.filter_map(|&index| lengths.get(index as usize)).map(|&bytes| u64::from(bytes)).sum()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
