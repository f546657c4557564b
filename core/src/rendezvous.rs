//! Election of an office's rendezvous point, and its replacement within five seconds.
//!
//! Wired offices elect by broadcast: the rendezvous point sends a beacon every second; whoever misses it for
//! [`BEACON_LOSS`] and a random moment more claims the next term. WiFi offices do not broadcast: members report to
//! their rendezvous point by unicast, and the server appoints the first that reports it lost. In a VPN office every
//! node is its own rendezvous point. Terms only rise, and after the last one they begin anew; of two claims the later
//! term wins, of equal terms the smaller name, and the loser steps down. What the rendezvous point does is the business
//! of `swarm`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::message::Term;
use crate::office::OfficeType;
use crate::peer::NodeRef;

/// Time between two beacons.
pub const BEACON_INTERVAL: Duration = Duration::from_millis(700);
/// Silence after which a rendezvous point counts as lost.
pub const BEACON_LOSS: Duration = Duration::from_millis(2_600);
/// How long a node listens before its first claim; a random part of the same length follows.
pub const LISTEN_AT_START: Duration = Duration::from_millis(600);
/// Random spread of claims, so that seldom two nodes claim at once.
pub const CLAIM_SPREAD: Duration = Duration::from_millis(600);

/// Whether a term is a later one than another. Terms go round, so that no claim is the last; 0 is earlier than all. Of
/// two that lie half the range apart the larger number is the later one: were neither, two rendezvous points to whom
/// somebody told such terms would lead side by side for good.
pub fn is_later(term: Term, than: Term) -> bool {
    const HALF: Term = 1 << (Term::BITS - 1);
    if term == 0 || than == 0 {
        return term > than;
    }
    match term.wrapping_sub(than) {
        HALF => term > than,
        ahead => ahead.cast_signed() > 0,
    }
}

/// The term after this one.
pub fn next_term(term: Term) -> Term {
    term.wrapping_add(1).max(1)
}

/// What the election hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The beacon of a rendezvous point, or its claim by unicast.
    Beacon {
        /// The sender.
        from: NodeRef,
        /// Its term.
        term: Term,
    },
    /// The server's word: the rendezvous point that it knows.
    ServerSays {
        /// The term.
        term: Term,
        /// The rendezvous point, if any.
        rendezvous_point: Option<NodeRef>,
    },
    /// A unicast report reached the rendezvous point.
    ReportDelivered,
    /// A unicast report could not be delivered.
    ReportUndelivered,
    /// The rendezvous point answered that it is none, or takes no reports of this office.
    Denied,
    /// The rendezvous point of this term, which this node follows, wants this node to lead in its place.
    HandedOver {
        /// Its term.
        term: Term,
    },
}

/// What the election wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Broadcast a beacon of this term.
    Beacon(Term),
    /// Broadcast the question who the rendezvous point is.
    Ask,
    /// This node is the rendezvous point now: tell the server and the neighbours.
    Lead(Term),
    /// Another node is it.
    Follow {
        /// The rendezvous point.
        leader: NodeRef,
        /// Its term.
        term: Term,
    },
    /// The rendezvous point of this term is lost or gives the role away: the server appoints the next (WiFi).
    ReportLost(Term),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Listening,
    Following { leader: NodeRef, last_heard: Instant },
    Leading,
}

/// The election of one node.
#[derive(Debug)]
pub struct Rendezvous {
    me: NodeRef,
    office_type: OfficeType,
    state: State,
    term: Term,
    deadline: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Rendezvous {
    /// Starts the election of a node; `term` is the highest it remembers.
    pub fn new(now: Instant, me: NodeRef, office_type: OfficeType, term: Term, rng: &mut impl Rng) -> Self {
        let mut machine =
            Self { me, office_type, state: State::Listening, term, deadline: None, outputs: VecDeque::new() };
        match office_type {
            OfficeType::Wired => {
                machine.outputs.push_back(Output::Ask);
                machine.deadline = Some(now + LISTEN_AT_START + spread(LISTEN_AT_START, rng));
            }
            OfficeType::Vpn => {
                machine.term = machine.term.max(1);
                machine.lead(now);
            }
            OfficeType::WiFi => {}
        }
        machine
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, event: Event, rng: &mut impl Rng) {
        if self.office_type == OfficeType::Vpn {
            return;
        }
        match event {
            Event::Beacon { from, term } => self.hear_claim(now, from, term, rng),
            Event::ServerSays { term, rendezvous_point: Some(node) } => self.hear_server(now, node, term, rng),
            Event::ServerSays { .. } => {}
            Event::ReportDelivered => {
                if let State::Following { last_heard, .. } = &mut self.state {
                    *last_heard = now;
                    self.expect_beacon(now, rng);
                }
            }
            Event::ReportUndelivered | Event::Denied => self.suspect(now),
            Event::HandedOver { term } => self.take_over(now, term),
        }
    }

    /// Acts on deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::Leading => {
                self.outputs.push_back(Output::Beacon(self.term));
                self.deadline = (self.office_type == OfficeType::Wired).then_some(now + BEACON_INTERVAL);
            }
            State::Listening | State::Following { .. } => {
                self.term = next_term(self.term);
                self.lead(now);
            }
        }
    }

    /// Next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Rendezvous::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether this node is the rendezvous point.
    pub fn is_leading(&self) -> bool {
        self.state == State::Leading
    }

    /// The other node that is the rendezvous point.
    pub fn leader(&self) -> Option<&NodeRef> {
        match &self.state {
            State::Following { leader, .. } => Some(leader),
            State::Listening | State::Leading => None,
        }
    }

    fn hear_claim(&mut self, now: Instant, from: NodeRef, term: Term, rng: &mut impl Rng) {
        if from.office != self.me.office || from.name == self.me.name {
            return;
        }
        let newer = match &self.state {
            State::Leading => is_later(term, self.term) || (term == self.term && from.name < self.me.name),
            State::Following { leader, .. } => {
                is_later(term, self.term) || (term == self.term && from.name <= leader.name)
            }
            State::Listening => !is_later(self.term, term),
        };
        if newer {
            self.follow(now, from, term, rng);
        } else if self.state == State::Leading {
            self.outputs.push_back(Output::Beacon(self.term));
        }
    }

    fn hear_server(&mut self, now: Instant, node: NodeRef, term: Term, rng: &mut impl Rng) {
        if node.name == self.me.name {
            if self.office_type == OfficeType::WiFi && (is_later(term, self.term) || self.state == State::Listening) {
                self.term = term;
                if self.state != State::Leading {
                    self.lead(now);
                }
            } else {
                // A claim of an earlier life that the server remembers: the next claim must be higher.
                self.learn_term(term);
            }
            return;
        }
        if self.office_type == OfficeType::Wired && self.state == State::Leading && term == self.term {
            // It knows a smaller name of the same term that this node never heard: one of the two has to go higher.
            self.term = next_term(self.term);
            self.lead(now);
            return;
        }
        // The server's knowledge of a wired office lags behind its beacons, so only a higher term overrules them. Where
        // nobody broadcasts it decides between two of the same term: after its own start it may have appointed another.
        let decides = self.office_type == OfficeType::WiFi && term == self.term && self.leader() != Some(&node);
        let news = match self.state {
            State::Listening if self.office_type == OfficeType::Wired => false,
            _ => decides || is_later(term, self.term),
        };
        if news {
            self.follow(now, node, term, rng);
        } else if self.state == State::Listening {
            self.learn_term(term);
        }
    }

    fn learn_term(&mut self, term: Term) {
        if is_later(term, self.term) {
            self.term = term;
        }
    }

    fn suspect(&mut self, now: Instant) {
        let State::Following { last_heard, .. } = self.state else { return };
        if now < last_heard + BEACON_LOSS {
            return;
        }
        match self.office_type {
            OfficeType::WiFi => self.outputs.push_back(Output::ReportLost(self.term)),
            // The beacon's absence decides; a denial only makes it sooner.
            OfficeType::Wired => self.deadline = self.deadline.map(|deadline| deadline.min(now)),
            OfficeType::Vpn => {}
        }
    }

    /// The next term is this node's: by a claim of its own, or, without broadcast, by the server's appointment.
    fn take_over(&mut self, now: Instant, term: Term) {
        if !matches!(self.state, State::Following { .. }) || term != self.term {
            return;
        }
        if self.office_type == OfficeType::WiFi {
            self.outputs.push_back(Output::ReportLost(self.term));
        } else {
            self.term = next_term(self.term);
            self.lead(now);
        }
    }

    fn follow(&mut self, now: Instant, leader: NodeRef, term: Term, rng: &mut impl Rng) {
        let known = matches!(&self.state, State::Following { leader: known, .. } if *known == leader);
        if !known || term != self.term {
            self.outputs.push_back(Output::Follow { leader: leader.clone(), term });
        }
        self.term = term;
        self.state = State::Following { leader, last_heard: now };
        self.expect_beacon(now, rng);
    }

    fn expect_beacon(&mut self, now: Instant, rng: &mut impl Rng) {
        self.deadline = (self.office_type == OfficeType::Wired).then(|| now + BEACON_LOSS + spread(CLAIM_SPREAD, rng));
    }

    fn lead(&mut self, now: Instant) {
        self.state = State::Leading;
        self.outputs.push_back(Output::Lead(self.term));
        if self.office_type == OfficeType::Wired {
            self.outputs.push_back(Output::Beacon(self.term));
            self.deadline = Some(now + BEACON_INTERVAL);
        } else {
            self.deadline = None;
        }
    }
}

fn spread(most: Duration, rng: &mut impl Rng) -> Duration {
    most.mul_f64(rng.random::<f64>())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
