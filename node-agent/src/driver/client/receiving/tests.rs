//! What the holder hears of a transfer that is called off.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::NodeRef;
use tokio::sync::mpsc;

use super::*;
use crate::driver::client::fixture::TestNode;
use crate::transport::PeerIdentity;
use crate::transport::bulk::{BulkError, ChunkReceiver};

const TRANSFER: TransferId = 7;
/// Far more than ending a transfer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What reaches the holder, in this order.
#[derive(Debug, PartialEq)]
enum Heard {
    Signal(Option<Signal>),
    ControlEnded,
    Stopped,
}

/// Chunks of a holder that sends none.
struct NoChunks(mpsc::UnboundedSender<Heard>);

impl ChunkReceiver for NoChunks {
    fn next_chunk(&mut self, _: usize) -> BoxFuture<'_, Result<Option<(u32, Bytes)>, BulkError>> {
        std::future::pending().boxed()
    }
}

impl Drop for NoChunks {
    fn drop(&mut self) {
        drop(self.0.send(Heard::Stopped));
    }
}

/// Takes in signals, unless the holder does not listen.
struct Listening {
    heard: mpsc::UnboundedSender<Heard>,
    is_deaf: bool,
}

impl ControlSender for Listening {
    fn send_control(&mut self, control: proto::Control) -> BoxFuture<'_, Result<(), BulkError>> {
        if self.is_deaf {
            return std::future::pending().boxed();
        }
        drop(self.heard.send(Heard::Signal(control.signal)));
        async { Ok(()) }.boxed()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.heard.send(Heard::ControlEnded));
    }
}

/// A transfer that a holder opens.
fn opened(from: &NodeRef, digest: Digest, is_deaf: bool) -> (BulkReceive, mpsc::UnboundedReceiver<Heard>) {
    let (heard, hearing) = mpsc::unbounded_channel();
    let digest = Bytes::copy_from_slice(digest.as_bytes());
    let stream = BulkReceive {
        from: PeerIdentity::Client { office: from.office.clone(), node: from.name.clone() },
        address: from.address,
        class: transport::ContentClass::Foreground,
        start: proto::TransferStart { transfer: TRANSFER, digest, traceparent: String::new() },
        chunks: Box::new(NoChunks(heard.clone())),
        control: Box::new(Listening { heard, is_deaf }),
    };
    (stream, hearing)
}

/// Begins a transfer, calls it off, and waits for its end.
async fn called_off(number: u8, is_deaf: bool) -> mpsc::UnboundedReceiver<Heard> {
    let (mut node, expected, digest) = (TestNode::new(number), Expected::default(), Digest::of(b"package"));
    let (name, office) = (NodeName::new("store-2").unwrap(), OfficeName::new("store").unwrap());
    let from = NodeRef { name, office, address: node.context.settings.address };
    let (stream, hearing) = opened(&from, digest, is_deaf);
    let runs = [ChunkRun { first: 0, count: 2 }];
    expected.expect(TRANSFER, Peer::Node(from), ContentClass::Foreground, digest, None, &runs);
    let begun = expected.begin(&stream).unwrap();
    let receiving = tokio::spawn(receive(node.context.clone(), expected.clone(), stream, begun));
    assert!(matches!(node.events.recv().await, Some(Event::TransferStarted { transfer: TRANSFER })));
    expected.steer(TRANSFER, ControlSignal::Cancel);
    timeout(PATIENCE, receiving).await.expect("nobody is waited for").unwrap();
    assert!(node.events.try_recv().is_err(), "the machine called it off itself");
    hearing
}

#[tokio::test]
async fn holder_hears_that_a_transfer_is_called_off_before_it_is_stopped() {
    let mut hearing = called_off(11, false).await;
    let mut heard = Vec::new();
    while let Some(next) = hearing.recv().await {
        heard.push(next);
    }
    assert_eq!(heard, [Heard::Signal(Some(Signal::Cancel(true))), Heard::ControlEnded, Heard::Stopped]);
}

#[tokio::test]
async fn holder_that_takes_in_no_signals_is_stopped_all_the_same() {
    let mut hearing = called_off(12, true).await;
    let mut heard = Vec::new();
    while let Some(next) = hearing.recv().await {
        heard.push(next);
    }
    assert!(heard.contains(&Heard::Stopped) && heard.contains(&Heard::ControlEnded), "{heard:?}");
}
