//! Protobuf to validated messages. Every list and text is bounded; what breaks a bound is refused whole.

use std::net::IpAddr;

use super::encode::cut;
use super::{
    ASSIGNMENTS_MAX, Assign, Assignment, CLASS_BACKGROUND, Fetch, Grant, Hello, Holder, HoldersFound, Inventory,
    MemberReport, Message, NODES_MAX, NodeState, OfficePackage, OfficeReport, PACKAGES_MAX, PackageDelta,
    PackageInventory, PlanChanged, RUNS_MAX, SignedBytes, TransferPace, Unserved, UnservedReason, Want,
};
use crate::chunk_set::{CHUNKS_MAX, ChunkRun};
use crate::digest::{Digest, DigestError};
use crate::names::{DistributionKey, NameError, Namespace, NodeName, OfficeName, PackageKey, PackageName, Version};
use crate::peer::NodeRef;
use crate::wire::proto;
use crate::wire::proto::envelope::Message as Wire;

/// A message that breaks the rules of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The envelope has no message that this version knows.
    #[error("the envelope carries no message that this version knows")]
    Unknown,
    /// The message is answered by a driver, not by a machine.
    #[error("{0} is a request of its own and not valid here")]
    Request(&'static str),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest is not valid.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A required field is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A list is too long.
    #[error("{field} has {count} items: at most {limit} are allowed")]
    TooMany {
        /// The list.
        field: &'static str,
        /// Its length.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// A value is outside its range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Parses a message.
///
/// # Errors
/// [`DecodeError`] says which rule the message breaks.
pub fn decode_envelope(envelope: proto::Envelope) -> Result<Message> {
    Ok(match envelope.message.ok_or(DecodeError::Unknown)? {
        Wire::Enrol(_) => return Err(DecodeError::Request("enrol")),
        Wire::ManifestRequest(_) => return Err(DecodeError::Request("manifest_request")),
        Wire::Hello(hello) => {
            let proto::Hello { boot_id, plan_revision, term, confirmed_revision } = hello;
            // A client of an earlier release says nothing of what it has deleted.
            let confirmed_revision = confirmed_revision.unwrap_or(plan_revision);
            Message::Hello(Hello { boot_id, plan_revision, term, confirmed_revision })
        }
        Wire::PlanChanged(changed) => Message::PlanChanged(PlanChanged {
            plan_revision: changed.plan_revision,
            term: changed.term,
            rendezvous_point: changed.rendezvous_point.map(decode_node).transpose()?,
        }),
        Wire::RendezvousClaim(claim) => {
            Message::RendezvousClaim { term: claim.term, plan_revision: claim.plan_revision }
        }
        Wire::RendezvousLost(lost) => Message::RendezvousLost { term: lost.term },
        Wire::Handover(handover) => Message::Handover { term: handover.term },
        Wire::MemberReport(report) => Message::MemberReport(MemberReport {
            boot_id: report.boot_id,
            plan_revision: report.plan_revision,
            term: report.term,
            packages: list("packages", report.packages, PACKAGES_MAX, delta)?,
        }),
        Wire::Inventory(inventory) => Message::Inventory(Inventory {
            boot_id: inventory.boot_id,
            term: inventory.term,
            packages: list("packages", inventory.packages, PACKAGES_MAX, package_inventory)?,
        }),
        Wire::Assign(assign) => Message::Assign(Assign {
            term: assign.term,
            digest: digest(&assign.digest)?,
            assignments: list("assignments", assign.assignments, ASSIGNMENTS_MAX, assignment)?,
        }),
        Wire::Want(want) => Message::Want(Want {
            transfer: want.transfer,
            digest: digest(&want.digest)?,
            runs: decode_runs(want.runs)?,
            lost_holders: list("lost_holders", want.lost_holders, NODES_MAX, name)?,
            pace: TransferPace {
                bits_per_second: want.rate_bits_per_second,
                makes_way: want.class == CLASS_BACKGROUND,
            },
        }),
        Wire::Unserved(unserved) => Message::Unserved(Unserved {
            digest: digest(&unserved.digest)?,
            holder: if unserved.holder.is_empty() { None } else { Some(NodeName::new(&unserved.holder)?) },
            runs: decode_runs(unserved.runs)?,
            reason: unserved_reason(&unserved.reason, &unserved.given_to)?,
        }),
        Wire::Fetch(fetch) => Message::Fetch(Fetch {
            term: fetch.term,
            digest: digest(&fetch.digest)?,
            runs: decode_runs(fetch.runs)?,
            lost_holders: list("lost_holders", fetch.lost_holders, NODES_MAX, name)?,
            delivered_by: list("delivered_by", fetch.delivered_by, NODES_MAX, name)?,
        }),
        Wire::Grant(grant) => Message::Grant(Grant {
            digest: digest(&grant.digest)?,
            granted: list("granted", grant.granted, ASSIGNMENTS_MAX, assignment)?,
            given_before: list("given_before", grant.given_before, NODES_MAX, |given: proto::GivenBefore| {
                Ok((NodeName::new(&given.node)?, decode_runs(given.runs)?))
            })?,
            not_yet: decode_runs(grant.not_yet)?,
        }),
        Wire::Complete(complete) => Message::Complete {
            digest: digest(&complete.digest)?,
            bytes: complete.bytes,
            plan_revision: complete.plan_revision,
        },
        Wire::HoldersFound(found) => Message::HoldersFound(HoldersFound {
            question: found.question,
            packages: list("packages", found.packages, PACKAGES_MAX, delta)?,
            term: found.term,
            rendezvous_point: found.rendezvous_point,
        }),
        Wire::OfficeReport(report) => Message::OfficeReport(OfficeReport {
            term: report.term,
            plan_revision: report.plan_revision,
            packages: list("packages", report.packages, PACKAGES_MAX, office_package)?,
        }),
        Wire::Plan(signed) => Message::Plan(signed.into()),
    })
}

/// Parses a node.
///
/// # Errors
/// [`DecodeError`] when a name or the address is not valid.
pub fn decode_node(node: proto::Node) -> Result<NodeRef> {
    Ok(NodeRef {
        name: NodeName::new(&node.name)?,
        office: OfficeName::new(&node.office)?,
        address: node.address.parse::<IpAddr>().map_err(|_| DecodeError::OutOfRange("address"))?,
    })
}

/// Parses a package's three names.
///
/// # Errors
/// [`DecodeError`] when a name is not valid.
pub fn decode_package(package: &proto::Package) -> Result<PackageKey> {
    Ok(PackageKey {
        distribution: DistributionKey {
            namespace: Namespace::new(&package.namespace)?,
            name: PackageName::new(&package.name)?,
        },
        version: Version::new(&package.version)?,
    })
}

impl From<proto::Signed> for SignedBytes {
    fn from(signed: proto::Signed) -> Self {
        Self { body: signed.body, signature: signed.signature, key: signed.key }
    }
}

pub(crate) fn list<W, T>(
    field: &'static str,
    items: Vec<W>,
    limit: usize,
    parse: impl FnMut(W) -> Result<T>,
) -> Result<Vec<T>> {
    if items.len() > limit {
        return Err(DecodeError::TooMany { field, count: items.len(), limit });
    }
    items.into_iter().map(parse).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest> {
    Ok(Digest::try_from(bytes)?)
}

fn name(text: String) -> Result<NodeName> {
    Ok(NodeName::new(&text)?)
}

/// Parses runs: each at least one chunk, none beyond the largest package, and together no more chunks than that has.
/// Runs that overlap would make a short message name more chunks than there is memory for.
pub(crate) fn decode_runs(runs: Vec<proto::Run>) -> Result<Vec<ChunkRun>> {
    let mut chunks_left = CHUNKS_MAX;
    list("runs", runs, RUNS_MAX, |run: proto::Run| {
        let end = run.first.checked_add(run.count).ok_or(DecodeError::OutOfRange("run"))?;
        if run.count == 0 || end > CHUNKS_MAX {
            return Err(DecodeError::OutOfRange("run"));
        }
        chunks_left = chunks_left.checked_sub(run.count).ok_or(DecodeError::OutOfRange("runs"))?;
        Ok(ChunkRun { first: run.first, count: run.count })
    })
}

fn delta(value: proto::PackageDelta) -> Result<PackageDelta> {
    Ok(PackageDelta {
        digest: digest(&value.digest)?,
        available: decode_runs(value.available)?,
        lost: decode_runs(value.lost)?,
        coming: decode_runs(value.coming)?,
        state: state(value.state),
    })
}

fn bitmap(bytes: bytes::Bytes) -> Result<bytes::Bytes> {
    if bytes.len() > CHUNKS_MAX as usize / 8 { Err(DecodeError::OutOfRange("bitmap")) } else { Ok(bytes) }
}

fn package_inventory(value: proto::PackageInventory) -> Result<PackageInventory> {
    Ok(PackageInventory {
        digest: digest(&value.digest)?,
        available: bitmap(value.available)?,
        coming: decode_runs(value.coming)?,
        state: state(value.state),
    })
}

fn office_package(value: proto::OfficePackage) -> Result<OfficePackage> {
    Ok(OfficePackage {
        digest: digest(&value.digest)?,
        available: bitmap(value.available)?,
        nodes: list("nodes", value.nodes, NODES_MAX, |progress: proto::NodeProgress| {
            Ok((NodeName::new(&progress.node)?, state(progress.state)))
        })?,
    })
}

fn assignment(value: proto::Assignment) -> Result<Assignment> {
    let holder = match value.holder.ok_or(DecodeError::Missing("holder"))? {
        proto::assignment::Holder::Server(_) => Holder::Server,
        proto::assignment::Holder::Node(node) => Holder::Node(decode_node(node)?),
    };
    Ok(Assignment {
        holder,
        runs: decode_runs(value.runs)?,
        lost_holders: list("lost_holders", value.lost_holders, NODES_MAX, name)?,
    })
}

fn unserved_reason(reason: &str, given_to: &str) -> Result<UnservedReason> {
    Ok(match reason {
        "unreachable" => UnservedReason::Unreachable,
        "missing" => UnservedReason::Missing,
        "corrupt" => UnservedReason::Corrupt,
        "ended" => UnservedReason::Ended,
        "already-given" => UnservedReason::AlreadyGiven(NodeName::new(given_to)?),
        _ => UnservedReason::Refused,
    })
}

fn state(value: Option<proto::NodeState>) -> NodeState {
    let value = value.unwrap_or_default();
    NodeState {
        bytes_held: value.bytes_held,
        bytes_from_origin: value.bytes_from_origin,
        bytes_from_parent: value.bytes_from_parent,
        bytes_from_office: value.bytes_from_office,
        bytes_from_local: value.bytes_from_local,
        complete: value.complete,
        error: (!value.error_reason.is_empty()).then(|| (cut(value.error_reason), cut(value.error_message))),
        waits: (!value.waits_reason.is_empty()).then(|| (cut(value.waits_reason), cut(value.waits_message))),
        run: value.run,
        sequence: value.sequence,
        wan_bytes_received: value.wan_bytes_received,
        lan_bytes_received: value.lan_bytes_received,
    }
}
