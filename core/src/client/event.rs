//! What goes into and comes out of the client's machine.

use crate::chunk_set::{ChunkIndex, ChunkRun, ChunkSet};
use crate::digest::Digest;
use crate::message::{Message, SignedBytes, Term, TransferId, TransferPace, UnservedReason};
use crate::names::{DistributionKey, NodeName};
use crate::peer::{ContentClass, MessageClass, NodeRef, Peer};
use crate::plan::{Plan, PlannedPackage};
use crate::swarm::office_view::ChunkLengths;

/// A package that the store held at the start.
#[derive(Debug, Clone)]
pub struct StoredPackage {
    /// The distribution it belongs to.
    pub distribution: DistributionKey,
    /// Digest of its root.
    pub digest: Digest,
    /// Whether it was published. Otherwise it was begun at most.
    pub published: bool,
}

/// A package whose manifest is here and whose place on disk is ready.
#[derive(Debug, Clone)]
pub struct PreparedPackage {
    /// The package.
    pub digest: Digest,
    /// Length of each chunk.
    pub lengths: ChunkLengths,
    /// Verified in this run.
    pub available: ChunkSet,
    /// Journalled.
    pub held: ChunkSet,
    /// Published already.
    pub published: bool,
    /// Bytes copied from other versions and packages.
    pub bytes_from_local: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A plan whose signature the driver verified.
    Plan {
        /// The signed bytes, to hand on.
        signed: SignedBytes,
        /// The plan.
        plan: Plan,
    },
    /// A member report reached its rendezvous point.
    Delivered {
        /// The rendezvous point.
        to: Peer,
    },
    /// A message could not be delivered, or was refused.
    Undelivered {
        /// To whom.
        to: Peer,
        /// What.
        message: Message,
        /// The reason word, when the peer refused it.
        refused: Option<String>,
    },
    /// A broadcast of the own office.
    Broadcast {
        /// The sender.
        from: NodeRef,
        /// What it asks or says.
        request: BroadcastRequest,
    },
    /// Answer to [`Output::Prepare`].
    Prepared(PreparedPackage),
    /// Answer to [`Output::Prepare`].
    PrepareFailed {
        /// The package.
        digest: Digest,
        /// A stable word.
        reason: String,
        /// A sentence.
        message: String,
        /// Whether trying again soon is useless (it is tried again, slowly).
        is_final: bool,
    },
    /// The holder opened the stream of a transfer.
    TransferStarted {
        /// The transfer.
        transfer: TransferId,
    },
    /// A chunk was verified and written.
    ChunkStored {
        /// The transfer that brought it.
        transfer: TransferId,
        /// The chunk.
        index: ChunkIndex,
    },
    /// A chunk failed verification or was not asked for.
    ChunkRejected {
        /// The transfer that brought it.
        transfer: TransferId,
        /// Its payload in bytes.
        bytes: u64,
    },
    /// The stream of a transfer is over.
    TransferEnded {
        /// The transfer.
        transfer: TransferId,
        /// Why, if not because everything was sent.
        failure: Option<UnservedReason>,
    },
    /// Chunks were journalled after their data was flushed.
    Flushed {
        /// The package.
        digest: Digest,
        /// The chunks.
        runs: Vec<ChunkRun>,
    },
    /// Chunks that were available are not readable any more.
    ChunksLost {
        /// The package.
        digest: Digest,
        /// The chunks.
        runs: Vec<ChunkRun>,
    },
    /// Writing or publishing failed.
    StoreFailed {
        /// The package.
        digest: Digest,
        /// A stable word.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// Answer to [`Output::Delete`]: nothing of the package is left. It comes late when the store fails at first; until
    /// then the node confirms no newer plan.
    Deleted {
        /// The package.
        digest: Digest,
    },
    /// Retention deleted an old version ([`Output::Prune`]).
    Pruned {
        /// The package.
        digest: Digest,
    },
    /// Answer to [`Output::Publish`].
    Published {
        /// The package.
        digest: Digest,
    },
    /// Answer to [`Output::Serve`].
    ServeEnded {
        /// The receiver.
        to: NodeName,
        /// The transfer.
        transfer: TransferId,
    },
}

/// What is said to every client of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastRequest {
    /// I am the rendezvous point.
    Beacon {
        /// Of this term.
        term: Term,
        /// With this plan.
        plan_revision: u64,
    },
    /// Who is the rendezvous point?
    WhoIsRendezvousPoint,
    /// Who has chunks of these packages?
    WhoHas {
        /// Number of the question.
        question: u64,
        /// The packages.
        digests: Vec<Digest>,
    },
}

/// What a receiver tells the holder while a transfer runs (content control, Adaptive Protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSignal {
    /// Send nothing until told to go on.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
    /// Send these chunks too.
    Want(Vec<ChunkRun>),
    /// Send at most so many bits a second; 0 is no limit.
    Rate(u64),
    /// Go on at the pace of this class.
    Class(ContentClass),
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message; failure comes back as [`Event::Undelivered`].
    Send {
        /// To whom.
        to: Peer,
        /// On which ports.
        class: MessageClass,
        /// What.
        message: Message,
    },
    /// Broadcast in the own subnets.
    Broadcast(BroadcastRequest),
    /// Bring the manifest and make the place on disk: [`Event::Prepared`] or [`Event::PrepareFailed`] follows.
    Prepare {
        /// The package.
        planned: PlannedPackage,
        /// Who has the manifest's pages.
        from: Peer,
    },
    /// A transfer is about to be asked for: accept these chunks of it and no others.
    Expect {
        /// The transfer.
        transfer: TransferId,
        /// The holder.
        from: Peer,
        /// On which content port.
        class: ContentClass,
        /// The package.
        digest: Digest,
        /// The chunks.
        runs: Vec<ChunkRun>,
    },
    /// Tell the holder something; a cancelled transfer is no longer expected.
    Steer {
        /// The transfer.
        transfer: TransferId,
        /// What.
        signal: ControlSignal,
    },
    /// Dial the receiver and send: [`Event::ServeEnded`] follows.
    Serve {
        /// The receiver.
        to: NodeRef,
        /// To which content port.
        class: ContentClass,
        /// The receiver's number.
        transfer: TransferId,
        /// The package.
        digest: Digest,
        /// The chunks.
        runs: Vec<ChunkRun>,
        /// Pace from the first byte on.
        pace: TransferPace,
    },
    /// Flush and journal now: every chunk of the package is there.
    Flush,
    /// Publish the package: [`Event::Published`] or [`Event::StoreFailed`] follows.
    Publish {
        /// The package.
        digest: Digest,
    },
    /// Delete the package, published or not: [`Event::Deleted`] follows.
    Delete {
        /// The package.
        digest: Digest,
    },
    /// Delete old versions of a distribution: [`Event::Pruned`] follows for each.
    Prune {
        /// The distribution.
        distribution: DistributionKey,
        /// How many versions stay.
        versions: u32,
        /// How long a version stays after it stopped being current.
        retention_seconds: u64,
    },
}

/// Why a message is not honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable word.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with its reason word.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    pub(crate) fn unexpected() -> Self {
        Self::new("unexpected", "this peer may not send this message here")
    }
}

/// Reason word: the receiver of the message is not the rendezvous point.
pub const NOT_RENDEZVOUS_POINT: &str = "not-rendezvous-point";
/// Reason word: the receiver of the message follows another rendezvous point.
pub const NOT_FOLLOWING: &str = "not-following";
/// Reason word: the rendezvous point needs the sender's inventory first.
pub const INVENTORY_NEEDED: &str = "inventory-needed";
/// Reason word: the package's manifest is not here yet.
pub const NOT_READY: &str = "not-ready";
/// Reason word: the peer's office has no grant for the package.
pub const NOT_GRANTED: &str = "not-granted";
/// Reason word: none of the chunks is here.
pub const MISSING: &str = "missing";
/// Reason word: too many transfers run already.
pub const BUSY: &str = "busy";
/// Reason word of a store that has no space for a package: bytes or inodes.
pub const DISK_FULL: &str = "DiskFull";
