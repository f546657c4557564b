//! The messages as validated types. What arrives is parsed here once, with every length bounded; later steps never
//! look at the generated types. Encoding is the way back. Enrolment and manifest pages are plain requests that the
//! drivers answer from their stores, so they stay outside.

mod decode;
mod encode;

use crate::chunk_set::ChunkRun;
use crate::digest::Digest;
use crate::names::NodeName;
use crate::peer::NodeRef;

pub(crate) use decode::list;
pub use decode::{DecodeError, decode_envelope, decode_node, decode_package};
pub use encode::{encode_envelope, encode_node, encode_package};

/// Most runs in one message. A receiver that wants more asks again.
pub const RUNS_MAX: usize = 1024;
/// Most packages in one report, inventory or plan.
pub const PACKAGES_MAX: usize = 4096;
/// Most nodes in one list of a message.
pub const NODES_MAX: usize = 10_000;
/// Most assignments in one message.
pub const ASSIGNMENTS_MAX: usize = 256;
/// Longest reason or message text in bytes that is kept; the rest is cut.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The background class in numbers of the wire.
const CLASS_BACKGROUND: u32 = 2;

/// Election term of an office: rises with every change of its rendezvous point; the lower term steps down.
pub type Term = u64;
/// Revision of an office's plan.
pub type Revision = u64;
/// Identifies a transfer to its receiver, which chose it.
pub type TransferId = u64;

/// A message between two roles.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A client to the server: I am here.
    Hello(Hello),
    /// The server to a client: the plan in force and the office's rendezvous point.
    PlanChanged(PlanChanged),
    /// A client to the server, to its office or to child offices: I am the rendezvous point.
    RendezvousClaim {
        /// The term of the claim.
        term: Term,
        /// The claimant's plan.
        plan_revision: Revision,
    },
    /// A member to the server: the rendezvous point of this term does not answer.
    RendezvousLost {
        /// The term of the lost rendezvous point.
        term: Term,
    },
    /// The rendezvous point to a member: lead in its place, because it cannot take a package that the member can.
    Handover {
        /// The term of the rendezvous point; the member's is higher.
        term: Term,
    },
    /// A member to its rendezvous point.
    MemberReport(MemberReport),
    /// Everything a node or a child office holds.
    Inventory(Inventory),
    /// The rendezvous point to a member: fetch these.
    Assign(Assign),
    /// Receiver to holder: send me these.
    Want(Want),
    /// Receiver to coordinator: the holder did not deliver.
    Unserved(Unserved),
    /// A child office's rendezvous point to the parent's: who gives me these?
    Fetch(Fetch),
    /// The answer to a fetch.
    Grant(Grant),
    /// A node to the server: published.
    Complete {
        /// The package.
        digest: Digest,
        /// Bytes of its files.
        bytes: u64,
        /// Plan in force at the node; clients of earlier releases do not say.
        plan_revision: Option<Revision>,
    },
    /// The answer to a broadcast question.
    HoldersFound(HoldersFound),
    /// A rendezvous point to the server.
    OfficeReport(OfficeReport),
    /// The plan of an office: signed bytes, verified by whoever receives them.
    Plan(SignedBytes),
}

/// Bytes with an Ed25519 signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBytes {
    /// What is signed.
    pub body: bytes::Bytes,
    /// The signature, 64 bytes when honest.
    pub signature: bytes::Bytes,
    /// The public key, 32 bytes when honest.
    pub key: bytes::Bytes,
}

impl SignedBytes {
    /// Bytes of all three together.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.signature.len() + self.key.len()
    }
}

/// See [`Message::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Chosen at random at each start of the process.
    pub boot_id: u64,
    /// Plan in force at the node, 0 for none.
    pub plan_revision: Revision,
    /// Highest term seen.
    pub term: Term,
    /// The newest plan of which nothing is left on the disk that it does not list.
    pub confirmed_revision: Revision,
}

/// See [`Message::PlanChanged`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanChanged {
    /// Plan in force.
    pub plan_revision: Revision,
    /// Term of the rendezvous point.
    pub term: Term,
    /// The office's rendezvous point as the server knows it.
    pub rendezvous_point: Option<NodeRef>,
}

/// Progress of one node and package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Bytes journalled.
    pub bytes_held: u64,
    /// Verified bytes that came from the server.
    pub bytes_from_origin: u64,
    /// Verified bytes that came from the parent office.
    pub bytes_from_parent: u64,
    /// Verified bytes that came from the own office.
    pub bytes_from_office: u64,
    /// Bytes copied from what the node already held.
    pub bytes_from_local: u64,
    /// Published.
    pub complete: bool,
    /// Why it does not go on: reason and message.
    pub error: Option<(String, String)>,
    /// Why nothing comes although nothing failed here: reason and message.
    pub waits: Option<(String, String)>,
    /// Boot id of the run of the node that what was received is of; 0 while nothing is known of it.
    pub run: u64,
    /// Rises with whatever the node says in this run, because messages overtake each other; 0 for clients of earlier
    /// releases.
    pub sequence: u64,
    /// Chunk payload that arrived on 34750 in this run, duplicates and rejects included.
    pub wan_bytes_received: u64,
    /// Chunk payload that arrived on 34760 in this run, duplicates and rejects included.
    pub lan_bytes_received: u64,
}

impl NodeState {
    /// Whether the node said this before the other one, as far as that is known.
    pub fn is_before(&self, other: &Self) -> bool {
        self.sequence != 0 && self.run == other.run && self.sequence < other.sequence
    }
}

/// What changed for one package on a member since its last report.
#[derive(Debug, Clone, PartialEq)]
pub struct PackageDelta {
    /// The package.
    pub digest: Digest,
    /// Newly available.
    pub available: Vec<ChunkRun>,
    /// No longer available.
    pub lost: Vec<ChunkRun>,
    /// On the way from outside the office: all that is.
    pub coming: Vec<ChunkRun>,
    /// The node's progress.
    pub state: NodeState,
}

/// See [`Message::MemberReport`].
#[derive(Debug, Clone, PartialEq)]
pub struct MemberReport {
    /// Of the member's process; a new one means that earlier reports are void.
    pub boot_id: u64,
    /// Plan in force at the member.
    pub plan_revision: Revision,
    /// Term that the member follows.
    pub term: Term,
    /// Packages that changed.
    pub packages: Vec<PackageDelta>,
}

/// What one package has on a node, or in a whole child office.
#[derive(Debug, Clone, PartialEq)]
pub struct PackageInventory {
    /// The package.
    pub digest: Digest,
    /// Bitmap of the available chunks; read with the package's true number of chunks.
    pub available: bytes::Bytes,
    /// On the way from outside the office.
    pub coming: Vec<ChunkRun>,
    /// The node's progress.
    pub state: NodeState,
}

/// See [`Message::Inventory`].
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// Of the sender's process.
    pub boot_id: u64,
    /// Term of the sender: as rendezvous point of a child office, or the term it follows as a member.
    pub term: Term,
    /// Every package.
    pub packages: Vec<PackageInventory>,
}

/// Who is to send chunks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The server, for nodes of the Central Office.
    Server,
    /// A node of the own or the parent office.
    Node(NodeRef),
}

impl Holder {
    /// The name of the node; `None` for the server.
    pub fn node_name(&self) -> Option<&NodeName> {
        match self {
            Self::Server => None,
            Self::Node(node) => Some(&node.name),
        }
    }
}

/// Chunks and who is to send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The sender.
    pub holder: Holder,
    /// The chunks.
    pub runs: Vec<ChunkRun>,
    /// First receivers that cannot be reached: the ledger may give these chunks again.
    pub lost_holders: Vec<NodeName>,
}

/// See [`Message::Assign`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// Term of the rendezvous point.
    pub term: Term,
    /// The package.
    pub digest: Digest,
    /// What to fetch from whom.
    pub assignments: Vec<Assignment>,
}

/// How fast a holder may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferPace {
    /// Most bits a second; 0 is no limit.
    pub bits_per_second: u64,
    /// Inside an office: at the pace of the background class, because a more urgent package is on its way.
    pub makes_way: bool,
}

/// See [`Message::Want`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Chosen by the receiver.
    pub transfer: TransferId,
    /// The package.
    pub digest: Digest,
    /// The chunks.
    pub runs: Vec<ChunkRun>,
    /// See [`Assignment::lost_holders`].
    pub lost_holders: Vec<NodeName>,
    /// Pace from the first byte on; control signals change it.
    pub pace: TransferPace,
}

/// Why a holder did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnservedReason {
    /// It did not answer, or the connection broke.
    Unreachable,
    /// It does not have the chunks.
    Missing,
    /// What it sent failed verification.
    Corrupt,
    /// It refused.
    Refused,
    /// It ended the transfer before it heard of these.
    Ended,
    /// The ledger of the server gave them to another node of the office before.
    AlreadyGiven(NodeName),
}

/// See [`Message::Unserved`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The package.
    pub digest: Digest,
    /// The holder; `None` is the server.
    pub holder: Option<NodeName>,
    /// What did not come.
    pub runs: Vec<ChunkRun>,
    /// Why.
    pub reason: UnservedReason,
}

/// See [`Message::Fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Term of the asking rendezvous point.
    pub term: Term,
    /// The package.
    pub digest: Digest,
    /// The chunks wanted.
    pub runs: Vec<ChunkRun>,
    /// See [`Assignment::lost_holders`].
    pub lost_holders: Vec<NodeName>,
    /// Holders of the parent office that delivered something since the last such request.
    pub delivered_by: Vec<NodeName>,
}

/// See [`Message::Grant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The package.
    pub digest: Digest,
    /// Who gives what.
    pub granted: Vec<Assignment>,
    /// What was given before, and to which node of the asking office.
    pub given_before: Vec<(NodeName, Vec<ChunkRun>)>,
    /// What nobody has yet; it is granted when somebody does.
    pub not_yet: Vec<ChunkRun>,
}

/// See [`Message::HoldersFound`].
#[derive(Debug, Clone, PartialEq)]
pub struct HoldersFound {
    /// The question's number.
    pub question: u64,
    /// What the answering node has.
    pub packages: Vec<PackageDelta>,
    /// The term it knows.
    pub term: Term,
    /// Whether it is the rendezvous point.
    pub rendezvous_point: bool,
}

/// One package in an office report.
#[derive(Debug, Clone, PartialEq)]
pub struct OfficePackage {
    /// The package.
    pub digest: Digest,
    /// Bitmap of chunks that some node of the office has.
    pub available: bytes::Bytes,
    /// Progress by node.
    pub nodes: Vec<(NodeName, NodeState)>,
}

/// See [`Message::OfficeReport`].
#[derive(Debug, Clone, PartialEq)]
pub struct OfficeReport {
    /// Term of the rendezvous point.
    pub term: Term,
    /// Its plan.
    pub plan_revision: Revision,
    /// Every package.
    pub packages: Vec<OfficePackage>,
}
