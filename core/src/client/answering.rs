//! Answers to "who has these packages?", asked of a whole subnet at once. Only the few nodes that the plan names
//! answer, each after a random moment, so that a question brings no storm of answers upon its asker. Who asks and what
//! becomes of an answer is the rendezvous point's business ([`super::leading`]).

use std::time::{Duration, Instant};

use rand::Rng;

use super::Client;
use crate::digest::Digest;
use crate::message::{HoldersFound, Message, PackageDelta, RUNS_MAX};
use crate::peer::NodeRef;

/// An answer goes within this time of its question.
const ANSWER_SPREAD: Duration = Duration::from_millis(50);
/// Most answers that wait for their moment; of one asker only the last question is answered.
const ANSWERS_WAITING_MAX: usize = 16;

/// An answer that waits for its moment.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    at: Instant,
    to: NodeRef,
    question: u64,
    digests: Vec<Digest>,
}

impl Client {
    /// Notes a question, if the plan names this node among those that answer.
    pub(super) fn answer_later(&mut self, now: Instant, from: NodeRef, question: u64, digests: Vec<Digest>) {
        let named = self.plan.as_ref().is_some_and(|plan| plan.answerers.contains(&self.config.me.name));
        let room = self.answers.len() < ANSWERS_WAITING_MAX || self.answers.contains_key(&from.name);
        if named && room {
            let at = now + ANSWER_SPREAD.mul_f64(self.rng.random::<f64>());
            self.answers.insert(from.name.clone(), PendingAnswer { at, to: from, question, digests });
        }
    }

    /// When the next answer is due.
    pub(super) fn answer_at(&self) -> Option<Instant> {
        self.answers.values().map(|answer| answer.at).min()
    }

    pub(super) fn give_answers(&mut self, now: Instant) {
        let due = self.answers.extract_if(.., |_, answer| answer.at <= now);
        for (_, answer) in due.collect::<Vec<_>>() {
            self.give_answer(answer);
        }
    }

    fn give_answer(&mut self, answer: PendingAnswer) {
        let runs_max = RUNS_MAX / answer.digests.len().max(1);
        let mut coming = self.coming();
        let packages: Vec<PackageDelta> = answer
            .digests
            .iter()
            .filter_map(|digest| self.packages.get(digest))
            .filter(|package| !package.available.is_empty())
            .map(|package| {
                let mut available = package.available.runs();
                available.truncate(runs_max);
                let mut coming = coming.remove(&package.planned.digest).unwrap_or_default();
                coming.truncate(runs_max.saturating_sub(available.len()));
                PackageDelta {
                    digest: package.planned.digest,
                    available,
                    lost: Vec::new(),
                    coming,
                    state: package.state.clone(),
                }
            })
            .collect();
        if packages.is_empty() {
            return;
        }
        let found = HoldersFound {
            question: answer.question,
            packages,
            term: self.election.term(),
            rendezvous_point: self.election.is_leading(),
        };
        self.send_small(&answer.to, Message::HoldersFound(found));
    }
}

#[cfg(test)]
mod tests;
