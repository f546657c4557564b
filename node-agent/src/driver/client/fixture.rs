//! What the tasks of a node work with, for tests: a store in a temporary folder, all ports on a loopback address of the
//! test's own, and the events that would go to the machine. Nobody speaks to the node, and it is not enrolled unless its
//! folder is prepared.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use peerdist_core::client::Event;
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::node::Context;
use super::{ClientSettings, ServerAddress};
use crate::driver::progress::NodeProgress;
use crate::metrics::{ClassCounters, Metrics};
use crate::store::tests::fixture::Root;
use crate::transport::{Authority, NodeIdentity, PeerIdentity, Transport, TransportSettings};

/// No test tells of more.
const EVENTS_MAX: usize = 64;

pub(super) struct TestNode {
    pub(super) context: Context,
    pub(super) events: mpsc::Receiver<Event>,
    _root: Root,
}

impl TestNode {
    /// Tests run side by side: each gives a number of its own.
    pub(super) fn new(number: u8) -> Self {
        Self::prepared(number, |_| {})
    }

    /// One that finds in its folder what `prepare` puts there. Unless that names another, nobody answers at the address of
    /// its server.
    pub(super) fn prepared(number: u8, prepare: impl FnOnce(&mut ClientSettings)) -> Self {
        let (root, address) = (Root::new(), address(number));
        let (store, counters) = (Arc::new(root.open()), Arc::new(ClassCounters::default()));
        let mut settings = ClientSettings {
            server: ServerAddress::fixed(address),
            address,
            office: "store".parse().unwrap(),
            node: "store-1".parse().unwrap(),
            root: root.path(),
            join_token_file: root.path().join("join-token"),
            trust_file: None,
        };
        prepare(&mut settings);
        let identity = Arc::new(NodeIdentity::open(&root.path().join("identity")).unwrap());
        let transport =
            Transport::bind(Role::Client, address, identity, TransportSettings::default(), counters.clone()).unwrap();
        let (events, told) = mpsc::channel(EVENTS_MAX);
        let context = Context {
            settings: Arc::new(settings),
            store,
            transport: Arc::new(transport),
            metrics: Arc::new(Metrics::new(counters).unwrap()),
            events,
            flush: Arc::default(),
            progress: NodeProgress::default(),
            renewing: Arc::default(),
        };
        Self { context, events: told, _root: root }
    }
}

/// Puts a certificate of that time into the folder of the node.
pub(super) fn certify(settings: &ClientSettings, authority: &Authority, at: SystemTime) {
    let identity = NodeIdentity::open(&settings.root.join("identity")).unwrap();
    let peer = PeerIdentity::Client { office: settings.office.clone(), node: settings.node.clone() };
    let request = identity.certificate_request().unwrap();
    let issued = authority.issue(&request, &peer, settings.address, at).unwrap();
    let enrolment = proto::EnrolReply { office_type: proto::OfficeType::Wired.into(), ..authority.reply(issued) };
    let roots: Vec<_> = enrolment.roots.iter().map(|root| CertificateDer::from(root.to_vec())).collect();
    identity.install(&roots, enrolment).unwrap();
}

/// The second number is that of the process, as in the tests of the transport, which do not use this third one.
pub(super) fn address(number: u8) -> IpAddr {
    let process = u8::try_from(std::process::id() % 128).unwrap();
    IpAddr::from([127, 64 + process, 90, number])
}
