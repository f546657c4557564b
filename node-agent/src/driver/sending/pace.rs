//! How fast one transfer goes, and what of it is still wanted, by the control signals of its receiver: pause, resume,
//! cancel, want, rate and class. Reading and sending chunks is not here.

use std::collections::VecDeque;
use std::time::Duration;

use peerdist_core::chunk_set::{CHUNKS_MAX, ChunkIndex, ChunkRun};
use peerdist_core::message::{RUNS_MAX, TransferPace};
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::BATCH_CHUNKS_MAX;

/// After the last chunk the sender waits so long for a want before it ends the stream.
const LINGER: Duration = Duration::from_millis(400);
/// A receiver that pauses for longer than this asks again afterwards.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Longest rest between two chunks for a receiver that cannot change its mind any more.
const REST_ALONE_MAX: Duration = Duration::from_secs(60);
/// Pace of an office transfer that its receiver moved to the background class: pauses as long as it sends.
const BACKGROUND_SHARE: u32 = 1;

/// What the receiver wants, and how fast.
pub(super) struct Pace {
    signals: mpsc::Receiver<proto::Control>,
    /// What is still to be sent, in this order.
    pub(super) queue: VecDeque<ChunkIndex>,
    paused: bool,
    rate_bytes_per_second: Option<u64>,
    background: bool,
    last: Option<Sent>,
    listening: bool,
}

/// None is no limit.
fn bytes_per_second(bits_per_second: u64) -> Option<u64> {
    (bits_per_second > 0).then_some(bits_per_second / 8)
}

/// What was sent last.
#[derive(Clone, Copy)]
struct Sent {
    began: Instant,
    took: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(runs: &[ChunkRun], pace: TransferPace, signals: mpsc::Receiver<proto::Control>) -> Self {
        Self {
            signals,
            queue: runs.iter().flat_map(|run| run.range()).collect(),
            paused: false,
            rate_bytes_per_second: bytes_per_second(pace.bits_per_second),
            background: pace.makes_way,
            last: None,
            listening: true,
        }
    }

    /// Takes in what the receiver said, waiting as long as there is nothing to send. False when it cancelled.
    pub(super) async fn listen(&mut self) -> bool {
        while self.queue.is_empty() && self.listening {
            // The last chunk's rest belongs to this transfer: ended early, the next one would begin at once.
            let Ok(heard) = timeout(self.rest() + LINGER, self.signals.recv()).await else { return true };
            if !self.hear(heard) {
                return false;
            }
        }
        true
    }

    /// Takes in what the receiver said, and waits while it pauses or slows down the transfer. False when it cancelled.
    pub(super) async fn obey_between_chunks(&mut self) -> bool {
        loop {
            let wait = if self.paused { PAUSE_MAX } else { self.rest() };
            if !self.listening {
                // Nobody will end the pause.
                if !self.paused {
                    sleep(wait.min(REST_ALONE_MAX)).await;
                }
                return !self.paused;
            }
            let Ok(heard) = timeout(wait, self.signals.recv()).await else { return !self.paused };
            if !self.hear(heard) {
                return false;
            }
        }
    }

    /// A transfer that has to rest rests after each chunk.
    pub(super) fn chunks_at_once(&self) -> usize {
        if self.background || self.rate_bytes_per_second.is_some() { 1 } else { BATCH_CHUNKS_MAX }
    }

    /// `None`: the receiver has nothing more to say.
    fn hear(&mut self, heard: Option<proto::Control>) -> bool {
        self.listening = heard.is_some();
        heard.is_none_or(|signal| self.obey(signal))
    }

    fn obey(&mut self, control: proto::Control) -> bool {
        match control.signal {
            Some(Signal::Pause(_)) => self.paused = true,
            Some(Signal::Resume(_)) => self.paused = false,
            Some(Signal::Cancel(_)) => return false,
            Some(Signal::Want(more)) => {
                let room = CHUNKS_MAX as usize - self.queue.len().min(CHUNKS_MAX as usize);
                let indices = more
                    .runs
                    .iter()
                    .take(RUNS_MAX)
                    .flat_map(|run| run.first..run.first.saturating_add(run.count).min(CHUNKS_MAX));
                self.queue.extend(indices.take(room));
            }
            Some(Signal::RateBitsPerSecond(rate)) => self.rate_bytes_per_second = bytes_per_second(rate),
            Some(Signal::Class(class)) => self.background = class == 2,
            None => {}
        }
        true
    }

    /// Accounts for what was sent.
    pub(super) fn sent(&mut self, began: Instant, bytes: u64) {
        self.last = Some(Sent { began, took: began.elapsed(), bytes });
    }

    /// How long the next chunk has to wait, by what the receiver said last.
    fn rest(&self) -> Duration {
        let Some(Sent { began, took, bytes }) = self.last else { return Duration::ZERO };
        let by_rate = self.rate_bytes_per_second.map(|rate| Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
        let by_class = self.background.then(|| took * (1 + BACKGROUND_SHARE));
        let pause = by_rate.into_iter().chain(by_class).max().unwrap_or_default();
        pause.saturating_sub(began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn pace(chunks: u32) -> (Pace, mpsc::Sender<proto::Control>) {
        let (sender, signals) = mpsc::channel(8);
        let runs = [ChunkRun { first: 0, count: chunks }];
        (Pace::new(&runs, TransferPace::default(), signals), sender)
    }

    fn say(sender: &mpsc::Sender<proto::Control>, signal: Signal) {
        sender.try_send(proto::Control { signal: Some(signal) }).unwrap();
    }

    fn want(first: u32, count: u32) -> Signal {
        Signal::Want(proto::MoreRuns { runs: vec![proto::Run { first, count }] })
    }

    #[tokio::test]
    async fn paused_transfer_goes_on_when_it_is_resumed() {
        let (mut pace, receiver) = pace(1);
        say(&receiver, Signal::Pause(true));
        let mut obeying = Box::pin(pace.obey_between_chunks());
        assert_eq!(obeying.as_mut().now_or_never(), None, "nothing is sent during a pause");
        say(&receiver, Signal::Resume(true));
        assert!(obeying.await);
    }

    #[tokio::test]
    async fn pause_that_nobody_will_end_ends_the_transfer() {
        let (mut pace, receiver) = pace(1);
        say(&receiver, Signal::Pause(true));
        drop(receiver);
        assert!(!pace.obey_between_chunks().await);
    }

    #[tokio::test]
    async fn cancelled_transfer_ends_between_chunks_and_while_it_waits_for_more() {
        let (mut sending, receiver) = pace(1);
        say(&receiver, Signal::Cancel(true));
        assert!(!sending.obey_between_chunks().await);
        let (mut waiting, receiver) = pace(0);
        say(&receiver, Signal::Cancel(true));
        assert!(!waiting.listen().await);
    }

    #[tokio::test]
    async fn want_is_sent_after_what_was_asked_for_before() {
        let (mut pace, receiver) = pace(2);
        say(&receiver, want(7, 2));
        assert!(pace.obey_between_chunks().await);
        assert_eq!(pace.queue, [0, 1, 7, 8]);
    }

    #[tokio::test]
    async fn endless_wants_are_cut() {
        let (mut pace, receiver) = pace(3);
        say(&receiver, want(5, u32::MAX));
        say(&receiver, want(0, u32::MAX));
        assert!(pace.obey_between_chunks().await);
        assert_eq!(pace.queue.len(), CHUNKS_MAX as usize);
        assert!(pace.queue.iter().all(|index| *index < CHUNKS_MAX));
    }

    #[tokio::test]
    async fn next_chunk_waits_for_the_rate_that_was_asked_for() {
        let (mut pace, _receiver) = pace(1);
        pace.obey(proto::Control { signal: Some(Signal::RateBitsPerSecond(8)) });
        assert_eq!(pace.chunks_at_once(), 1);
        pace.sent(Instant::now(), HOUR.as_secs());
        assert!(pace.rest() > HOUR / 2, "a byte a second");
        pace.obey(proto::Control { signal: Some(Signal::RateBitsPerSecond(0)) });
        assert_eq!(pace.rest(), Duration::ZERO, "no limit");
    }

    #[tokio::test]
    async fn transfer_of_the_background_class_rests_as_long_as_it_sends() {
        let (mut pace, _receiver) = pace(1);
        pace.last = Some(Sent { began: Instant::now(), took: HOUR, bytes: 1 });
        assert_eq!(pace.rest(), Duration::ZERO);
        pace.obey(proto::Control { signal: Some(Signal::Class(2)) });
        assert!(pace.rest() > HOUR, "sent for an hour, begun just now");
        pace.obey(proto::Control { signal: Some(Signal::Class(1)) });
        assert_eq!((pace.rest(), pace.chunks_at_once()), (Duration::ZERO, BATCH_CHUNKS_MAX));
    }
}
