//! Peers with valid certificates of the office that lie about what they have and send other bytes, or other chunks,
//! than they were asked for: nothing of it is kept, they are counted and dropped, and the package arrives from others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use peerdist_core::chunk_set::ChunkRun;
use peerdist_core::chunking::Chunker;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ManifestRoot;
use peerdist_core::message::{
    Inventory, MemberReport, Message, NodeState, PackageDelta, Want, decode_envelope, encode_envelope,
};
use peerdist_core::plan::Plan;
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use peerdist_node_agent::metrics::ClassCounters;
use peerdist_node_agent::transport::{
    ContentClass, IncomingMessage, JoinToken, MessageClass, NodeIdentity, Transport, TransportSettings,
};

use crate::objects::{content, office, package};
use crate::place::{DONE, Place, without_settings_of_the_shell};

const PREFIX: u8 = 109;
/// The server knows its offices by then, and has answered on a busy machine.
const ENROLS_WITHIN: Duration = Duration::from_secs(30);
const BYTES: usize = 48 << 20;
const HONEST: [u8; 2] = [1, 2];
/// How often a liar repeats its lies.
const LIE_INTERVAL: Duration = Duration::from_millis(20);
const REJECTED: &str = "peerdist_chunks_rejected_total";
const BOOT_ID: u64 = 666;

/// What a liar sends to whoever asks.
#[derive(Clone, Copy)]
enum Attack {
    /// The right chunk with one bit turned over.
    FlippedBit,
    /// Another chunk than any of those asked for.
    OtherChunk,
}

struct Liar {
    transport: Transport,
    attack: Attack,
    trusted: Vec<VerifyingKey>,
    /// The chunks of the package, as they are.
    chunks: Vec<Bytes>,
    transfers: AtomicU64,
}

impl Liar {
    /// Enrols with the office's own token.
    async fn enrol(place: &Place, number: u8, attack: Attack, chunks: Vec<Bytes>) -> Arc<Self> {
        let (name, address) = (format!("central-{number}"), address(number));
        let identity = NodeIdentity::open(&place.path(&name)).unwrap();
        let (settings, counters) = (TransportSettings::default(), Arc::new(ClassCounters::default()));
        let transport = Transport::bind(Role::Client, address, Arc::new(identity), settings, counters).unwrap();
        let token = JoinToken::wait(&place.path("state/join-token"), None).await.unwrap();
        let node = proto::Node { name, office: "central".into(), address: address.to_string() };
        let server = Ipv4Addr::new(127, PREFIX, 0, 1).into();
        // The token is there a moment before the server knows its offices.
        let began = Instant::now();
        let enrolled = loop {
            match transport.enrol(server, &token, node.clone()).await {
                Ok(enrolled) => break enrolled,
                Err(error) => assert!(began.elapsed() < ENROLS_WITHIN, "{error}"),
            }
            tokio::time::sleep(LIE_INTERVAL).await;
        };
        let key = |key: &Bytes| VerifyingKey::from_bytes(&<[u8; 32]>::try_from(&key[..]).unwrap()).unwrap();
        let trusted = enrolled.manifest_keys.iter().map(key).collect();
        Arc::new(Self { transport, attack, trusted, chunks, transfers: AtomicU64::new(0) })
    }

    /// Says that it has all of every package that it heard of, and serves in its own way.
    async fn lie(self: Arc<Self>) {
        let mut packages: BTreeMap<Digest, u32> = BTreeMap::new();
        let mut tick = tokio::time::interval(LIE_INTERVAL);
        loop {
            tokio::select! {
                Some(message) = self.transport.next_message() => self.take(message, &mut packages),
                _ = tick.tick() => self.clone().report(&packages),
            }
        }
    }

    fn take(self: &Arc<Self>, incoming: IncomingMessage, packages: &mut BTreeMap<Digest, u32>) {
        let IncomingMessage { address, envelope, reply, .. } = incoming;
        reply.accept();
        match decode_envelope(envelope) {
            Ok(Message::Plan(signed)) => {
                let plan = Plan::open(&signed, &self.trusted).unwrap();
                packages.extend(plan.packages.iter().map(|package| {
                    let root = ManifestRoot::verify(&(&package.root).into(), &self.trusted).unwrap();
                    (package.digest, root.chunk_count())
                }));
            }
            Ok(Message::Want(want)) => {
                let liar = self.clone();
                tokio::spawn(async move { liar.serve(address, want).await });
            }
            _ => {}
        }
    }

    /// Tells everybody: whoever is the rendezvous point listens, and sends its plan to a member that has none.
    fn report(self: Arc<Self>, packages: &BTreeMap<Digest, u32>) {
        let all = |(&digest, &count): (&Digest, &u32)| PackageDelta {
            digest,
            available: vec![ChunkRun { first: 0, count }],
            lost: Vec::new(),
            coming: Vec::new(),
            state: NodeState { bytes_held: BYTES as u64, complete: true, ..NodeState::default() },
        };
        let packages = packages.iter().map(all).collect();
        let report = Message::MemberReport(MemberReport { boot_id: BOOT_ID, plan_revision: 0, term: 1, packages });
        let inventory = Message::Inventory(Inventory { boot_id: BOOT_ID, term: 1, packages: Vec::new() });
        for honest in HONEST {
            let (liar, report, inventory) = (self.clone(), report.clone(), inventory.clone());
            tokio::spawn(async move {
                if liar.send(honest, MessageClass::Small, &report).await.is_err() {
                    drop(liar.send(honest, MessageClass::Foreground, &inventory).await);
                }
            });
        }
    }

    async fn send(&self, to: u8, class: MessageClass, message: &Message) -> Result<(), String> {
        let envelope = encode_envelope(message, String::new());
        let sent = self.transport.request(address(to), Role::Client, class, envelope).await;
        sent.map(drop).map_err(|error| error.to_string())
    }

    async fn serve(&self, to: IpAddr, want: Want) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        let wanted: BTreeSet<u32> = want.runs.iter().flat_map(|run| run.range()).collect();
        let (index, bytes) = match self.attack {
            Attack::FlippedBit => {
                let index = *wanted.first().unwrap();
                let mut bytes = self.chunks[index as usize].to_vec();
                bytes[0] ^= 1;
                (index, bytes.into())
            }
            Attack::OtherChunk => {
                let index = (0..).find(|index| !wanted.contains(index)).unwrap();
                (index, self.chunks[index as usize % self.chunks.len()].clone())
            }
        };
        let digest = Bytes::copy_from_slice(want.digest.as_bytes());
        let start = proto::TransferStart { transfer: want.transfer, digest, traceparent: String::new() };
        if let Ok(mut stream) = self.transport.bulk().open(to, ContentClass::Foreground, start).await {
            drop(stream.chunks.send_chunks(vec![(index, bytes)]).await);
            drop(stream.chunks.finish().await);
        }
    }
}

fn address(node: u8) -> IpAddr {
    Ipv4Addr::new(127, PREFIX, 1, node).into()
}

/// The chunks that every honest node cuts.
fn cut(bytes: &[u8]) -> Vec<Bytes> {
    let mut lengths = Vec::new();
    let mut chunker = Chunker::new(peerdist_core::chunking::chunk_bytes_average(bytes.len() as u64, None));
    chunker.push(bytes, |chunk| lengths.push(chunk.length as usize));
    chunker.finish(|chunk| lengths.push(chunk.length as usize));
    let mut rest = Bytes::copy_from_slice(bytes);
    lengths.into_iter().map(|length| rest.split_to(length)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_peers_are_dropped_and_the_package_arrives_from_others() {
    let place = Place::new(PREFIX);
    let data = content("app", BYTES);
    place.write("app/data", &data);
    let central = office("central", None, 2, "type: Wired");
    place.objects(&central);
    let mut run = place.start();
    let chunks = cut(&data);
    let flipper = Liar::enrol(&place, 8, Attack::FlippedBit, chunks.clone()).await;
    let stranger = Liar::enrol(&place, 9, Attack::OtherChunk, chunks).await;
    let lies = [flipper.clone(), stranger.clone()].map(|liar| tokio::spawn(liar.lie()));
    place.objects(&(central + &package("app", "1", &place.uri("app"), "")));
    run.until("the package is on both honest nodes", || {
        ["central-1", "central-2"].iter().all(|node| place.current(node, "app").exists())
    });

    let rejected = |reason| HONEST.iter().map(|&node| place.counter(1, node, REJECTED, reason)).sum::<u64>();
    let (mismatched, unasked) = (rejected("digest_mismatch"), rejected("not_requested"));
    let transfers = [&flipper, &stranger].map(|liar| liar.transfers.load(Ordering::Relaxed));
    println!("{mismatched} chunks of other bytes and {unasked} not asked for were refused, {transfers:?} transfers");
    assert!(mismatched >= 1 && unasked >= 1, "{mismatched} and {unasked}: {}", run.said());
    assert!(run.said().contains("chunk refused, peer dropped"));
    // Each honest node asks a liar until its first answer, which may be several times at once, and never again.
    assert!(transfers.iter().all(|&count| count <= 2 * HONEST.len() as u64), "{transfers:?}");

    lies.iter().for_each(tokio::task::JoinHandle::abort);
    let ended = run.interrupt();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    for node in ["central-1", "central-2"] {
        place.assert_file(node, "app", "data", &data);
        let mut verify = Command::new(env!("CARGO_BIN_EXE_peerdist"));
        verify.arg("verify").arg("--root").arg(place.node(node));
        let verified = without_settings_of_the_shell(&mut verify).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}
