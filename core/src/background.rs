//! The controller of the Background Protocol: sends only what nobody else wants.
//!
//! Rate based. It learns the path's delay without queues, takes any delay above it as a queue that somebody needs, and
//! gives way: a small cut at the first sign, stronger ones while the queue stays. Loss without delay is noise up to a
//! few percent. All decisions are taken once a round (a round trip, at least 20 ms) on the smallest delay of the round,
//! so that a process that was not scheduled in time does not look like a queue. Pacing by the rate and the window's
//! bytes in flight are enforced by the transport; reverse-path queues and clock skew are not separated yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Shortest round: shorter ones would measure the scheduler, not the path.
const ROUND_MIN: Duration = ms(20);
/// Longest round, for paths whose base delay was never seen small.
const ROUND_MAX: Duration = Duration::from_secs(1);
/// The base delay is the minimum over this many periods.
const BASE_PERIODS: usize = 60;
const BASE_PERIOD: Duration = Duration::from_secs(10);
/// A queue larger than this is somebody's.
const TARGET: Duration = Duration::from_millis(3);
/// Below these base delays the path is one switch, or inside one host. What delays packets there is mostly the
/// scheduler of a busy host, by more than any queue worth yielding to: rounds are longer and the target is larger.
const NEAR: Nearness = Nearness { base: ms(1), round: ms(25), target: ms(12) };
const SAME_HOST: Nearness = Nearness { base: Duration::from_micros(200), round: ms(50), target: ms(40) };
/// Rounds whose delivery rate bounds growth.
const DELIVERY_ROUNDS: usize = 8;
/// A rate may be at most this multiple of what was delivered lately: the pacer of a busy host delivers a small part of
/// the rate, because it wakes up late.
const DELIVERY_HEADROOM: f64 = 10.0;
/// 20 Gbit/s: faster than one connection can be.
const RATE_MAX: f64 = 2.5e9;
/// Share of lost bytes in a round that counts as congestion.
const LOSS_SHARE_MAX: f64 = 0.05;
const GROWTH_START: f64 = 1.6;
const GROWTH_RAMP: f64 = 1.3;
const GROWTH_CRUISE: f64 = 0.02;
/// After this many rounds of growth without a queue the link is far away: each further round grows more than the last.
const GROWTH_FREE_ROUNDS: i32 = 8;
const GROWTH_FREE: f64 = 1.25;
const GROWTH_CRUISE_MAX: f64 = 0.25;
/// The ramp ends at this share of the last rate that was cut.
const RAMP_SHARE: f64 = 0.85;
/// What is left of the rate at the first, second and every later round with a queue.
const CUTS: [f64; 3] = [0.9, 0.7, 0.5];
/// The start overshoots by up to its growth: its end leaves room to drain that.
const CUT_START: f64 = 0.6;
/// A queue this many times the target takes the strongest cut at once.
const ALARM_TARGETS: u32 = 4;
const LOSS_CUT: f64 = 0.85;
/// Feedback that may be missing before the window stops the sender.
const WINDOW_SLACK: Duration = Duration::from_millis(60);
/// Probes for larger datagrams, up to 64 KiB, are not subject to the window but fill it. One that is sent before the
/// handshake has ended is not acknowledged until then: the handshake itself must still fit.
const WINDOW_BYTES_MIN: u64 = 192 << 10;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How a short path is treated.
struct Nearness {
    /// Applies below this base delay.
    base: Duration,
    round: Duration,
    target: Duration,
}

/// One low-delay, yielding congestion controller: one a connection.
#[derive(Debug, Clone)]
pub struct Background {
    datagram_bytes: f64,
    /// Bytes a second.
    rate: f64,
    starting: bool,
    /// The rate at the last cut.
    safe_rate: Option<f64>,
    congested_rounds: usize,
    grown_rounds: i32,
    hold_until: Option<Instant>,
    base: VecDeque<(Instant, Duration)>,
    deliveries: VecDeque<f64>,
    round: Option<Round>,
    last_sample: Option<Instant>,
    ignore_delay_until: Option<Instant>,
    queue_delay: Duration,
}

#[derive(Debug, Clone)]
struct Round {
    started: Instant,
    delay_min: Option<Duration>,
    delivered_bytes: u64,
    lost_bytes: u64,
    application_limited: bool,
}

impl Round {
    fn new(started: Instant) -> Self {
        Self { started, delay_min: None, delivered_bytes: 0, lost_bytes: 0, application_limited: false }
    }

    fn is_lossy(&self, datagram_bytes: f64) -> bool {
        let (lost, delivered) = (self.lost_bytes as f64, self.delivered_bytes as f64);
        lost > 2.0 * datagram_bytes && lost > LOSS_SHARE_MAX * (lost + delivered)
    }
}

impl Background {
    /// A controller for a path whose datagrams carry `datagram_bytes`.
    pub fn new(datagram_bytes: u16) -> Self {
        let datagram_bytes = f64::from(datagram_bytes);
        Self {
            datagram_bytes,
            rate: 20.0 * datagram_bytes / 0.1,
            starting: true,
            safe_rate: None,
            congested_rounds: 0,
            grown_rounds: 0,
            hold_until: None,
            base: VecDeque::new(),
            deliveries: VecDeque::new(),
            round: None,
            last_sample: None,
            ignore_delay_until: None,
            queue_delay: Duration::ZERO,
        }
    }

    /// The path carries larger or smaller datagrams from now on.
    pub fn set_datagram_bytes(&mut self, datagram_bytes: u16) {
        self.datagram_bytes = f64::from(datagram_bytes);
        self.rate = self.rate.max(self.floor());
    }

    /// An acknowledgement arrived at `now`: the smallest time from sending to `now` of the packets that it newly
    /// acknowledges, their bytes, and whether the application had nothing more to send.
    pub fn on_sample(&mut self, now: Instant, delay: Duration, bytes: u64, application_limited: bool) {
        self.guard_against_stall(now);
        self.learn_base(now, delay);
        if self.hold_until.is_some_and(|until| now >= until) {
            // What was measured during the hold was sent before the cut.
            self.hold_until = None;
            self.round = None;
        }
        let in_doubt = self.ignore_delay_until.is_some_and(|until| now < until);
        let round = self.round.get_or_insert_with(|| Round::new(now));
        round.delivered_bytes += bytes;
        round.application_limited |= application_limited;
        if !in_doubt {
            round.delay_min = Some(round.delay_min.map_or(delay, |smallest| smallest.min(delay)));
        }
        let over = now.saturating_duration_since(round.started) >= self.round_length();
        if over && let Some(round) = self.round.replace(Round::new(now)) {
            self.finish_round(now, &round);
        }
    }

    /// Packets were lost.
    pub fn on_loss(&mut self, now: Instant, bytes: u64) {
        self.round.get_or_insert_with(|| Round::new(now)).lost_bytes += bytes;
    }

    /// Nothing arrived for several timeouts: the path is full or gone.
    pub fn on_persistent_loss(&mut self, now: Instant) {
        self.starting = false;
        self.cut(now, 0.3, Duration::ZERO);
    }

    /// Bytes a second to send at.
    pub fn send_rate(&self) -> u64 {
        self.rate as u64
    }

    /// Bytes that may be in flight: a safety cap for lost feedback, not the control.
    pub fn window(&self) -> u64 {
        let seconds = (self.round_length() + WINDOW_SLACK).as_secs_f64();
        let bytes = (self.rate.max(self.floor()) * seconds + 4.0 * self.datagram_bytes) as u64;
        bytes.max(WINDOW_BYTES_MIN)
    }

    /// The queue seen in the last round.
    pub fn queue_delay(&self) -> Duration {
        self.queue_delay
    }

    fn finish_round(&mut self, now: Instant, round: &Round) {
        let seconds = now.saturating_duration_since(round.started).as_secs_f64().max(0.001);
        let delivered = round.delivered_bytes as f64 / seconds;
        self.deliveries.push_back(delivered);
        while self.deliveries.len() > DELIVERY_ROUNDS {
            self.deliveries.pop_front();
        }
        let queue = round.delay_min.map(|delay| delay.saturating_sub(self.base_delay()));
        if let Some(queue) = queue {
            self.queue_delay = queue;
        }
        if self.hold_until.is_some() {
            return;
        }
        let target = self.target();
        match queue {
            Some(queue) if queue > target => self.give_way(now, queue, target),
            _ if round.is_lossy(self.datagram_bytes) => {
                self.remember_and_cut(now, LOSS_CUT, Duration::ZERO);
            }
            Some(queue) if queue < target / 2 => {
                self.congested_rounds = 0;
                if !round.application_limited {
                    self.grow();
                }
            }
            _ => {}
        }
    }

    fn give_way(&mut self, now: Instant, queue: Duration, target: Duration) {
        let strongest = CUTS.len() - 1;
        let step = if queue > target * ALARM_TARGETS { strongest } else { self.congested_rounds.min(strongest) };
        self.remember_and_cut(now, CUTS[step], queue);
        self.congested_rounds += 1;
    }

    fn remember_and_cut(&mut self, now: Instant, share: f64, queue: Duration) {
        // More than the path delivered is in the queue already.
        let delivered = self.deliveries.iter().rev().take(2).copied().fold(0.0, f64::max);
        self.rate = self.rate.min(delivered.max(self.floor()));
        if self.congested_rounds == 0 {
            self.safe_rate = Some(self.rate);
        }
        let share = if self.starting { share.min(CUT_START) } else { share };
        self.starting = false;
        self.cut(now, share, queue);
    }

    /// Cuts, and holds until the effect of the cut can have come back.
    fn cut(&mut self, now: Instant, share: f64, queue: Duration) {
        self.rate = (self.rate * share).max(self.floor());
        self.grown_rounds = 0;
        let round = self.round_length();
        self.hold_until = Some(now + round + round / 4 + queue.min(4 * round));
    }

    fn grow(&mut self) {
        self.grown_rounds = self.grown_rounds.saturating_add(1);
        let grown = if self.starting {
            self.rate * GROWTH_START
        } else if self.safe_rate.is_some_and(|safe| self.rate < RAMP_SHARE * safe) {
            self.rate * GROWTH_RAMP
        } else {
            self.rate + (self.rate * self.cruise_step()).max(self.datagram_bytes / self.round_length().as_secs_f64())
        };
        self.rate = grown.min(self.delivery_bound().max(self.rate)).min(RATE_MAX);
    }

    fn cruise_step(&self) -> f64 {
        let free = (self.grown_rounds - GROWTH_FREE_ROUNDS).clamp(0, 32);
        (GROWTH_CRUISE * GROWTH_FREE.powi(free)).min(GROWTH_CRUISE_MAX)
    }

    /// The most that recent deliveries justify.
    fn delivery_bound(&self) -> f64 {
        let delivered = self.deliveries.iter().copied().fold(0.0, f64::max);
        (DELIVERY_HEADROOM * delivered).max(self.floor())
    }

    /// One datagram per round, the round taken between 30 and 80 ms: enough to notice that the queue is gone.
    fn floor(&self) -> f64 {
        self.datagram_bytes / self.round_length().as_secs_f64().clamp(0.03, 0.08)
    }

    fn target(&self) -> Duration {
        self.nearness().map_or(TARGET, |near| near.target)
    }

    fn round_length(&self) -> Duration {
        self.nearness().map_or(self.base_delay().clamp(ROUND_MIN, ROUND_MAX), |near| near.round)
    }

    fn nearness(&self) -> Option<Nearness> {
        let base = self.base_delay();
        [SAME_HOST, NEAR].into_iter().find(|near| base < near.base)
    }

    fn base_delay(&self) -> Duration {
        self.base.iter().map(|&(_, delay)| delay).min().unwrap_or(ROUND_MIN)
    }

    fn learn_base(&mut self, now: Instant, delay: Duration) {
        match self.base.back_mut() {
            Some((started, smallest)) if now.saturating_duration_since(*started) < BASE_PERIOD => {
                *smallest = delay.min(*smallest);
            }
            _ => self.base.push_back((now, delay)),
        }
        while self.base.len() > BASE_PERIODS {
            self.base.pop_front();
        }
    }

    /// After a silence longer than the rate explains, somebody was not scheduled: delays say nothing for half a round.
    fn guard_against_stall(&mut self, now: Instant) {
        let expected = Duration::from_secs_f64(8.0 * self.datagram_bytes / self.rate.max(1.0));
        let round = self.round_length();
        if self.last_sample.is_some_and(|last| now.saturating_duration_since(last) > round.max(expected)) {
            self.ignore_delay_until = Some(now + round / 2);
        }
        self.last_sample = Some(now);
    }
}

#[cfg(test)]
mod tests;
