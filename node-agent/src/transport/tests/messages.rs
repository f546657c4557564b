//! Requests and replies of each class, along their rows.

use super::*;

use peerdist_core::wire::{LARGE_MESSAGE_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX};

/// A message of about `bytes` bytes.
fn inventory(bytes: usize) -> Envelope {
    let package = proto::PackageInventory { available: vec![7; bytes].into(), ..Default::default() };
    envelope(envelope::Message::Inventory(proto::Inventory { packages: vec![package], ..Default::default() }))
}

async fn exchange(class: MessageClass, from: &TestNode, to: &TestNode, bytes: usize) {
    let asking = from.transport.request(to.address, to.transport.role(), class, inventory(bytes));
    let (reply, message) = tokio::join!(asking, async {
        let message = to.transport.next_message().await.unwrap();
        assert_eq!(message.class, class);
        assert_eq!(message.address, from.address);
        assert_eq!(message.from.role(), Some(from.transport.role()));
        message.reply.accept();
        message.envelope
    });
    assert_eq!(reply.unwrap(), accepted());
    assert_eq!(message, inventory(bytes));
}

fn assert_only(nodes: &[&TestNode], class: TransferClass) {
    for node in nodes {
        for other in TransferClass::ALL {
            let (sent, received) = node.bytes(other);
            assert_eq!((sent > 0, received > 0), (other == class, other == class), "{other}: {sent} {received}");
        }
    }
}

async fn rows_carry(prefix: &str, class: MessageClass, transfer_class: TransferClass, bytes: usize) {
    let site = Site::new();
    let server = site.server(&format!("{prefix}.1"));
    let first = site.client(&format!("{prefix}.2"), "store");
    let second = site.client(&format!("{prefix}.3"), "store");
    for (from, to) in [(&first, &server), (&server, &first), (&first, &second), (&second, &first)] {
        exchange(class, from, to, bytes).await;
    }
    assert_only(&[&server, &first, &second], transfer_class);
    assert_eq!(server.messages(transfer_class), (2, 2), "a request and a reply each way");
    assert_eq!(first.messages(transfer_class), (4, 4));
    let gave_way = [&server, &first, &second].map(TestNode::gave_way);
    assert_eq!(gave_way, [class == MessageClass::Background; 3], "controllers follow the class");
    for node in [server, first, second] {
        node.transport.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_messages_use_their_rows_only() {
    rows_carry("127.77.1", MessageClass::Small, TransferClass::SmallMessage, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_messages_use_their_rows_only() {
    rows_carry("127.77.2", MessageClass::Foreground, TransferClass::ForegroundMessage, 3_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn background_messages_use_their_rows_only() {
    rows_carry("127.77.3", MessageClass::Background, TransferClass::BackgroundMessage, 3_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_larger_than_its_class_is_not_sent() {
    let site = Site::new();
    let client = site.client("127.77.4.2", "store");
    for (class, bytes) in
        [(MessageClass::Small, SMALL_MESSAGE_BYTES_MAX), (MessageClass::Background, LARGE_MESSAGE_BYTES_MAX)]
    {
        let refused = client.transport.request(ip("127.77.4.1"), Role::Server, class, inventory(bytes)).await;
        assert!(matches!(refused, Err(RequestError::Protocol { .. })), "{refused:?}");
    }
    assert_only(&[], TransferClass::SmallMessage);
    assert_eq!(client.messages(TransferClass::SmallMessage), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_requests_at_once_share_one_connection_and_all_are_answered() {
    let site = Site::new();
    let (server, client) = (site.server("127.77.5.1"), site.client("127.77.5.2", "store"));
    server.accept_messages();
    let requests =
        (0..100).map(|_| client.transport.request(server.address, Role::Server, MessageClass::Small, inventory(100)));
    for reply in futures_util::future::join_all(requests).await {
        assert_eq!(reply.unwrap(), accepted());
    }
    assert_eq!(server.transport.endpoints.0.iter().map(Endpoint::open_connections).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_and_missing_reply_are_errors() {
    let site = Site::new();
    let (server, client) = (site.server("127.77.6.1"), site.client("127.77.6.2", "store"));
    let ask = || client.transport.request(server.address, Role::Server, MessageClass::Small, inventory(1));
    let (refused, ()) = tokio::join!(ask(), async {
        server.transport.next_message().await.unwrap().reply.refuse("busy", "come back later");
    });
    assert!(matches!(refused, Err(RequestError::Refused { ref reason, .. }) if reason == "busy"), "{refused:?}");
    let (unanswered, ()) = tokio::join!(ask(), async {
        drop(server.transport.next_message().await.unwrap());
    });
    assert!(matches!(unanswered, Err(RequestError::Protocol { .. })), "{unanswered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_peer_is_unreachable_and_slow_peer_times_out() {
    let site = Site::new();
    let client = site.client("127.77.7.2", "store");
    let ask = |to| client.transport.request(ip(to), Role::Server, MessageClass::Small, inventory(1));
    let absent = ask("127.77.7.9").await;
    assert!(matches!(absent, Err(RequestError::Unreachable { .. })), "{absent:?}");
    let server = site.server("127.77.7.1");
    let slow = ask("127.77.7.1").await;
    assert!(matches!(slow, Err(RequestError::TimedOut { .. })), "{slow:?}");
    drop(server);
}

/// The server's process is killed and started again: the client's connection is unknown to the new one.
#[test]
fn request_reaches_a_peer_that_was_killed_and_started_again() {
    let site = Site::new();
    let own = tokio::runtime::Runtime::new().unwrap();
    let killed = tokio::runtime::Runtime::new().unwrap();
    let server = killed.block_on(async { site.server("127.77.8.1") });
    killed.block_on(async { server.accept_messages() });
    let client = own.block_on(async { site.client("127.77.8.2", "store") });
    let ask = || client.transport.request(ip("127.77.8.1"), Role::Server, MessageClass::Small, inventory(1));
    own.block_on(ask()).unwrap();
    // The sockets close without a word to the peers, as at kill -9.
    killed.shutdown_timeout(Duration::from_secs(5));
    drop(server);
    let again = own.block_on(async {
        let server = site.server("127.77.8.1");
        server.accept_messages();
        let reply = ask().await;
        (server, reply)
    });
    assert_eq!(again.1.unwrap(), accepted());
    own.shutdown_background();
}
