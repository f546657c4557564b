//! Sends the chunks of one transfer to a receiver that asked for them. [`pace`] obeys its control signals.

mod pace;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use peerdist_core::chunk_set::{ChunkIndex, ChunkRun};
use peerdist_core::digest::Digest;
use peerdist_core::message::{TransferId, TransferPace};
use peerdist_core::peer::ContentClass;
use peerdist_core::wire::proto;
use peerdist_telemetry::current_traceparent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::pace::{PAUSE_MAX, Pace};
use super::messages::content_on_ports;
use crate::store::{NodeStore, ReadError};
use crate::transport::BulkSend;
use crate::transport::bulk::{BulkError, BulkTransport, ControlReceiver};

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
    bulk: &dyn BulkTransport,
    store: &Arc<NodeStore>,
    sending: Sending,
) -> Result<Vec<ChunkRun>, BulkError> {
    let start = proto::TransferStart {
        transfer: sending.transfer,
        digest: Bytes::copy_from_slice(sending.digest.as_bytes()),
        traceparent: current_traceparent(),
    };
    let BulkSend { mut chunks, control, .. } = bulk.open(sending.to, content_on_ports(sending.class), start).await?;
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
                // Whoever ordered this believes that it is here.
                Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => {
                    damaged.push(ChunkRun { first: index, count: 1 });
                }
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
