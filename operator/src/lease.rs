//! Who may write: the election on a Lease as a machine without I/O. One operator holds the Lease and renews it; another
//! takes it once it has not changed for its whole duration on the other's own clock. The holder's right ends earlier
//! than that, so that a holder that slept wakes up without it. The driver talks to the API server.

mod driver;
mod fence;
mod moment;

use std::time::Duration;

pub use self::driver::{ElectionError, ElectionOptions, elect};
pub use self::fence::{Fence, NoLease};
pub use self::moment::Moment;

/// How long a Lease lasts without renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a holder may write after its last renewal began. The rest of the Lease is for requests under way.
pub const WRITE_DURATION: Duration = Duration::from_secs(10);
/// How long a write may take until it is sent and answered, and how long the API server may take over it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between renewals, and between looks of those who wait.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Longest Lease of another holder that is waited out; more is taken for a mistake.
const FOREIGN_DURATION_MAX: Duration = Duration::from_secs(300);

// The last write that passes the fence has happened, or never will, before another can take the Lease.
const _: () = assert!(WRITE_DURATION.as_secs() + 2 * WRITE_TIMEOUT.as_secs() < LEASE_DURATION.as_secs());

/// What counts of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// How long it lasts without renewal.
    pub duration: Duration,
    /// How often it changed hands.
    pub transitions: i32,
    /// Changes with every write.
    pub version: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The Lease was read; `None`: there is none.
    Read(Option<LeaseRecord>),
    /// Our write was accepted; the Lease has this version now.
    Written(String),
    /// Somebody wrote before us.
    Conflict,
    /// The API server did not answer, or refused.
    Failed,
    /// We are asked to end; told between requests only.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Write it with us as holder; `version` is what must be there, `None`: nothing.
    Write {
        /// The version that was read.
        version: Option<String>,
        /// How often it changed hands, this time included.
        transitions: i32,
        /// Whether we take it, rather than renew it.
        taking: bool,
    },
    /// Write it with nobody as holder.
    Release {
        /// The version that was written last.
        version: String,
        /// How often it changed hands.
        transitions: i32,
    },
}

/// How it stands with the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nobody knows: it was not looked at yet, or could not be read or taken at the last look.
    #[default]
    Unknown,
    /// Another holds it.
    Waits,
    /// It is ours.
    Leads,
}

/// The machine.
#[derive(Debug)]
pub struct Election {
    identity: String,
    state: State,
    next_at: Moment,
    /// When the request under way was begun; none is.
    begun_at: Option<Moment>,
}

#[derive(Debug)]
enum State {
    /// Somebody else has it, or nobody knows. `seen`: the last version and since when it has been that.
    Waiting { seen: Option<(String, Moment)> },
    /// The Lease may be written.
    Taking { version: Option<String>, transitions: i32 },
    /// Ours.
    Holding { version: String, transitions: i32, renewed_at: Moment, unsure: bool },
    /// Ours, to be given back.
    Releasing { version: String, transitions: i32 },
    /// Given back, or lost. Nothing follows.
    Ended,
}

impl Election {
    /// Takes part under a name that no other process has.
    pub fn new(identity: impl Into<String>, now: Moment) -> Self {
        Self { identity: identity.into(), state: State::Waiting { seen: None }, next_at: now, begun_at: None }
    }

    /// Until when we may write; `None`: we may not.
    pub fn may_write_until(&self) -> Option<Moment> {
        match &self.state {
            State::Holding { renewed_at, .. } => Some(*renewed_at + WRITE_DURATION),
            _ => None,
        }
    }

    /// How it stands; `is_heard`: the API server answered the last request.
    pub fn standing(&self, is_heard: bool) -> Standing {
        match &self.state {
            State::Holding { .. } => Standing::Leads,
            State::Waiting { seen: Some(_) } if is_heard => Standing::Waits,
            State::Waiting { .. } | State::Taking { .. } | State::Releasing { .. } | State::Ended => Standing::Unknown,
        }
    }

    /// Whether nothing follows.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When to poll again, unless a request is under way.
    pub fn poll_timeout(&self) -> Option<Moment> {
        (!self.is_ended() && self.begun_at.is_none()).then_some(self.next_at)
    }

    /// What to do now.
    pub fn poll(&mut self, now: Moment) -> Option<Action> {
        if self.may_write_until().is_some_and(|until| now >= until) {
            self.state = State::Ended;
        }
        if self.begun_at.is_some() || now < self.next_at {
            return None;
        }
        let action = match &self.state {
            State::Waiting { .. } | State::Holding { unsure: true, .. } => Action::Read,
            State::Taking { version, transitions } => {
                Action::Write { version: version.clone(), transitions: *transitions, taking: true }
            }
            State::Holding { version, transitions, .. } => {
                Action::Write { version: Some(version.clone()), transitions: *transitions, taking: false }
            }
            State::Releasing { version, transitions } => {
                Action::Release { version: version.clone(), transitions: *transitions }
            }
            State::Ended => return None,
        };
        self.begun_at = Some(now);
        Some(action)
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Moment, event: Event) {
        if event == Event::Stop {
            return self.stop(now);
        }
        let begun_at = self.begun_at.take().unwrap_or(now);
        match event {
            Event::Read(record) => self.read(now, record),
            Event::Written(version) => self.written(now, begun_at, version),
            Event::Conflict => self.conflict(now),
            Event::Failed | Event::Stop => self.failed(now),
        }
    }

    fn stop(&mut self, now: Moment) {
        self.next_at = now;
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Holding { version, transitions, .. } => State::Releasing { version, transitions },
            _ => State::Ended,
        };
    }

    fn read(&mut self, now: Moment, record: Option<LeaseRecord>) {
        self.next_at = now + RETRY_PERIOD;
        match &mut self.state {
            State::Waiting { seen } => {
                let transitions = record.as_ref().map_or(0, |record| record.transitions.saturating_add(1));
                let free = record.as_ref().is_none_or(|record| is_free(record, seen, now));
                if free {
                    self.state = State::Taking { version: record.map(|record| record.version), transitions };
                    self.next_at = now;
                }
            }
            State::Holding { version, unsure, .. } => match record {
                Some(record) if record.holder == self.identity => {
                    *version = record.version;
                    *unsure = false;
                    self.next_at = now;
                }
                _ => self.state = State::Ended,
            },
            State::Taking { .. } | State::Releasing { .. } | State::Ended => {}
        }
    }

    fn written(&mut self, now: Moment, begun_at: Moment, new_version: String) {
        self.next_at = now + RETRY_PERIOD;
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Taking { transitions, .. } | State::Holding { transitions, .. } => {
                State::Holding { version: new_version, transitions, renewed_at: begun_at, unsure: false }
            }
            State::Waiting { .. } | State::Releasing { .. } | State::Ended => State::Ended,
        };
    }

    /// Whoever wrote may have taken the Lease, or put a label on it: who holds it looks at once.
    fn conflict(&mut self, now: Moment) {
        self.next_at = now + RETRY_PERIOD;
        match &mut self.state {
            State::Waiting { .. } | State::Taking { .. } => self.state = State::Waiting { seen: None },
            State::Holding { unsure, .. } => {
                *unsure = true;
                self.next_at = now;
            }
            State::Releasing { .. } | State::Ended => self.state = State::Ended,
        }
    }

    /// A write that failed may have happened all the same: look before the next one.
    fn failed(&mut self, now: Moment) {
        self.next_at = now + RETRY_PERIOD;
        match &mut self.state {
            State::Holding { unsure, .. } => *unsure = true,
            State::Taking { .. } => self.state = State::Waiting { seen: None },
            State::Releasing { .. } => self.state = State::Ended,
            State::Waiting { .. } | State::Ended => {}
        }
    }
}

/// Whether another's Lease is over: given back, or unchanged for all its time as we saw it.
fn is_free(record: &LeaseRecord, seen: &mut Option<(String, Moment)>, now: Moment) -> bool {
    if record.holder.is_empty() {
        return true;
    }
    let duration = record.duration.clamp(LEASE_DURATION, FOREIGN_DURATION_MAX);
    match seen {
        Some((version, since)) if *version == record.version => now >= *since + duration,
        _ => {
            *seen = Some((record.version.clone(), now));
            false
        }
    }
}

#[cfg(test)]
mod tests;
