//! Whole transfers from a real store to a receiver that only notes what it is sent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peerdist_core::chunk_set::ChunkRun;
use peerdist_core::message::TransferPace;
use peerdist_core::peer::ContentClass;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::control::Signal;
use tokio::sync::Semaphore;

use super::{Sending, send_chunks};
use crate::store::NodeStore;
use crate::store::tests::fixture::{Root, TestPackage, content, file};
use crate::transport::PeerIdentity;
use crate::transport::bulk::{
    BulkError, BulkReceive, BulkSend, BulkTransport, ChunkSender, ContentClass as RowGroup, ControlReceiver,
};

/// What arrived, and what the receiver says meanwhile.
#[derive(Clone)]
struct Receiver {
    arrived: Arc<Mutex<Vec<(u32, Bytes)>>>,
    says: Arc<Mutex<Vec<Signal>>>,
    /// Has a permit once everything that the receiver says was heard.
    heard: Arc<Semaphore>,
}

impl Receiver {
    fn saying(signals: Vec<Signal>) -> Self {
        let says = Arc::new(Mutex::new(signals));
        Self { arrived: Arc::default(), says, heard: Arc::new(Semaphore::new(0)) }
    }

    fn indices(&self) -> Vec<u32> {
        self.arrived.lock().unwrap().iter().map(|(index, _)| *index).collect()
    }
}

impl BulkTransport for Receiver {
    fn open(&self, _: IpAddr, _: RowGroup, _: proto::TransferStart) -> BoxFuture<'_, Result<BulkSend, BulkError>> {
        let (chunks, control) = (Box::new(self.clone()), Box::new(self.clone()));
        async move { Ok(BulkSend { peer: PeerIdentity::Server, chunks, control }) }.boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Result<BulkReceive, BulkError>> {
        unreachable!("it only receives what is sent to it")
    }
}

impl ChunkSender for Receiver {
    fn send_chunks(&mut self, chunks: Vec<(u32, Bytes)>) -> BoxFuture<'_, Result<(), BulkError>> {
        async move {
            drop(self.heard.acquire().await);
            self.arrived.lock().unwrap().extend(chunks);
            Ok(())
        }
        .boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BulkError>> {
        async { Ok(()) }.boxed()
    }
}

impl ControlReceiver for Receiver {
    fn next_control(&mut self) -> BoxFuture<'_, Result<Option<proto::Control>, BulkError>> {
        let next = self.says.lock().unwrap().pop();
        if next.is_none() {
            self.heard.add_permits(1);
        }
        async move { Ok(next.map(|signal| proto::Control { signal: Some(signal) })) }.boxed()
    }
}

/// A store with one package of many batches.
fn stored() -> (Root, TestPackage, Arc<NodeStore>) {
    let (root, package) = (Root::new(), TestPackage::new("1", vec![file("data", content(1, 4 << 20))]));
    let store = root.open();
    package.hold(&store);
    (root, package, Arc::new(store))
}

fn sending(package: &TestPackage, runs: Vec<ChunkRun>) -> Sending {
    Sending {
        to: IpAddr::V4(Ipv4Addr::LOCALHOST),
        class: ContentClass::Foreground,
        transfer: 1,
        digest: package.digest(),
        runs,
        pace: TransferPace::default(),
    }
}

#[tokio::test]
async fn what_was_asked_for_is_sent_and_then_what_is_wanted_more() {
    let (_root, package, store) = stored();
    let more = proto::MoreRuns { runs: vec![proto::Run { first: 9, count: 1 }] };
    let receiver = Receiver::saying(vec![Signal::Want(more)]);
    let runs = vec![ChunkRun { first: 5, count: 2 }, ChunkRun { first: 0, count: 2 }];
    assert_eq!(send_chunks(&receiver, &store, sending(&package, runs)).await.unwrap(), []);
    assert_eq!(receiver.indices(), [5, 6, 0, 1, 9]);
    for (index, bytes) in receiver.arrived.lock().unwrap().iter() {
        assert_eq!(*bytes, package.chunks[*index as usize]);
    }
}

#[tokio::test]
async fn nothing_is_sent_after_a_cancellation_was_heard() {
    let (_root, package, store) = stored();
    let receiver = Receiver::saying(vec![Signal::Cancel(true)]);
    let all = vec![ChunkRun { first: 0, count: package.count() }];
    assert_eq!(send_chunks(&receiver, &store, sending(&package, all)).await.unwrap(), []);
    let sent = receiver.indices().len();
    assert!(sent <= super::BATCH_CHUNKS_MAX && sent < package.count() as usize, "{sent} chunks were sent");
}

#[tokio::test]
async fn damaged_chunks_are_told_and_not_sent() {
    let (root, package, store) = stored();
    store.publish(package.digest()).unwrap();
    drop(store);
    let place = root.open().published_path(package.root.package()).join("data");
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&place, vec![0; 4 << 20]).unwrap();

    let receiver = Receiver::saying(Vec::new());
    let runs = vec![ChunkRun { first: 1, count: 1 }, ChunkRun { first: 3, count: 1 }];
    let damaged = send_chunks(&receiver, &Arc::new(root.open()), sending(&package, runs.clone())).await.unwrap();
    assert_eq!((damaged, receiver.indices()), (runs, vec![]));
}
