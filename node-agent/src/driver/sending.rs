//! Sends the chunks of one transfer to a receiver that asked for them, and obeys its control signals.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerdist_core::chunk_set::{CHUNKS_MAX, ChunkIndex, ChunkRun};
use peerdist_core::digest::Digest;
use peerdist_core::message::{RUNS_MAX, TransferId};
use peerdist_core::peer::ContentClass;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use tokio::time::{Instant, sleep_until, timeout};

use super::messages::content_on_ports;
use crate::store::{NodeStore, ReadError};
use crate::telemetry::current_traceparent;
use crate::transport::bulk::{BulkError, ControlReceiver};
use crate::transport::{BulkSend, Transport};

/// After the last chunk the sender waits so long for a want before it ends the stream.
const LINGER: Duration = Duration::from_millis(400);
/// A receiver that pauses for longer than this asks again afterwards.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// Pace of an office transfer that its receiver moved to the background class: pauses as long as it sends.
const BACKGROUND_SHARE: u32 = 1;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) to: IpAddr,
    pub(super) class: ContentClass,
    pub(super) transfer: TransferId,
    pub(super) digest: Digest,
    pub(super) runs: Vec<ChunkRun>,
}

/// Dials the receiver and sends. Returns chunks that turned out to be damaged here.
pub(super) async fn send_chunks(
    transport: &Transport,
    store: &Arc<NodeStore>,
    sending: Sending,
) -> Result<Vec<ChunkRun>, BulkError> {
    let start = proto::TransferStart {
        transfer: sending.transfer,
        digest: bytes::Bytes::copy_from_slice(sending.digest.as_bytes()),
        traceparent: current_traceparent(),
    };
    let BulkSend { mut chunks, mut control, .. } =
        transport.bulk().open(sending.to, content_on_ports(sending.class), start).await?;
    let mut pace = Pace::new(&sending.runs);
    let mut damaged = Vec::new();
    loop {
        if !pace.listen(control.as_mut()).await {
            return Ok(damaged);
        }
        let Some(index) = pace.queue.pop_front() else { break };
        let (store, digest) = (store.clone(), sending.digest);
        match tokio::task::spawn_blocking(move || store.read_chunk(digest, index)).await {
            Ok(Ok(bytes)) => {
                let (began, length) = (Instant::now(), bytes.len() as u64);
                chunks.send_chunk(index, bytes).await?;
                pace.sent(began, length);
            }
            Ok(Err(ReadError::Missing { .. })) => {}
            Ok(Err(ReadError::Corrupt { .. })) => damaged.push(ChunkRun { first: index, count: 1 }),
            Ok(Err(ReadError::Store(error))) => {
                tracing::warn!(%error, index, digest = %sending.digest, "chunk cannot be read");
            }
            Err(_) => break,
        }
    }
    chunks.finish().await?;
    Ok(damaged)
}

/// What the receiver wants, and how fast.
struct Pace {
    queue: VecDeque<ChunkIndex>,
    paused: bool,
    rate_bytes_per_second: Option<u64>,
    background: bool,
    not_before: Option<Instant>,
    listening: bool,
}

impl Pace {
    fn new(runs: &[ChunkRun]) -> Self {
        Self {
            queue: runs.iter().flat_map(|run| run.range()).collect(),
            paused: false,
            rate_bytes_per_second: None,
            background: false,
            not_before: None,
            listening: true,
        }
    }

    /// Takes in what the receiver said, waiting as long as there is nothing to send. False when it cancelled.
    async fn listen(&mut self, control: &mut dyn ControlReceiver) -> bool {
        loop {
            let wait = if self.paused {
                Some(PAUSE_MAX)
            } else if self.queue.is_empty() {
                Some(LINGER)
            } else {
                self.not_before.map(|at| at.saturating_duration_since(Instant::now()))
            };
            if !self.listening {
                if self.paused {
                    return false;
                }
                if let (Some(at), false) = (self.not_before, self.queue.is_empty()) {
                    sleep_until(at).await;
                }
                return true;
            }
            let Ok(heard) = timeout(wait.unwrap_or_default(), control.next_control()).await else {
                return !self.paused;
            };
            match heard {
                Ok(Some(signal)) => {
                    if !self.obey(signal) {
                        return false;
                    }
                }
                Ok(None) => self.listening = false,
                Err(_) => return false,
            }
        }
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
            Some(Signal::RateBitsPerSecond(rate)) => self.rate_bytes_per_second = (rate > 0).then_some(rate / 8),
            Some(Signal::Class(class)) => self.background = class == 2,
            Some(Signal::Progress(_)) | None => {}
        }
        true
    }

    /// Accounts for a chunk: when the next may go.
    fn sent(&mut self, began: Instant, bytes: u64) {
        let took = began.elapsed();
        let by_rate = self.rate_bytes_per_second.map(|rate| Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
        let by_class = self.background.then(|| took * (1 + BACKGROUND_SHARE));
        self.not_before = by_rate.into_iter().chain(by_class).max().map(|pause| began + pause);
    }
}
