//! What is said of nodes after the server started again.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use peerdist_core::digest::Digest;
use peerdist_core::message::{Message, OfficePackage, OfficeReport, SignedBytes};
use peerdist_core::peer::NodeRef;
use peerdist_core::server::{HOUSEKEEPING_INTERVAL, ServerConfig, ServerEvent};

use super::*;
use crate::desired::{DesiredSource, DirectorySource};

const PACKAGE_BYTES: u64 = 100;
const OBJECTS: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {}\n---\n\
                       apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
                       metadata: {namespace: retail, name: pos}\n\
                       spec: {version: '1', source: {uri: 'file:content'}}\n";

/// The Central Office only passes the package on to the store.
const OBJECTS_PASSED_ON: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\n\
                                 metadata: {name: central}\nspec: {}\n---\n\
                                 apiVersion: peerdist.io/v1alpha1\nkind: Office\n\
                                 metadata: {name: store, labels: {region: eu}}\nspec: {parent: central}\n---\n\
                                 apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
                                 metadata: {namespace: retail, name: pos}\n\
                                 spec: {version: '1', source: {uri: 'file:content'}, \
                                 offices: {matchLabels: {region: eu}}}\n";

/// A server that just started, with a package in its library and one node that enrolled before.
struct Restarted {
    machine: Server,
    desired: Arc<DesiredState>,
    maker: Maker,
    key: PackageKey,
    node: NodeRef,
}

impl Restarted {
    async fn new() -> Self {
        Self::with(OBJECTS).await
    }

    async fn with(objects: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("objects.yaml"), objects).unwrap();
        let desired = DirectorySource::new(folder.path()).next().await.state.unwrap();
        let (now, wall) = (Instant::now(), Timestamp::now());
        let config = ServerConfig { addresses: Vec::new(), retention_seconds: 0, last_revision: 0 };
        let key = desired.distributions.values().next().unwrap().package();
        let node = NodeRef {
            name: "central-1".parse().unwrap(),
            office: "central".parse().unwrap(),
            address: "127.0.0.1".parse().unwrap(),
        };
        let [body, signature, signer] = [(); 3].map(|()| Bytes::new());
        let package = IngestedPackage {
            key: key.clone(),
            digest: Digest::of(b"root"),
            root: SignedBytes { body, signature, key: signer },
            lengths: [PACKAGE_BYTES as u32].into_iter().collect(),
            bytes: PACKAGE_BYTES,
        };
        let mut machine = Server::new(now, config);
        machine.handle(now, wall, ServerEvent::Ingested(package));
        machine.handle(now, wall, ServerEvent::Enrolled { node: node.clone() });
        let (tree, distributions) = (desired.offices.clone(), desired.distributions.clone());
        machine.handle(now, wall, ServerEvent::Desired { tree, distributions });
        Self { machine, desired, maker: Maker::new(now), key, node }
    }

    fn remember(&mut self, bytes: u64, complete: bool, error: Option<(String, String)>) {
        let row = PackageNodeRow { key: self.key.clone(), node: self.node.name.clone(), bytes, complete, error };
        let chunks = if complete { ChunkSet::full(1) } else { ChunkSet::new(1) };
        let offices = BTreeMap::from([(self.node.office.clone(), chunks)]);
        self.maker.remember(self.key.clone(), vec![row], offices);
    }

    fn report(&mut self, state: NodeState) {
        self.report_nodes(vec![(self.node.name.clone(), state)]);
    }

    fn report_nodes(&mut self, nodes: Vec<(NodeName, NodeState)>) {
        let package = OfficePackage { digest: Digest::of(b"root"), available: Bytes::new(), nodes };
        let report = OfficeReport { term: 1, plan_revision: 0, packages: vec![package] };
        self.machine.message(Instant::now(), &self.node, Message::OfficeReport(report)).unwrap();
    }

    /// The state of the package, and how far its one node is.
    fn look(&mut self) -> (PackageState, NodeStatus) {
        let (state, office) = self.look_at_office();
        let [node] = &office.nodes[..] else { panic!("{office:?}") };
        (state, node.clone())
    }

    fn look_at_office(&mut self) -> (PackageState, OfficeStatus) {
        let snapshot = self.maker.make(&self.machine, &self.desired, &IngestOverview::default());
        let package = &snapshot.packages[0];
        let [office] = &package.offices[..] else { panic!("{package:?}") };
        (package.state, office.clone())
    }
}

#[tokio::test]
async fn node_that_is_away_when_the_server_starts_again_stays_complete_until_its_office_reports() {
    let mut server = Restarted::new().await;
    let (state, node) = server.look();
    assert_eq!((state, node.percent), (PackageState::Transferring, 0), "nothing is remembered");
    server.remember(PACKAGE_BYTES, true, None);
    let (state, node) = server.look();
    assert_eq!((state, node.complete, node.bytes), (PackageState::Complete, true, PACKAGE_BYTES));
    assert_eq!((node.rate_bytes_per_second, node.wan_bytes_received), (0, 0), "that was in another run");
    assert_eq!(server.look_at_office().1.percent_available, 100);
    server.report(NodeState { bytes_held: 30, ..NodeState::default() });
    assert_eq!(server.look_at_office().1.percent_available, 0);
    let (state, node) = server.look();
    assert_eq!((state, node.complete, node.percent), (PackageState::Transferring, false, 30), "it lost something");
}

#[tokio::test]
async fn node_that_is_back_and_has_nothing_is_not_complete_from_memory() {
    let mut server = Restarted::new().await;
    server.remember(PACKAGE_BYTES, true, None);
    // The node reports itself, so it is heard, and it has nothing of the package.
    server.report_nodes(Vec::new());
    assert!(!server.look().1.complete);
}

#[tokio::test]
async fn node_that_begins_anew_is_not_complete_from_memory() {
    let mut server = Restarted::new().await;
    server.remember(PACKAGE_BYTES, true, None);
    let node = server.node.name.clone();
    server.maker.forget_node(&node);
    assert!(!server.look().1.complete);
}

#[tokio::test]
async fn what_went_wrong_on_a_node_is_remembered_until_the_package_is_gone() {
    let mut server = Restarted::new().await;
    server.remember(40, false, Some(("disk_full".to_owned(), "no room: need 60 bytes".to_owned())));
    let error = server.look().1.error.unwrap();
    assert_eq!((error.reason.as_str(), error.message.as_str()), ("disk_full", "no room: need 60 bytes"));
    let key = server.key.clone();
    server.maker.forget(&key);
    let node = server.look().1;
    assert_eq!((node.bytes, node.error), (0, None));
}

#[tokio::test]
async fn office_that_passed_everything_on_is_no_failure_although_its_nodes_hold_nothing() {
    let mut server = Restarted::with(OBJECTS_PASSED_ON).await;
    let error = Some(("disk_full".to_owned(), "no room: need 70 bytes".to_owned()));
    server.report(NodeState { bytes_held: 30, wan_bytes_received: 30, error, ..NodeState::default() });
    let on_the_way = |server: &mut Restarted| {
        let snapshot = server.maker.make(&server.machine, &server.desired, &IngestOverview::default());
        let office = snapshot.packages[0].offices.iter().find(|office| office.transit).unwrap();
        (office.is_complete(), office.percent_available, office.nodes[0].clone())
    };
    let (complete, _, node) = on_the_way(&mut server);
    assert!(!complete && node.error.is_some());
    let below = NodeRef {
        name: "store-1".parse().unwrap(),
        office: "store".parse().unwrap(),
        address: "127.0.0.2".parse().unwrap(),
    };
    let (now, complete) =
        (Instant::now(), Message::Complete { digest: Digest::of(b"root"), bytes: PACKAGE_BYTES, plan_revision: None });
    server.machine.message(now, &below, complete).unwrap();
    server.machine.handle_timeout(now + HOUSEKEEPING_INTERVAL * 2, Timestamp::now());
    let (complete, available, node) = on_the_way(&mut server);
    assert_eq!((complete, available, node.bytes, node.error), (true, 100, 0, None));
    assert_eq!(node.wan_bytes_received, 30, "it came over the link all the same");
}
