//! Decoders against arbitrary bytes and against valid ones that were tampered with. The valid ones are the committed
//! seeds of the fuzz targets; `UPDATE_GENERATED=1` rewrites them.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::chunk_set::ChunkRun;
use crate::message::{
    Assign, Assignment, Fetch, Grant, Hello, Holder, HoldersFound, Inventory, MemberReport, Message as Sent, NodeState,
    OfficePackage, OfficeReport, PackageDelta, PackageInventory, PlanChanged, SignedBytes, TransferPace, Unserved,
    UnservedReason, Want, encode_envelope,
};
use crate::names::{DistributionKey, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};
use crate::office::OfficeType;
use crate::peer::NodeRef;
use crate::plan::{ChildOffice, PlannedPackage};

/// Longest input that is tried.
const INPUT_BYTES_MAX: usize = 4096;

fn package() -> PackageKey {
    let name = PackageName::new("app").unwrap();
    let distribution = DistributionKey { namespace: Namespace::new("retail").unwrap(), name };
    PackageKey { distribution, version: Version::new("7.4.1").unwrap() }
}

fn office() -> OfficeName {
    OfficeName::new("store").unwrap()
}

fn name() -> NodeName {
    NodeName::new("store-1").unwrap()
}

fn node() -> NodeRef {
    NodeRef { name: name(), office: office(), address: [10, 42, 0, 1].into() }
}

fn signed(text: &'static [u8]) -> SignedBytes {
    SignedBytes { body: Bytes::from_static(text), signature: vec![1; 64].into(), key: vec![2; 32].into() }
}

/// One message of every class.
fn messages() -> Vec<Sent> {
    let (digest, runs) = (Digest::of(b"root"), vec![ChunkRun { first: 3, count: 4 }]);
    let state = NodeState {
        bytes_held: 5,
        sequence: 7,
        error: Some(("DiskFull".into(), "make room".into())),
        ..Default::default()
    };
    let delta = PackageDelta {
        digest,
        available: runs.clone(),
        lost: runs.clone(),
        coming: runs.clone(),
        state: state.clone(),
    };
    let assignment = Assignment { holder: Holder::Node(node()), runs: runs.clone(), lost_holders: vec![name()] };
    let bitmap = Bytes::from_static(&[0xa5, 1]);
    let reason = UnservedReason::AlreadyGiven(name());
    let pace = TransferPace { bits_per_second: 5_000_000, makes_way: true };
    vec![
        Sent::Hello(Hello { boot_id: 1, plan_revision: 2, term: 3, confirmed_revision: 1 }),
        Sent::PlanChanged(PlanChanged { plan_revision: 2, term: 3, rendezvous_point: Some(node()) }),
        Sent::RendezvousClaim { term: 3, plan_revision: 2 },
        Sent::RendezvousLost { term: 3 },
        Sent::MemberReport(MemberReport { boot_id: 1, plan_revision: 2, term: 3, packages: vec![delta.clone()] }),
        Sent::Inventory(Inventory {
            boot_id: 1,
            term: 3,
            packages: vec![PackageInventory {
                digest,
                available: bitmap.clone(),
                coming: runs.clone(),
                state: state.clone(),
            }],
        }),
        Sent::Assign(Assign { term: 3, digest, assignments: vec![assignment.clone()] }),
        Sent::Want(Want { transfer: 9, digest, runs: runs.clone(), lost_holders: vec![name()], pace }),
        Sent::Unserved(Unserved { digest, holder: Some(name()), runs: runs.clone(), reason }),
        Sent::Fetch(Fetch {
            term: 3,
            digest,
            runs: runs.clone(),
            lost_holders: vec![name()],
            delivered_by: vec![name()],
        }),
        Sent::Grant(Grant {
            digest,
            granted: vec![assignment],
            given_before: vec![(name(), runs.clone())],
            not_yet: runs,
        }),
        Sent::Complete { digest, bytes: 5, plan_revision: Some(9) },
        Sent::HoldersFound(HoldersFound { question: 8, packages: vec![delta], term: 3, rendezvous_point: true }),
        Sent::OfficeReport(OfficeReport {
            term: 3,
            plan_revision: 2,
            packages: vec![OfficePackage { digest, available: bitmap, nodes: vec![(name(), state)] }],
        }),
        Sent::Plan(signed(b"plan")),
        Sent::Handover { term: 3 },
    ]
}

fn a_plan() -> Plan {
    Plan {
        revision: 2,
        office: office(),
        office_type: OfficeType::Wired,
        central: false,
        parent: Some(OfficeName::new("central").unwrap()),
        parent_nodes: vec![node()],
        children: vec![ChildOffice { name: office(), office_type: OfficeType::Vpn, nodes: vec![node()] }],
        packages: vec![PlannedPackage {
            key: package(),
            digest: Digest::of(b"root"),
            root: signed(b"root"),
            target: true,
            paused: false,
            priority: crate::distribution::Priority::High,
            retention_versions: 2,
            granted_children: [0].into_iter().collect(),
        }],
        server_addresses: vec![[10, 0, 0, 1].into()],
        storage_limit_bytes: 1 << 30,
        retention_seconds: 3600,
        background_bits_per_second_max: 50_000_000,
        awaited: vec![package()],
        answerers: vec![node().name],
    }
}

fn a_broadcast() -> proto::Broadcast {
    let question = proto::HolderQuestion { question: 8, digests: vec![Digest::of(b"root").as_bytes().to_vec().into()] };
    proto::Broadcast {
        sender: Some(crate::message::encode_node(&node())),
        boot_id: 1,
        counter: 2,
        request: Some(proto::broadcast::Request::WhoHas(question)),
    }
}

fn entries() -> proto::EntryPage {
    let entry = |path: &[u8], kind: proto::EntryKind, bytes, link_target: &[u8]| proto::Entry {
        path: path.to_vec().into(),
        kind: kind.into(),
        bytes,
        link_target: link_target.to_vec().into(),
        executable: false,
    };
    let entries = vec![
        entry(b"bin", proto::EntryKind::Directory, 0, b""),
        entry(b"bin/app", proto::EntryKind::File, 5, b""),
        entry(b"bin/link", proto::EntryKind::Symlink, 0, b"app"),
    ];
    proto::EntryPage { entries }
}

fn a_root() -> proto::ManifestRoot {
    let page = |bytes: &[u8]| proto::PageRef {
        digest: Digest::of(bytes).as_bytes().to_vec().into(),
        compressed_bytes: 100,
        first_index: 0,
        first_byte: 0,
    };
    proto::ManifestRoot {
        package: Some(crate::message::encode_package(&package())),
        sequence: 4,
        total_bytes: 5,
        entry_count: 3,
        chunk_count: 1,
        chunk_bytes_average: 1 << 16,
        entry_pages: vec![page(b"entries")],
        chunk_pages: vec![page(b"chunks")],
    }
}

/// A valid input for every decoder, and for messages one of each class.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let broadcast = a_broadcast().encode_to_vec();
    let body = [&(broadcast.len() as u16).to_be_bytes()[..], &broadcast].concat();
    let chunks = proto::ChunkPage { digests: vec![3; 64].into(), lengths: vec![2, 3] };
    let mut entry = entries();
    entry.entries.truncate(1);
    let mut seeds = vec![
        ("broadcast_datagram", broadcast::authenticate(&office_key(), &body).to_vec()),
        ("broadcast_body", body),
        ("manifest_root", a_root().encode_to_vec()),
        ("compressed_page", compressed(&entry.encode_to_vec())),
        ("entry_page", entries().encode_to_vec()),
        ("chunk_page", chunks.encode_to_vec()),
        ("plan", a_plan().sign(&key()).body.to_vec()),
    ]
    .into_iter()
    .map(|(decoder, bytes)| (decoder, "valid".to_owned(), bytes))
    .collect::<Vec<_>>();
    for (number, message) in messages().iter().enumerate() {
        let envelope = encode_envelope(message, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        seeds.push(("message", format!("{number:02}"), envelope.encode_to_vec()));
    }
    seeds
}

#[test]
fn seeds_are_accepted_and_are_the_committed_ones() {
    for (decoder, name, bytes) in seeds() {
        let (_, decode) = ALL.into_iter().find(|(name, _)| *name == decoder).unwrap();
        assert!(decode(&bytes), "{decoder} refuses its seed {name}");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds").join(decoder);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(&name), &bytes).unwrap();
        }
        let committed = std::fs::read(folder.join(&name)).unwrap_or_default();
        assert!(committed == bytes, "{decoder}/{name} is out of date: run the tests with UPDATE_GENERATED=1");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..INPUT_BYTES_MAX)) {
        for (_, decode) in ALL {
            decode(&bytes);
        }
    }

    #[test]
    fn tampered_bytes_are_decoded_or_refused(
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        cut in 0_usize..64,
        doubled in any::<bool>(),
    ) {
        for (decoder, _, bytes) in seeds() {
            let (_, decode) = ALL.into_iter().find(|(name, _)| *name == decoder).unwrap();
            let length = if doubled { bytes.len() * 2 } else { bytes.len() };
            decode(&mutated(&bytes, &changes, length.saturating_sub(cut)));
        }
    }
}
