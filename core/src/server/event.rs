//! What goes into and comes out of the server's machine.

use std::collections::{BTreeMap, BTreeSet};

use super::IngestedPackage;
use crate::chunk_set::ChunkRun;
use crate::digest::Digest;
use crate::distribution::Distribution;
use crate::message::{Message, OfficeReport, SignedBytes, TransferId, TransferPace};
use crate::names::{DistributionKey, NodeName, OfficeName, PackageKey};
use crate::office::OfficeTree;
use crate::peer::{MessageClass, NodeRef};
use crate::plan::Plan;

/// What happened.
#[derive(Debug)]
pub enum ServerEvent {
    /// The objects changed.
    Desired {
        /// The offices.
        tree: OfficeTree,
        /// The distributions.
        distributions: BTreeMap<DistributionKey, Distribution>,
    },
    /// A package is in the library: just ingested, or found there at the start (in the order in which they
    /// became current).
    Ingested(IngestedPackage),
    /// These packages, by name and digest, are not in the library any more.
    Removed(Vec<(PackageKey, Digest)>),
    /// Another key signs: the roots of packages, signed by it. Every office gets its plan anew.
    SignedAnew(BTreeMap<PackageKey, SignedBytes>),
    /// These nodes had published a package of the library when the server was last up. Told before the objects, it counts
    /// until something is heard of the nodes.
    Remembered {
        /// The package.
        package: PackageKey,
        /// The nodes.
        complete: BTreeSet<NodeName>,
    },
    /// A node enrolled, in this run or an earlier one. One that is known already has nothing until it says so.
    Enrolled {
        /// The node.
        node: NodeRef,
    },
    /// A node got another certificate, and has what it had.
    Renewed {
        /// The node.
        node: NodeRef,
    },
    /// These nodes left for good: nobody waits for them any more. One that is only away has not left.
    Left(BTreeSet<NodeName>),
    /// Answer to [`ServerOutput::Serve`].
    ServeEnded {
        /// The receiver.
        to: NodeName,
        /// The transfer.
        transfer: TransferId,
    },
}

/// What the machine wants done.
#[derive(Debug)]
pub enum ServerOutput {
    /// Send a message.
    Send {
        /// To whom.
        to: NodeRef,
        /// On which ports.
        class: MessageClass,
        /// What.
        message: Message,
    },
    /// Sign the plan and send it.
    SendPlan {
        /// To whom.
        to: NodeRef,
        /// On which ports.
        class: MessageClass,
        /// The plan.
        plan: Plan,
    },
    /// Bring a package in, instead of what was asked for it before: [`ServerEvent::Ingested`] follows. How often a
    /// source is tried is the driver's; what it gives up is asked for again when the object names another source.
    Ingest {
        /// Where it comes from, and its names.
        distribution: Distribution,
    },
    /// Stop bringing a package in: nobody wants it any more.
    CancelIngest {
        /// The package.
        key: PackageKey,
    },
    /// Dial a node of the Central Office and send: [`ServerEvent::ServeEnded`] follows.
    Serve {
        /// The receiver.
        to: NodeRef,
        /// The receiver's number.
        transfer: TransferId,
        /// The package.
        digest: Digest,
        /// The chunks.
        runs: Vec<ChunkRun>,
        /// Pace from the first byte on.
        pace: TransferPace,
    },
    /// A node published a package: for the database.
    NodeCompleted {
        /// The node.
        node: NodeRef,
        /// The package.
        digest: Digest,
        /// Bytes of its files.
        bytes: u64,
    },
    /// These packages are wanted of these offices alone from now on: for the database, in which what nodes of others had
    /// of them counts no more. It comes before the plans that leave the packages out.
    Wanted(BTreeMap<PackageKey, BTreeSet<OfficeName>>),
    /// An office reported: for the database.
    OfficeReported {
        /// The office.
        office: OfficeName,
        /// What counts of the report.
        report: OfficeReport,
    },
}
