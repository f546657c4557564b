//! What the tasks of a node work with, for tests: a store in a temporary folder, all ports on a loopback address of the
//! test's own, and the events that would go to the machine. Nobody speaks to the node, and it is not enrolled unless its
//! folder is prepared.

use std::net::IpAddr;
use std::sync::Arc;

use peerdist_core::client::Event;
use peerdist_core::ports::Role;
use tokio::sync::mpsc;

use super::node::Context;
use super::{ClientSettings, ServerAddress};
use crate::driver::progress::NodeProgress;
use crate::metrics::{ClassCounters, Metrics};
use crate::store::tests::fixture::Root;
use crate::transport::{NodeIdentity, Transport, TransportSettings};

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

    /// One that finds in its folder what `prepare` puts there. At the address of its server nobody answers.
    pub(super) fn prepared(number: u8, prepare: impl FnOnce(&ClientSettings)) -> Self {
        let (root, address) = (Root::new(), address(number));
        let (store, counters) = (Arc::new(root.open()), Arc::new(ClassCounters::default()));
        let settings = ClientSettings {
            server: ServerAddress::fixed(address),
            address,
            office: "store".parse().unwrap(),
            node: "store-1".parse().unwrap(),
            root: root.path(),
            join_token_file: root.path().join("join-token"),
            trust_file: None,
        };
        prepare(&settings);
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

/// The second number is that of the process, as in the tests of the transport, which do not use this third one.
fn address(number: u8) -> IpAddr {
    let process = u8::try_from(std::process::id() % 128).unwrap();
    IpAddr::from([127, 64 + process, 90, number])
}
