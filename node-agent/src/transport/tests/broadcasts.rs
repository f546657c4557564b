//! Broadcasts on loopback: heard by all of the office, once.

use super::*;

use peerdist_core::broadcast::{OfficeKey, seal};
use peerdist_core::ports::CLIENT_BROADCAST;
use proto::broadcast::Request;

fn beacon(sender: &str, revision: u64) -> proto::Broadcast {
    let node = proto::Node { name: "asker".into(), office: "store".into(), address: here(sender) };
    let beacon = proto::Beacon { term: 1, plan_revision: revision };
    proto::Broadcast { sender: Some(node), boot_id: 99, counter: 1, request: Some(Request::Beacon(beacon)) }
}

async fn hear(node: &TestNode) -> (IpAddr, u64) {
    let heard = node.transport.broadcaster().unwrap().next_broadcast();
    let (from, message) = timeout(Duration::from_secs(10), heard).await.unwrap();
    match message.request {
        Some(Request::Beacon(beacon)) => (from, beacon.plan_revision),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcast_is_heard_by_every_other_node_of_the_office_only() {
    let site = Site::new();
    let asker = site.client("127.77.50.1", "store");
    let (first, second) = (site.client("127.77.50.2", "store"), site.client("127.77.50.3", "store"));
    let neighbour = site.client("127.77.50.4", "other");
    let sending = asker.transport.broadcaster().unwrap();
    sending.send(beacon("127.77.50.1", 1)).await.unwrap();
    assert_eq!(hear(&first).await, (asker.address, 1));
    assert_eq!(hear(&second).await, (asker.address, 1));
    // The asker hears the next one first, so it did not hear its own; the neighbour hears its own office only.
    first.transport.broadcaster().unwrap().send(beacon("127.77.50.2", 2)).await.unwrap();
    assert_eq!(hear(&asker).await, (first.address, 2));
    let other = site.client("127.77.50.5", "other");
    other.transport.broadcaster().unwrap().send(beacon("127.77.50.5", 3)).await.unwrap();
    assert_eq!(hear(&neighbour).await, (other.address, 3));
    assert!(neighbour.transport.broadcaster().unwrap().foreign_datagrams() >= 2);

    assert_eq!(asker.bytes(TransferClass::Broadcast).0, 1200);
    assert!(second.bytes(TransferClass::Broadcast).1 >= 1200);
    assert_eq!(first.messages(TransferClass::Broadcast), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_and_redirected_broadcasts_are_dropped() {
    let site = Site::new();
    let node = site.client("127.77.51.2", "store");
    let key = OfficeKey::new(&site.authority.office_key(&"store".parse().unwrap()));
    let attacker = std::net::UdpSocket::bind((ip("127.77.51.1"), 0)).unwrap();
    attacker.set_broadcast(true).unwrap();
    let send = |message: &proto::Broadcast| {
        attacker.send_to(&seal(&key, message).unwrap(), ("127.255.255.255", CLIENT_BROADCAST)).unwrap();
    };
    let first = beacon("127.77.51.1", 1);
    send(&first);
    send(&first);
    send(&beacon("127.77.51.9", 2));
    send(&proto::Broadcast { counter: 2, ..beacon("127.77.51.1", 3) });
    assert_eq!(hear(&node).await.1, 1);
    assert_eq!(hear(&node).await.1, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_key_neither_sends_nor_hears() {
    let site = Site::new();
    let identity = NodeIdentity::open(&site.path().join("new")).unwrap();
    let node = TestNode::start(Role::Client, "127.77.52.2", identity);
    let sent = node.transport.broadcaster().unwrap().send(beacon("127.77.52.2", 1)).await;
    assert!(matches!(sent, Err(broadcast::BroadcastError::NoKey)));
}
