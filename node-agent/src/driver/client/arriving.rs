//! The chunks of one incoming transfer: verified and written in batches, while the next ones arrive.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::chunking::CHUNK_BYTES_MAX;
use peerdist_core::client::Event;
use peerdist_core::digest::Digest;
use peerdist_core::message::{TransferId, UnservedReason};
use peerdist_core::peer::{ContentClass, Peer};
use peerdist_core::ports::TransferClass;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node::Context;
use super::receiving::Expected;
use crate::driver::progress::NodeProgress;
use crate::metrics::{ChunkRejection, ContentLink, ContentSource, TransferErrorReason};
use crate::store::{ChunkFault, ChunkOutcome, NodeStore, StoreError};
use crate::transport::bulk::{BulkError, ChunkReceiver};

/// Chunks wait for the write before them until they are so many bytes; then the transfer waits.
const WAITING_BYTES_MAX: usize = 512 << 10;

/// One transfer on its way in.
pub(super) struct Arriving<'a> {
    pub(super) context: &'a Context,
    pub(super) expected: &'a Expected,
    pub(super) transfer: TransferId,
    pub(super) digest: Digest,
    pub(super) class: ContentClass,
    pub(super) from: Peer,
    /// The transfer is not expected any more, and what still arrives of it is nobody's fault.
    pub(super) cancelled: &'a CancellationToken,
}

/// The transfer is over, and the machine knows why.
struct Over;

/// A chunk on its arrival, or why none comes any more.
type Arrived = Result<(ChunkIndex, Bytes), BulkError>;

/// A chunk and what became of it.
type Written = (ChunkIndex, u64, Result<ChunkOutcome, StoreError>);

impl Arriving<'_> {
    /// Takes in chunks until the end. `None` when the machine has been told already.
    pub(super) async fn take_all(&self, chunks: &mut BoxStream<'static, Arrived>) -> Option<Option<UnservedReason>> {
        let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
        let mut writing: Option<JoinHandle<Vec<Written>>> = None;
        let mut ended = None;
        loop {
            if writing.is_none() && !waiting.is_empty() {
                waiting_bytes = 0;
                writing = Some(self.write(std::mem::take(&mut waiting)));
            }
            if writing.is_none() && ended.is_some() {
                return ended;
            }
            tokio::select! {
                written = async { writing.as_mut().expect("asked only while something is written").await }, if writing.is_some() => {
                    writing = None;
                    // A write that never returned says nothing of the holder, but nothing more can come of this
                    // transfer.
                    let Ok(written) = written else { return Some(Some(UnservedReason::Unreachable)) };
                    if self.account(written).await.is_err() {
                        return None;
                    }
                }
                arrived = chunks.next(), if ended.is_none() && waiting_bytes < WAITING_BYTES_MAX => match arrived {
                    Some(Ok((index, bytes))) => {
                        if self.admit(index, bytes.len() as u64).await.is_err() {
                            return None;
                        }
                        waiting_bytes += bytes.len();
                        waiting.push((index, bytes));
                    }
                    Some(Err(error)) => {
                        tracing::debug!(from = %self.from, %error, "transfer broke off");
                        ended = Some(Some(UnservedReason::Unreachable));
                    }
                    None => ended = Some(None),
                },
            }
        }
    }

    /// Only what was asked for is taken.
    async fn admit(&self, index: ChunkIndex, bytes: u64) -> Result<(), Over> {
        let link = match self.class {
            ContentClass::Foreground => ContentLink::Lan,
            ContentClass::Background => ContentLink::Wan,
        };
        self.context.metrics.content_payload_received(link).inc_by(bytes);
        if self.expected.take(self.transfer, index) {
            Ok(())
        } else if self.cancelled.is_cancelled() {
            Err(Over)
        } else {
            Err(self.reject(ChunkRejection::NotRequested, bytes).await)
        }
    }

    /// Verifies and writes on a thread that may wait; handing over each small chunk would cost more than writing it.
    fn write(&self, chunks: Vec<(ChunkIndex, Bytes)>) -> JoinHandle<Vec<Written>> {
        let (store, digest, progress) = (self.context.store.clone(), self.digest, self.context.progress.clone());
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let written = write_until_one_fails(&store, digest, chunks);
            let verifying = time_verifying(&written);
            progress.verified(verifying);
            progress.wrote(began.elapsed().saturating_sub(verifying));
            written
        })
    }

    async fn account(&self, written: Vec<Written>) -> Result<(), Over> {
        for (index, bytes, outcome) in written {
            match outcome {
                Ok(outcome) => self.stored(index, bytes, outcome).await,
                Err(error) => return Err(self.refused(error, bytes).await),
            }
        }
        Ok(())
    }

    async fn stored(&self, index: ChunkIndex, bytes: u64, outcome: ChunkOutcome) {
        if outcome.needs_flush {
            self.context.flush.notify_one();
        }
        let source = match (&self.from, self.class) {
            (Peer::Server, _) => ContentSource::Origin,
            (_, ContentClass::Background) => ContentSource::Parent,
            (_, ContentClass::Foreground) => ContentSource::Office,
        };
        if outcome.new {
            self.context.metrics.content_bytes(source).inc_by(bytes);
        } else {
            self.context.metrics.chunks_rejected(ChunkRejection::Duplicate).inc();
        }
        self.context.tell(Event::ChunkStored { transfer: self.transfer, index }).await;
        if !outcome.lost.is_empty() {
            self.context.tell(Event::ChunksLost { digest: self.digest, runs: outcome.lost }).await;
        }
    }

    async fn refused(&self, error: StoreError, bytes: u64) -> Over {
        match rejection(&error) {
            Some(ChunkRejection::UnknownPackage) => {
                self.context.metrics.chunks_rejected(ChunkRejection::UnknownPackage).inc();
            }
            Some(reason) => return self.reject(reason, bytes).await,
            None => self.count_local_error(),
        }
        tracing::warn!(node = %self.context.settings.node, %error, "chunk cannot be stored");
        let (reason, message) = (error.reason().to_owned(), error.to_string());
        self.context.tell(Event::StoreFailed { digest: self.digest, reason, message }).await;
        Over
    }

    fn count_local_error(&self) {
        let class = match self.class {
            ContentClass::Foreground => TransferClass::ForegroundContent,
            ContentClass::Background => TransferClass::BackgroundContent,
        };
        self.context.metrics.class_counters().add_error(class, TransferErrorReason::Local);
    }

    async fn reject(&self, reason: ChunkRejection, bytes: u64) -> Over {
        tracing::warn!(node = %self.context.settings.node, from = %self.from, %reason, "chunk refused, peer dropped");
        self.context.metrics.chunks_rejected(reason).inc();
        self.context.tell(Event::ChunkRejected { transfer: self.transfer, bytes }).await;
        Over
    }
}

/// Why the chunk is thrown away; `None` when the store failed. That its package was deleted while it was on its way is
/// not the holder's fault.
fn rejection(error: &StoreError) -> Option<ChunkRejection> {
    match error {
        StoreError::ChunkRefused { fault: ChunkFault::Digest, .. } => Some(ChunkRejection::DigestMismatch),
        StoreError::ChunkRefused { fault: ChunkFault::Length, .. } => Some(ChunkRejection::WrongLength),
        StoreError::ChunkRefused { fault: ChunkFault::UnknownIndex, .. } => Some(ChunkRejection::NotRequested),
        StoreError::UnknownPackage(_) | StoreError::BeingRemoved(_) | StoreError::NotPrepared(_) => {
            Some(ChunkRejection::UnknownPackage)
        }
        _ => None,
    }
}

/// The chunks as a stream, which keeps a chunk that has arrived in part while others are written.
pub(super) fn waited_for(chunks: Box<dyn ChunkReceiver>, progress: NodeProgress) -> BoxStream<'static, Arrived> {
    stream::unfold((chunks, progress), |(mut chunks, progress)| async move {
        let began = Instant::now();
        let next = chunks.next_chunk(CHUNK_BYTES_MAX as usize).await;
        progress.waited(began.elapsed());
        Some((next.transpose()?, (chunks, progress)))
    })
    .boxed()
}

fn write_until_one_fails(store: &NodeStore, digest: Digest, chunks: Vec<(ChunkIndex, Bytes)>) -> Vec<Written> {
    let mut written = Vec::with_capacity(chunks.len());
    for (index, bytes) in chunks {
        let outcome = store.write_chunk(digest, index, &bytes);
        let failed = outcome.is_err();
        written.push((index, bytes.len() as u64, outcome));
        if failed {
            break;
        }
    }
    written
}

/// The rest of the time that a batch takes is the disk's.
fn time_verifying(written: &[Written]) -> Duration {
    written.iter().filter_map(|(_, _, outcome)| Some(outcome.as_ref().ok()?.verifying)).sum()
}

#[cfg(test)]
mod tests;
