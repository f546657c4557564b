//! A client with packages, for the tests of its parts. The plans are made by hand; signatures are the driver's
//! business.

use std::time::{Duration, Instant};

use super::{Client, ClientConfig, ControlSignal, Event, Output, PreparedPackage, StoredPackage};
use crate::chunk_set::{ChunkRun, ChunkSet};
use crate::digest::Digest;
use crate::distribution::Priority;
use crate::message::{Holder, Inventory, Message, NodeState, PackageInventory, SignedBytes, TransferId};
use crate::names::{DistributionKey, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};
use crate::office::OfficeType;
use crate::peer::{ContentClass, NodeRef, Peer};
use crate::plan::{GrantedChildren, Plan, PlannedPackage};

/// Chunks of every package here.
pub(super) const CHUNKS: u32 = 8;

pub(super) fn node(office: &str, name: &str) -> NodeRef {
    NodeRef {
        name: NodeName::new(name).unwrap(),
        office: OfficeName::new(office).unwrap(),
        address: "127.0.0.1".parse().unwrap(),
    }
}

/// The node `store-1` of the office `store`, just started.
pub(super) fn client(office_type: OfficeType) -> (Client, Instant) {
    client_with(office_type, Vec::new())
}

/// The same with something on its disk.
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
pub(super) fn client_with(office_type: OfficeType, stored: Vec<StoredPackage>) -> (Client, Instant) {
    let now = Instant::now();
    let me = node("store", "store-1");
    let config = ClientConfig { me, boot_id: 1, office_type, central: false, term: 0, seed: 1 };
    (Client::new(now, config, stored), now)
}

/// A package that is on the disk at the start.
pub(super) fn stored(planned: &PlannedPackage, published: bool) -> StoredPackage {
    StoredPackage { distribution: planned.key.distribution.clone(), digest: planned.digest, published }
}

/// A package that the office is to publish.
pub(super) fn planned(name: &str, priority: Priority) -> PlannedPackage {
    let distribution =
        DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new(name).unwrap() };
    PlannedPackage {
        key: PackageKey { distribution, version: Version::new("1").unwrap() },
        digest: Digest::of(name.as_bytes()),
        root: unsigned(),
        target: true,
        paused: false,
        priority,
        retention_versions: 1,
        granted_children: GrantedChildren::default(),
    }
}

/// A plan of the office `store` below `central`.
pub(super) fn plan(office_type: OfficeType, packages: Vec<PlannedPackage>) -> Plan {
    Plan {
        revision: 1,
        office: OfficeName::new("store").unwrap(),
        office_type,
        central: false,
        parent: Some(OfficeName::new("central").unwrap()),
        parent_nodes: vec![node("central", "central-1")],
        children: Vec::new(),
        packages,
        server_addresses: Vec::new(),
        storage_limit_bytes: 0,
        retention_seconds: 0,
        background_bits_per_second_max: 0,
        awaited: Vec::new(),
        answerers: Vec::new(),
    }
}

fn unsigned() -> SignedBytes {
    SignedBytes { body: bytes::Bytes::new(), signature: bytes::Bytes::new(), key: bytes::Bytes::new() }
}

/// The plan is edited.
pub(super) fn take_plan(client: &mut Client, now: Instant, plan: &mut Plan) {
    plan.revision += 1;
    client.handle(now, Event::Plan { signed: unsigned(), plan: plan.clone() });
}

/// Manifest and place of a package are there, and these first chunks of it.
pub(super) fn prepare(client: &mut Client, now: Instant, digest: Digest, chunks_here: u32) {
    prepare_chunks(client, now, digest, &[1_000; CHUNKS as usize], chunks_here);
}

/// The same of a package with chunks of these lengths.
pub(super) fn prepare_chunks(client: &mut Client, now: Instant, digest: Digest, lengths: &[u32], chunks_here: u32) {
    let mut available = ChunkSet::new(lengths.len() as u32);
    available.insert_runs(&[ChunkRun { first: 0, count: chunks_here }]);
    client.handle(
        now,
        Event::Prepared(PreparedPackage {
            digest,
            lengths: lengths.into(),
            held: available.clone(),
            available,
            published: false,
            bytes_from_local: 0,
        }),
    );
}

/// Asks a holder for all chunks of a package. Returns the transfer.
pub(super) fn start(
    client: &mut Client,
    now: Instant,
    holder: NodeRef,
    class: ContentClass,
    digest: Digest,
) -> TransferId {
    let transfer = client.next_transfer;
    let runs = [ChunkRun { first: 0, count: CHUNKS }];
    client.start(now, Holder::Node(holder), class, digest, &runs, Vec::new());
    client.steer_paces();
    transfer
}

/// Lets time pass in which the client does everything when it is due. Returns the moment after it.
pub(super) fn pass(client: &mut Client, now: Instant, time: Duration) -> Instant {
    let (end, mut at) = (now + time, now);
    while at < end {
        at = client.poll_timeout().max(at + Duration::from_millis(1)).min(end);
        client.handle_timeout(at);
    }
    end
}

/// Nobody else claims to be the rendezvous point, so the client does. Returns the moment after it was listening.
pub(super) fn lead(client: &mut Client, now: Instant) -> Instant {
    let later = pass(client, now, Duration::from_secs(5));
    assert!(client.is_rendezvous_point());
    later
}

/// A member of the office says everything about these packages, of which it has no chunk.
pub(super) fn report(client: &mut Client, now: Instant, member: &str, packages: &[(Digest, NodeState)]) {
    let inventory_of = |(digest, state): &(Digest, NodeState)| PackageInventory {
        digest: *digest,
        available: bytes::Bytes::new(),
        coming: Vec::new(),
        state: state.clone(),
    };
    let inventory =
        Inventory { boot_id: 2, term: client.term(), packages: packages.iter().map(inventory_of).collect() };
    let from = Peer::Node(node("store", member));
    client.message(now, from, Message::Inventory(inventory)).expect("the client leads");
}

/// Everything that the client wants done.
pub(super) fn drain(client: &mut Client) -> Vec<Output> {
    std::iter::from_fn(|| client.poll()).collect()
}

/// What the client tells holders.
pub(super) fn steered(client: &mut Client) -> Vec<(TransferId, ControlSignal)> {
    drain(client)
        .into_iter()
        .filter_map(|output| match output {
            Output::Steer { transfer, signal } => Some((transfer, signal)),
            _ => None,
        })
        .collect()
}
