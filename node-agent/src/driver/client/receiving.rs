//! Incoming transfers: only what was asked for is taken, every chunk is verified before it counts, and the holder is
//! steered while it sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun};
use peerdist_core::client::{ControlSignal, Event};
use peerdist_core::digest::Digest;
use peerdist_core::message::{TransferId, UnservedReason};
use peerdist_core::peer::{ContentClass, Peer};
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::node::Context;
use crate::driver::messages;
use crate::metrics::{ChunkRejection, ContentLink, ContentSource};
use crate::store::{ChunkFault, StoreError};
use crate::telemetry::with_parent;
use crate::transport::bulk::{ChunkReceiver, ControlSender};
use crate::transport::{self, BulkReceive};

/// Largest chunk that a node takes in.
const CHUNK_BYTES_MAX: usize = 16 << 20;
/// Most control signals that wait for a holder.
const SIGNALS_MAX: usize = 64;

/// The transfers that this node asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected(Arc<Mutex<BTreeMap<TransferId, ExpectedTransfer>>>);

#[derive(Debug)]
struct ExpectedTransfer {
    from: Peer,
    class: ContentClass,
    digest: Digest,
    wanted: std::collections::BTreeSet<ChunkIndex>,
    /// Signals before the holder opened its stream wait here.
    early: Vec<ControlSignal>,
    signals: Option<mpsc::Sender<ControlSignal>>,
    cancelled: CancellationToken,
}

impl Expected {
    pub(super) fn expect(
        &self,
        transfer: TransferId,
        from: Peer,
        class: ContentClass,
        digest: Digest,
        runs: &[ChunkRun],
    ) {
        let mut transfers = self.lock();
        let expected = transfers.entry(transfer).or_insert_with(|| ExpectedTransfer {
            from,
            class,
            digest,
            wanted: std::collections::BTreeSet::new(),
            early: Vec::new(),
            signals: None,
            cancelled: CancellationToken::new(),
        });
        expected.wanted.extend(runs.iter().flat_map(|run| run.range()));
    }

    pub(super) fn steer(&self, transfer: TransferId, signal: ControlSignal) {
        let mut transfers = self.lock();
        if signal == ControlSignal::Cancel {
            if let Some(expected) = transfers.remove(&transfer) {
                expected.cancelled.cancel();
            }
            return;
        }
        let Some(expected) = transfers.get_mut(&transfer) else { return };
        match &expected.signals {
            Some(signals) => drop(signals.try_send(signal)),
            None if expected.early.len() < SIGNALS_MAX => expected.early.push(signal),
            None => {}
        }
    }

    fn begin(&self, start: &BulkReceive) -> Option<Begun> {
        let from = messages::peer_of(&start.from, start.address)?;
        let mut transfers = self.lock();
        let expected = transfers.get_mut(&start.start.transfer)?;
        let class = match start.class {
            transport::ContentClass::Foreground => ContentClass::Foreground,
            transport::ContentClass::Background => ContentClass::Background,
        };
        let fits = expected.from == from
            && expected.class == class
            && expected.signals.is_none()
            && Digest::try_from(&start.start.digest[..]) == Ok(expected.digest);
        if !fits {
            return None;
        }
        let (sender, signals) = mpsc::channel(SIGNALS_MAX);
        expected.early.drain(..).for_each(|signal| drop(sender.try_send(signal)));
        expected.signals = Some(sender);
        Some(Begun { digest: expected.digest, class, from, signals, cancelled: expected.cancelled.clone() })
    }

    /// Strikes the chunk out. False when it was not asked for.
    fn take(&self, transfer: TransferId, index: ChunkIndex) -> bool {
        self.lock().get_mut(&transfer).is_some_and(|expected| expected.wanted.remove(&index))
    }

    fn end(&self, transfer: TransferId) {
        self.lock().remove(&transfer);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TransferId, ExpectedTransfer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Begun {
    digest: Digest,
    class: ContentClass,
    from: Peer,
    signals: mpsc::Receiver<ControlSignal>,
    cancelled: CancellationToken,
}

/// Takes in transfers until the node stops.
pub(super) async fn accept(context: Context, expected: Expected, stop: CancellationToken) {
    loop {
        let transfer = tokio::select! {
            () = stop.cancelled() => return,
            accepted = context.transport.bulk().accept() => match accepted {
                Ok(transfer) => transfer,
                Err(error) => {
                    tracing::debug!(%error, "no more transfers");
                    return;
                }
            },
        };
        let Some(begun) = expected.begin(&transfer) else {
            tracing::debug!(address = %transfer.address, transfer = transfer.start.transfer, "transfer was not asked for");
            continue;
        };
        let span = tracing::info_span!("transfer", from = %transfer.address, digest = %begun.digest);
        with_parent(&span, &transfer.start.traceparent);
        tokio::spawn(receive(context.clone(), expected.clone(), transfer, begun).instrument(span));
    }
}

async fn receive(context: Context, expected: Expected, stream: BulkReceive, begun: Begun) {
    let Begun { digest, class, from, signals, cancelled } = begun;
    let transfer = stream.start.transfer;
    context.tell(Event::TransferStarted { transfer }).await;
    let steering = tokio::spawn(steer(stream.control, signals));
    let receiver = Receiver { context: &context, expected: &expected, transfer, digest, class, from };
    let ended = tokio::select! {
        () = cancelled.cancelled() => None,
        ended = receiver.receive_all(stream.chunks) => ended,
    };
    steering.abort();
    expected.end(transfer);
    if let Some(failure) = ended {
        context.tell(Event::TransferEnded { transfer, failure }).await;
    }
}

struct Receiver<'a> {
    context: &'a Context,
    expected: &'a Expected,
    transfer: TransferId,
    digest: Digest,
    class: ContentClass,
    from: Peer,
}

impl Receiver<'_> {
    /// Takes in chunks until the end. `None` when the machine has been told already.
    async fn receive_all(&self, mut chunks: Box<dyn ChunkReceiver>) -> Option<Option<UnservedReason>> {
        loop {
            let began = Instant::now();
            let next = chunks.next_chunk(CHUNK_BYTES_MAX).await;
            self.context.progress.waited(began.elapsed());
            match next {
                Ok(Some((index, bytes))) => {
                    if !self.take_chunk(index, bytes).await {
                        return None;
                    }
                }
                Ok(None) => return Some(None),
                Err(error) => {
                    tracing::debug!(from = %self.from, %error, "transfer broke off");
                    return Some(Some(UnservedReason::Unreachable));
                }
            }
        }
    }

    /// Verifies and stores one chunk. False when the transfer is over.
    async fn take_chunk(&self, index: ChunkIndex, bytes: bytes::Bytes) -> bool {
        let length = bytes.len() as u64;
        let link = match self.class {
            ContentClass::Foreground => ContentLink::Lan,
            ContentClass::Background => ContentLink::Wan,
        };
        let (context, transfer) = (self.context, self.transfer);
        context.metrics.content_payload_received(link).inc_by(length);
        if !self.expected.take(transfer, index) {
            return self.reject(ChunkRejection::NotRequested, length).await;
        }
        let (store, digest) = (context.store.clone(), self.digest);
        let began = Instant::now();
        let written = tokio::task::spawn_blocking(move || store.write_chunk(digest, index, &bytes)).await;
        context.progress.wrote(began.elapsed());
        match written {
            Ok(Ok(outcome)) => {
                if outcome.needs_flush {
                    context.flush.notify_one();
                }
                let source = match (&self.from, self.class) {
                    (Peer::Server, _) => ContentSource::Origin,
                    (_, ContentClass::Background) => ContentSource::Parent,
                    (_, ContentClass::Foreground) => ContentSource::Office,
                };
                context.metrics.content_bytes(source).inc_by(length);
                context.tell(Event::ChunkStored { transfer, index }).await;
                true
            }
            Ok(Err(StoreError::ChunkRefused { fault, .. })) => {
                let reason = match fault {
                    ChunkFault::Digest => ChunkRejection::DigestMismatch,
                    ChunkFault::Length => ChunkRejection::WrongLength,
                    ChunkFault::UnknownIndex => ChunkRejection::NotRequested,
                };
                self.reject(reason, length).await
            }
            Ok(Err(error)) => {
                tracing::warn!(node = %context.settings.node, %error, "chunk cannot be stored");
                let (reason, message) = (error.reason().to_owned(), error.to_string());
                context.tell(Event::StoreFailed { digest, reason, message }).await;
                false
            }
            Err(_) => false,
        }
    }

    async fn reject(&self, reason: ChunkRejection, bytes: u64) -> bool {
        tracing::warn!(node = %self.context.settings.node, from = %self.from, %reason, "chunk refused, peer dropped");
        self.context.metrics.chunks_rejected(reason).inc();
        self.context.tell(Event::ChunkRejected { transfer: self.transfer, bytes }).await;
        false
    }
}

/// Passes signals on to the holder while the transfer runs.
async fn steer(mut control: Box<dyn ControlSender>, mut signals: mpsc::Receiver<ControlSignal>) {
    while let Some(signal) = signals.recv().await {
        if control.send_control(encode(signal)).await.is_err() {
            return;
        }
    }
}

fn encode(signal: ControlSignal) -> proto::Control {
    let signal = match signal {
        ControlSignal::Pause => Signal::Pause(true),
        ControlSignal::Resume => Signal::Resume(true),
        ControlSignal::Cancel => Signal::Cancel(true),
        ControlSignal::Want(runs) => Signal::Want(proto::MoreRuns {
            runs: runs.iter().map(|run| proto::Run { first: run.first, count: run.count }).collect(),
        }),
        ControlSignal::Rate(bits_per_second) => Signal::RateBitsPerSecond(bits_per_second),
        ControlSignal::Class(ContentClass::Foreground) => Signal::Class(1),
        ControlSignal::Class(ContentClass::Background) => Signal::Class(2),
    };
    proto::Control { signal: Some(signal) }
}
