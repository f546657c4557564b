//! The transport as its drivers see it, on loopback addresses with all ports real. Each test has a prefix of its own.

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use peerdist_core::ports::TransferClass;
use peerdist_core::wire::proto::{EnrolReply, Envelope, Reply, envelope, reply};
use tempfile::TempDir;

use crate::metrics::Direction;

use super::*;

mod broadcasts;
mod enrolments;
mod messages;
mod refusals;
mod roots;
mod transfers;

/// One authority, and nodes that it knows.
struct Site {
    folder: TempDir,
    authority: Authority,
}

/// A transport and what it counted.
struct TestNode {
    transport: Arc<Transport>,
    counters: Arc<ClassCounters>,
    address: IpAddr,
}

/// An address of this process: `127.77.` in the tests' texts stands for a prefix that other processes do not use.
fn here(text: &str) -> String {
    text.replacen("127.77.", &format!("127.{}.", 64 + std::process::id() % 128), 1)
}

fn ip(text: &str) -> IpAddr {
    here(text).parse().unwrap()
}

fn envelope(message: envelope::Message) -> Envelope {
    Envelope { traceparent: String::new(), message: Some(message) }
}

fn accepted() -> Reply {
    Reply { reply: Some(reply::Reply::Accepted(proto::Accepted {})) }
}

impl Site {
    fn new() -> Self {
        Self::opened_at(SystemTime::now())
    }

    fn opened_at(now: SystemTime) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&folder.path().join("authority"), now).unwrap();
        Self { folder, authority }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn server(&self, address: &str) -> TestNode {
        let identity = self.authority.server_identity(ip(address), SystemTime::now()).unwrap();
        TestNode::start(Role::Server, address, identity)
    }

    fn client(&self, address: &str, office: &str) -> TestNode {
        TestNode::start(Role::Client, address, self.client_identity(address, office))
    }

    /// A client's identity, certified for `address`.
    fn client_identity(&self, address: &str, office: &str) -> NodeIdentity {
        let node = format!("node-{}", address.replace('.', "-"));
        let identity = NodeIdentity::open(&self.path().join(&node)).unwrap();
        let peer = PeerIdentity::Client { office: office.parse().unwrap(), node: node.parse().unwrap() };
        identity.install(&self.authority.roots(), self.enrolment(&identity, &peer, address)).unwrap();
        identity
    }

    fn enrolment(&self, identity: &NodeIdentity, peer: &PeerIdentity, address: &str) -> EnrolReply {
        let request = identity.certificate_request().unwrap();
        let issued = self.authority.issue(&request, peer, ip(address), SystemTime::now()).unwrap();
        let office_key = match peer {
            PeerIdentity::Client { office, .. } => self.authority.office_key(office),
            _ => [0; 32],
        };
        EnrolReply {
            certificate: issued.certificate,
            chain: issued.chain,
            office_key: Bytes::copy_from_slice(&office_key),
            ..Default::default()
        }
    }
}

impl TestNode {
    fn start(role: Role, address: &str, identity: NodeIdentity) -> Self {
        let counters = Arc::new(ClassCounters::default());
        let settings = TransportSettings::default();
        let (address, identity) = (ip(address), Arc::new(identity));
        let transport = Transport::bind(role, address, identity, settings, counters.clone()).unwrap();
        Self { transport: Arc::new(transport), counters, address }
    }

    /// As on an interface whose frames carry 1,452 bytes.
    fn start_on_ethernet(address: &str, identity: NodeIdentity) -> Self {
        let counters = Arc::new(ClassCounters::default());
        let interface = Interface { datagram_bytes_max: 1452, ..Interface::of(ip(address)) };
        let (settings, identity, address) = (TransportSettings::default(), Arc::new(identity), ip(address));
        let transport =
            Transport::bind_on(interface, Role::Client, address, identity, settings, counters.clone()).unwrap();
        Self { transport: Arc::new(transport), counters, address }
    }

    /// Accepts every message, forever.
    fn accept_messages(&self) {
        let transport = self.transport.clone();
        tokio::spawn(async move {
            while let Some(message) = transport.next_message().await {
                message.reply.accept();
            }
        });
    }

    fn bytes(&self, class: TransferClass) -> (u64, u64) {
        (self.counters.bytes(class, Direction::Sent), self.counters.bytes(class, Direction::Received))
    }

    /// Whether one of its connections used the controller that gives way, since this was asked last.
    fn gave_way(&self) -> bool {
        self.transport.queue_delay().take_seconds().is_some()
    }

    fn messages(&self, class: TransferClass) -> (u64, u64) {
        (self.counters.messages(class, Direction::Sent), self.counters.messages(class, Direction::Received))
    }
}
