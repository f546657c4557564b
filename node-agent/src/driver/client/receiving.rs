//! Incoming transfers: only those that were asked for, and the holder is steered while it sends. What becomes of their
//! chunks is in `arriving`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun};
use peerdist_core::client::{ControlSignal, Event};
use peerdist_core::digest::Digest;
use peerdist_core::message::TransferId;
use peerdist_core::names::PackageKey;
use peerdist_core::peer::{ContentClass, Peer};
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use peerdist_telemetry::{join_package_trace_of_sender, with_parent};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::arriving::{Arriving, waited_for};
use super::node::Context;
use super::signals::Signals;
use crate::driver::messages;
use crate::transport::bulk::ControlSender;
use crate::transport::{self, BulkReceive};

/// Longest time for the last word to a holder. One that is gone, or takes in no signals, notices that its stream is
/// stopped or that nobody answers.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// The transfers that this node asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected(Arc<Mutex<BTreeMap<TransferId, ExpectedTransfer>>>);

#[derive(Debug)]
struct ExpectedTransfer {
    from: Peer,
    class: ContentClass,
    digest: Digest,
    package: Option<PackageKey>,
    wanted: std::collections::BTreeSet<ChunkIndex>,
    /// Signals from before the holder opened its stream wait here too.
    signals: Arc<Signals>,
    begun: bool,
    cancelled: CancellationToken,
}

impl Expected {
    pub(super) fn expect(
        &self,
        transfer: TransferId,
        from: Peer,
        class: ContentClass,
        digest: Digest,
        package: Option<PackageKey>,
        runs: &[ChunkRun],
    ) {
        let mut transfers = self.lock();
        let expected = transfers.entry(transfer).or_insert_with(|| ExpectedTransfer {
            from,
            class,
            digest,
            package,
            wanted: std::collections::BTreeSet::new(),
            signals: Arc::default(),
            begun: false,
            cancelled: CancellationToken::new(),
        });
        expected.wanted.extend(runs.iter().flat_map(|run| run.range()));
    }

    pub(super) fn steer(&self, transfer: TransferId, signal: ControlSignal) {
        let mut transfers = self.lock();
        if signal == ControlSignal::Cancel {
            if let Some(expected) = transfers.remove(&transfer) {
                // Under the lock, so that whoever finds the transfer gone knows why.
                expected.cancelled.cancel();
            }
        } else if let Some(expected) = transfers.get(&transfer) {
            expected.signals.say(signal);
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
            && !expected.begun
            && Digest::try_from(&start.start.digest[..]) == Ok(expected.digest);
        if !fits {
            return None;
        }
        expected.begun = true;
        let signals = expected.signals.clone();
        let (package, cancelled) = (expected.package.clone(), expected.cancelled.clone());
        Some(Begun { digest: expected.digest, package, class, from, signals, cancelled })
    }

    /// Strikes the chunk out. False when it was not asked for.
    pub(super) fn take(&self, transfer: TransferId, index: ChunkIndex) -> bool {
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
    package: Option<PackageKey>,
    class: ContentClass,
    from: Peer,
    signals: Arc<Signals>,
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
        let span = span_of(&context, &transfer, begun.package.as_ref());
        tokio::spawn(receive(context.clone(), expected.clone(), transfer, begun).instrument(span));
    }
}

fn span_of(context: &Context, transfer: &BulkReceive, package: Option<&PackageKey>) -> Span {
    let (node, from) = (&context.settings.node, transfer.address);
    let span = tracing::info_span!("transfer", %node, %from, package = package.map(display));
    match package {
        Some(package) => join_package_trace_of_sender(&span, package, &transfer.start.traceparent),
        None => with_parent(&span, &transfer.start.traceparent),
    }
    span
}

async fn receive(context: Context, expected: Expected, stream: BulkReceive, begun: Begun) {
    let Begun { digest, package: _, class, from, signals, cancelled } = begun;
    let transfer = stream.start.transfer;
    context.tell(Event::TransferStarted { transfer }).await;
    let mut steering = tokio::spawn(steer(stream.control, signals.clone()));
    let mut chunks = waited_for(stream.chunks, context.progress.clone());
    let arriving =
        Arriving { context: &context, expected: &expected, transfer, digest, class, from, cancelled: &cancelled };
    let ended = tokio::select! {
        () = cancelled.cancelled() => None,
        ended = arriving.take_all(&mut chunks) => ended,
    };
    expected.end(transfer);
    if ended.is_none() && cancelled.is_cancelled() {
        call_off(&signals, &mut steering).await;
    }
    steering.abort();
    // Only now, so that the holder hears why before its stream is stopped.
    drop(chunks);
    if let Some(failure) = ended {
        context.tell(Event::TransferEnded { transfer, failure }).await;
    }
}

/// Tells the holder that nothing more of the transfer is wanted, as far as it listens.
async fn call_off(signals: &Signals, steering: &mut JoinHandle<()>) {
    signals.say(ControlSignal::Cancel);
    drop(timeout(LAST_WORD_TIMEOUT, steering).await);
}

/// Passes signals on to the holder while the transfer runs. After a cancellation there is nothing to say: the control
/// stream ends with it.
async fn steer(mut control: Box<dyn ControlSender>, signals: Arc<Signals>) {
    loop {
        for signal in signals.next().await {
            let is_last = signal == ControlSignal::Cancel;
            if control.send_control(encode(signal)).await.is_err() || is_last {
                return;
            }
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

#[cfg(test)]
mod tests;
