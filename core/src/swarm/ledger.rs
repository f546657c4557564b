//! Once per link: which chunk was given to which node of a child office (or, at the server, of the Central Office).
//!
//! A chunk that was given is given again only to its first receiver, or when the asker names that receiver as lost.
//! The ledger lives in memory; a new rendezvous point rebuilds it from the child's inventory.

use std::collections::BTreeMap;

use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet, indices_of};
use crate::digest::Digest;
use crate::names::NodeName;

/// The ledger of one link.
#[derive(Debug, Default)]
pub struct Ledger {
    packages: BTreeMap<Digest, BTreeMap<NodeName, ChunkSet>>,
}

/// What a request may have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// May be given to the asker.
    pub open: Vec<ChunkIndex>,
    /// Was given to another node before.
    pub given_before: BTreeMap<NodeName, Vec<ChunkIndex>>,
}

impl Ledger {
    /// Sorts the chunks that `asker` wants. Entries of lost receivers are struck out. Nothing is given yet.
    pub fn ask(
        &mut self,
        digest: Digest,
        asker: &NodeName,
        runs: &[ChunkRun],
        capacity: u32,
        lost: &[NodeName],
    ) -> Answer {
        let given = self.packages.entry(digest).or_default();
        given.retain(|receiver, _| !lost.contains(receiver));
        let mut answer = Answer::default();
        for index in indices_of(runs, capacity) {
            match given.iter().find(|(_, chunks)| chunks.contains(index)) {
                Some((receiver, _)) if receiver != asker => {
                    answer.given_before.entry(receiver.clone()).or_default().push(index);
                }
                _ => answer.open.push(index),
            }
        }
        answer
    }

    /// Notes that the chunk went to a node.
    pub fn give(&mut self, digest: Digest, receiver: &NodeName, index: ChunkIndex, capacity: u32) {
        let given = self.packages.entry(digest).or_default();
        given.entry(receiver.clone()).or_insert_with(|| ChunkSet::new(capacity)).insert(index);
    }

    /// Strikes out what did not arrive.
    pub fn take_back(&mut self, digest: Digest, receiver: &NodeName, runs: &[ChunkRun]) {
        let Some(chunks) = self.packages.get_mut(&digest).and_then(|given| given.get_mut(receiver)) else { return };
        let capacity = chunks.capacity();
        for index in indices_of(runs, capacity) {
            chunks.remove(index);
        }
    }

    /// Rebuilds a part from what the other side says it has.
    pub fn learn(&mut self, digest: Digest, receiver: &NodeName, chunks: &ChunkSet) {
        let given = self.packages.entry(digest).or_default();
        given.entry(receiver.clone()).or_insert_with(|| ChunkSet::new(chunks.capacity())).union_with(chunks);
    }

    /// Whether nothing was given.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Drops packages that are no longer planned.
    pub fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.packages.retain(|digest, _| keep(digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn chunk_is_given_once_until_its_receiver_is_lost() {
        let (package, run) = (Digest::of(b"p"), ChunkRun { first: 0, count: 2 });
        let mut ledger = Ledger::default();
        assert_eq!(ledger.ask(package, &name("a"), &[run], 8, &[]).open, [0, 1]);
        ledger.give(package, &name("a"), 0, 8);
        let second = ledger.ask(package, &name("b"), &[run], 8, &[]);
        assert_eq!(second.open, [1]);
        assert_eq!(second.given_before[&name("a")], [0]);
        assert_eq!(ledger.ask(package, &name("a"), &[run], 8, &[]).open, [0, 1], "the first receiver lost it");
        assert_eq!(ledger.ask(package, &name("b"), &[run], 8, &[name("a")]).open, [0, 1]);
    }

    #[test]
    fn what_did_not_arrive_is_open_again() {
        let (package, run) = (Digest::of(b"p"), ChunkRun { first: 3, count: 1 });
        let mut ledger = Ledger::default();
        ledger.give(package, &name("a"), 3, 8);
        ledger.take_back(package, &name("a"), &[run]);
        assert_eq!(ledger.ask(package, &name("b"), &[run], 8, &[]).open, [3]);
    }
}
