//! Sends the chunks of one transfer to a receiver that asked for them, and obeys its control signals.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerdist_core::chunk_set::{CHUNKS_MAX, ChunkIndex, ChunkRun};
use peerdist_core::digest::Digest;
use peerdist_core::message::{RUNS_MAX, TransferId, TransferPace};
use peerdist_core::peer::ContentClass;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::messages::content_on_ports;
use crate::store::{NodeStore, ReadError};
use crate::telemetry::current_traceparent;
use crate::transport::bulk::{BulkError, ControlReceiver};
use crate::transport::{BulkSend, Transport};

/// After the last chunk the sender waits so long for a want before it ends the stream.
const LINGER: Duration = Duration::from_millis(400);
/// A receiver that pauses for longer than this asks again afterwards.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Longest rest between two chunks for a receiver that cannot change its mind any more.
const REST_ALONE_MAX: Duration = Duration::from_secs(60);
/// Pace of an office transfer that its receiver moved to the background class: pauses as long as it sends.
const BACKGROUND_SHARE: u32 = 1;
/// Most control signals that wait to be obeyed; more wait in the connection.
const SIGNALS_MAX: usize = 64;
/// Bytes after which a batch of chunks ends. A transfer keeps at most two batches in memory.
const BATCH_BYTES: usize = 256 << 10;
/// Most chunks of a batch.
const BATCH_CHUNKS_MAX: usize = 16;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) to: IpAddr,
    pub(super) class: ContentClass,
    pub(super) transfer: TransferId,
    pub(super) digest: Digest,
    pub(super) runs: Vec<ChunkRun>,
    /// From the first byte on, until the receiver says otherwise.
    pub(super) pace: TransferPace,
}

/// Dials the receiver and sends. Returns chunks that turned out to be damaged here.
pub(super) async fn send_chunks(
    transport: &Transport,
    store: &Arc<NodeStore>,
    sending: Sending,
) -> Result<Vec<ChunkRun>, BulkError> {
    let start = proto::TransferStart {
        transfer: sending.transfer,
        digest: Bytes::copy_from_slice(sending.digest.as_bytes()),
        traceparent: current_traceparent(),
    };
    let BulkSend { mut chunks, control, .. } =
        transport.bulk().open(sending.to, content_on_ports(sending.class), start).await?;
    let (heard, signals) = mpsc::channel(SIGNALS_MAX);
    let _listening = AbortOnDropHandle::new(tokio::spawn(listen(control, heard)));
    let mut pace = Pace::new(&sending.runs, sending.pace, signals);
    let mut damaged = Vec::new();
    let mut reading: Option<Reading> = None;
    loop {
        if reading.is_none() {
            if !pace.listen().await {
                return Ok(damaged);
            }
            reading = read_next(store, sending.digest, &mut pace.queue);
        }
        let batch = match reading.take() {
            Some(Reading::Done(batch)) => batch,
            Some(Reading::Waits(batch)) => match batch.await {
                Ok(batch) => batch,
                Err(_) => break,
            },
            None => break,
        };
        batch.unread.into_iter().rev().for_each(|index| pace.queue.push_front(index));
        // The next batch is read while this one is sent.
        reading = read_next(store, sending.digest, &mut pace.queue);
        let mut whole = Vec::with_capacity(batch.read.len());
        for (index, read) in batch.read {
            match read {
                Ok(bytes) => whole.push((index, bytes)),
                Err(ReadError::Missing { .. }) => {}
                Err(ReadError::Corrupt { .. }) => damaged.push(ChunkRun { first: index, count: 1 }),
                Err(ReadError::Store(error)) => {
                    tracing::warn!(%error, index, digest = %sending.digest, "chunk cannot be read");
                }
            }
        }
        while !whole.is_empty() {
            if !pace.obey_between_chunks().await {
                return Ok(damaged);
            }
            let rest = whole.split_off(pace.chunks_at_once().min(whole.len()));
            let (began, bytes) = (Instant::now(), whole.iter().map(|(_, bytes)| bytes.len() as u64).sum());
            let taken = timeout(PAUSE_MAX, chunks.send_chunks(std::mem::replace(&mut whole, rest))).await;
            // Whoever keeps the connection alive and takes nothing gives its place to others.
            let Ok(taken) = taken else { return Ok(damaged) };
            taken?;
            pace.sent(began, bytes);
        }
    }
    chunks.finish().await?;
    Ok(damaged)
}

/// Chunks read in one go.
struct Batch {
    read: Vec<(ChunkIndex, Result<Bytes, ReadError>)>,
    unread: Vec<ChunkIndex>,
}

enum Reading {
    /// All of it was in memory.
    Done(Batch),
    /// On a thread that may wait: handing over each small chunk costs more than reading it.
    Waits(JoinHandle<Batch>),
}

/// Begins to read what is first in the queue. `None` when nothing is wanted.
fn read_next(store: &Arc<NodeStore>, digest: Digest, queue: &mut VecDeque<ChunkIndex>) -> Option<Reading> {
    let mut wanted: VecDeque<ChunkIndex> = queue.drain(..queue.len().min(BATCH_CHUNKS_MAX)).collect();
    if wanted.is_empty() {
        return None;
    }
    let recent = read_while(&mut wanted, |index| store.recent_chunk(digest, index).map(Ok));
    if !recent.is_empty() {
        return Some(Reading::Done(Batch { read: recent, unread: wanted.into() }));
    }
    let store = store.clone();
    Some(Reading::Waits(tokio::task::spawn_blocking(move || {
        let read = read_while(&mut wanted, |index| Some(store.read_chunk(digest, index)));
        Batch { read, unread: wanted.into() }
    })))
}

/// Takes chunks from the queue until a batch is full or `read` gives none.
fn read_while(
    wanted: &mut VecDeque<ChunkIndex>,
    read: impl Fn(ChunkIndex) -> Option<Result<Bytes, ReadError>>,
) -> Vec<(ChunkIndex, Result<Bytes, ReadError>)> {
    let (mut chunks, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
    while bytes < BATCH_BYTES
        && let Some(&index) = wanted.front()
        && let Some(chunk) = read(index)
    {
        wanted.pop_front();
        bytes += chunk.as_ref().map_or(0, Bytes::len);
        chunks.push((index, chunk));
    }
    chunks
}

/// Reads what the receiver says until it has nothing more to say. A task of its own, because giving up a read half-way
/// would lose the beginning of a signal.
async fn listen(mut control: Box<dyn ControlReceiver>, heard: mpsc::Sender<proto::Control>) {
    while let Ok(Some(signal)) = control.next_control().await {
        if heard.send(signal).await.is_err() {
            return;
        }
    }
}

/// What the receiver wants, and how fast.
struct Pace {
    signals: mpsc::Receiver<proto::Control>,
    queue: VecDeque<ChunkIndex>,
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
    fn new(runs: &[ChunkRun], pace: TransferPace, signals: mpsc::Receiver<proto::Control>) -> Self {
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
    async fn listen(&mut self) -> bool {
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
    async fn obey_between_chunks(&mut self) -> bool {
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
    fn chunks_at_once(&self) -> usize {
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
            Some(Signal::Progress(_)) | None => {}
        }
        true
    }

    /// Accounts for what was sent.
    fn sent(&mut self, began: Instant, bytes: u64) {
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
