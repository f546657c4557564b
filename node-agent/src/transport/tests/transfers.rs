//! Bulk content of both classes, with control signals and back-pressure.

use super::*;

use super::bulk::{BulkReceive, BulkSend, ChunkReceiver};
use proto::control::Signal;
use proto::{Control, TransferStart};

const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_BYTES_MAX: usize = 16 << 20;

fn chunk(index: u32) -> Bytes {
    let mut bytes = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().update(&index.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn control(signal: Signal) -> Control {
    Control { signal: Some(signal) }
}

async fn open(from: &TestNode, to: &TestNode, class: ContentClass) -> (BulkSend, BulkReceive) {
    let start = TransferStart { transfer: 5, digest: vec![1; 32].into(), traceparent: String::new() };
    let send = from.transport.bulk().open(to.address, class, start.clone()).await.unwrap();
    let receive = timeout(Duration::from_secs(10), to.transport.bulk().accept()).await.unwrap().unwrap();
    assert_eq!((receive.class, receive.address, &receive.start), (class, from.address, &start));
    assert_eq!(receive.from.role(), Some(from.transport.role()));
    assert_eq!(send.peer.role(), Some(to.transport.role()));
    (send, receive)
}

async fn read_all(chunks: &mut dyn ChunkReceiver) -> Vec<u32> {
    let mut indices = Vec::new();
    while let Some((index, bytes)) = chunks.next_chunk(CHUNK_BYTES_MAX).await.unwrap() {
        assert_eq!(bytes, chunk(index));
        indices.push(index);
    }
    indices
}

async fn content_arrives(from: &TestNode, to: &TestNode, class: ContentClass) {
    const CHUNKS: u32 = 64;
    let transfer_class = class.transfer_class();
    let (send, receive) = open(from, to, class).await;
    let BulkSend { mut chunks, control: mut heard, .. } = send;
    let BulkReceive { chunks: mut arriving, control: mut steering, .. } = receive;
    let sending = async {
        for index in 0..CHUNKS {
            chunks.send_chunks(vec![(index, chunk(index))]).await.unwrap();
        }
        chunks.finish().await.unwrap();
    };
    let receiving = async { read_all(&mut *arriving).await };
    let steering = async {
        steering.send_control(control(Signal::Pause(true))).await.unwrap();
        steering.send_control(control(Signal::Resume(true))).await.unwrap();
    };
    let hearing = async { (heard.next_control().await.unwrap(), heard.next_control().await.unwrap()) };
    let ((), indices, (), signals) = tokio::join!(sending, receiving, steering, hearing);
    assert_eq!(indices, Vec::from_iter(0..CHUNKS));
    assert_eq!(signals, (Some(control(Signal::Pause(true))), Some(control(Signal::Resume(true)))));

    let total = u64::from(CHUNKS) * CHUNK_BYTES as u64;
    assert!(from.bytes(transfer_class).0 > total && to.bytes(transfer_class).1 > total);
    assert_eq!((from.bytes(transfer_class).1, to.bytes(transfer_class).0), (0, 0));
    assert!(from.bytes(TransferClass::ContentControl).1 > 0 && to.bytes(TransferClass::ContentControl).0 > 0);
    assert_eq!(to.messages(transfer_class), (0, u64::from(CHUNKS)));
    assert_eq!(from.messages(TransferClass::ContentControl), (0, 2));
    assert_eq!(to.messages(TransferClass::ContentControl), (2, 0));
    let is_background = class == ContentClass::Background;
    assert_eq!((from.gave_way(), to.gave_way()), (is_background, is_background), "controllers follow the class");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_content_of_the_server_arrives() {
    let site = Site::new();
    let (from, to) = (site.server("127.77.40.1"), site.client("127.77.40.2", "central"));
    content_arrives(&from, &to, ContentClass::Foreground).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_content_of_a_client_arrives() {
    let site = Site::new();
    let (from, to) = (site.client("127.77.41.1", "store"), site.client("127.77.41.2", "store"));
    content_arrives(&from, &to, ContentClass::Foreground).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn background_content_of_a_client_arrives() {
    let site = Site::new();
    let (from, to) = (site.client("127.77.42.1", "central"), site.client("127.77.42.2", "store"));
    content_arrives(&from, &to, ContentClass::Background).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_both_classes_arrives_in_frames_of_an_ethernet() {
    let site = Site::new();
    let start = |address| TestNode::start_on_ethernet(address, site.client_identity(address, "store"));
    for (from, to, class) in [
        (start("127.77.49.1"), start("127.77.49.2"), ContentClass::Foreground),
        (start("127.77.49.3"), start("127.77.49.4"), ContentClass::Background),
    ] {
        content_arrives(&from, &to, class).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn background_content_of_the_server_is_refused() {
    let site = Site::new();
    let (server, client) = (site.server("127.77.43.1"), site.client("127.77.43.2", "store"));
    let opened = server.transport.bulk().open(client.address, ContentClass::Background, TransferStart::default()).await;
    assert!(opened.is_err(), "no row lets the server send content to 34750");
}

#[tokio::test(flavor = "multi_thread")]
async fn receiver_that_does_not_read_stops_the_holder_and_nothing_is_lost() {
    const CHUNKS: u32 = 40;
    for (prefix, class) in [("127.77.44", ContentClass::Foreground), ("127.77.45", ContentClass::Background)] {
        let site = Site::new();
        let from = site.client(&format!("{prefix}.1"), "store");
        let to = site.client(&format!("{prefix}.2"), "store");
        let (mut send, mut receive) = open(&from, &to, class).await;
        let sender = tokio::spawn(async move {
            for index in 0..CHUNKS {
                send.chunks.send_chunks(vec![(index, chunk(index))]).await.unwrap();
            }
            send.chunks.finish().await.unwrap();
        });
        // Long enough for everything, if nothing stopped it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let unread = from.messages(class.transfer_class()).0;
        assert!(unread < 16, "{unread} chunks of 1 MiB were taken without being read");
        assert_eq!(read_all(&mut *receive.chunks).await, Vec::from_iter(0..CHUNKS));
        sender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_transfer_does_not_stop_another_one_of_the_same_holder() {
    let site = Site::new();
    let (from, to) = (site.client("127.77.46.1", "store"), site.client("127.77.46.2", "store"));
    let (mut stuck, unread) = open(&from, &to, ContentClass::Foreground).await;
    let filling = tokio::spawn(async move {
        while stuck.chunks.send_chunks(vec![(0, chunk(0))]).await.is_ok() {}
        stuck
    });
    let (mut send, mut receive) = open(&from, &to, ContentClass::Foreground).await;
    let sending = async {
        for index in 0..20 {
            send.chunks.send_chunks(vec![(index, chunk(index))]).await.unwrap();
        }
        send.chunks.finish().await.unwrap();
    };
    let ((), indices) = tokio::join!(sending, read_all(&mut *receive.chunks));
    assert_eq!(indices.len(), 20);
    // The receiver gives the first one up, and the holder notices.
    drop(unread);
    filling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_that_the_holder_drops_is_an_error_for_the_receiver() {
    let site = Site::new();
    let (from, to) = (site.client("127.77.47.1", "store"), site.client("127.77.47.2", "store"));
    let (mut send, mut receive) = open(&from, &to, ContentClass::Foreground).await;
    send.chunks.send_chunks(vec![(0, chunk(0))]).await.unwrap();
    assert!(receive.chunks.next_chunk(CHUNK_BYTES_MAX).await.unwrap().is_some());
    drop(send);
    let ended = receive.chunks.next_chunk(CHUNK_BYTES_MAX).await;
    assert!(matches!(ended, Err(BulkError::Stopped(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_larger_than_allowed_is_refused_before_it_is_read() {
    let site = Site::new();
    let (from, to) = (site.client("127.77.48.1", "store"), site.client("127.77.48.2", "store"));
    let (mut send, mut receive) = open(&from, &to, ContentClass::Foreground).await;
    send.chunks.send_chunks(vec![(0, chunk(0))]).await.unwrap();
    let refused = receive.chunks.next_chunk(CHUNK_BYTES - 1).await;
    assert!(matches!(refused, Err(BulkError::Protocol { .. })), "{refused:?}");
}
