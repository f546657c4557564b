//! Validated messages to protobuf.

use super::{
    Assignment, CLASS_BACKGROUND, Hello, Holder, Message, NodeState, PackageDelta, SignedBytes, TEXT_BYTES_MAX,
    UnservedReason,
};
use crate::chunk_set::ChunkRun;
use crate::digest::Digest;
use crate::names::{NodeName, PackageKey};
use crate::peer::NodeRef;
use crate::wire::proto;
use crate::wire::proto::envelope::Message as Wire;

/// Wraps a message with its trace context.
pub fn encode_envelope(message: &Message, traceparent: String) -> proto::Envelope {
    proto::Envelope { traceparent, message: Some(encode_message(message)) }
}

/// A node as others name it.
pub fn encode_node(node: &NodeRef) -> proto::Node {
    proto::Node {
        name: node.name.as_str().to_owned(),
        office: node.office.as_str().to_owned(),
        address: node.address.to_string(),
    }
}

/// A package's three names.
pub fn encode_package(key: &PackageKey) -> proto::Package {
    proto::Package {
        namespace: key.distribution.namespace.as_str().to_owned(),
        name: key.distribution.name.as_str().to_owned(),
        version: key.version.as_str().to_owned(),
    }
}

impl From<&SignedBytes> for proto::Signed {
    fn from(signed: &SignedBytes) -> Self {
        Self { body: signed.body.clone(), signature: signed.signature.clone(), key: signed.key.clone() }
    }
}

fn encode_message(message: &Message) -> Wire {
    match message {
        Message::Hello(hello) => {
            let Hello { boot_id, plan_revision, term, confirmed_revision } = *hello;
            Wire::Hello(proto::Hello { boot_id, plan_revision, term, confirmed_revision: Some(confirmed_revision) })
        }
        Message::PlanChanged(changed) => Wire::PlanChanged(proto::PlanChanged {
            plan_revision: changed.plan_revision,
            term: changed.term,
            rendezvous_point: changed.rendezvous_point.as_ref().map(encode_node),
        }),
        &Message::RendezvousClaim { term, plan_revision } => {
            Wire::RendezvousClaim(proto::RendezvousClaim { term, plan_revision })
        }
        &Message::RendezvousLost { term } => Wire::RendezvousLost(proto::RendezvousLost { term }),
        &Message::Handover { term } => Wire::Handover(proto::Handover { term }),
        Message::MemberReport(report) => Wire::MemberReport(proto::MemberReport {
            boot_id: report.boot_id,
            plan_revision: report.plan_revision,
            term: report.term,
            packages: report.packages.iter().map(delta).collect(),
        }),
        Message::Inventory(inventory) => Wire::Inventory(proto::Inventory {
            boot_id: inventory.boot_id,
            term: inventory.term,
            packages: inventory
                .packages
                .iter()
                .map(|package| proto::PackageInventory {
                    digest: digest(package.digest),
                    available: package.available.clone(),
                    coming: runs(&package.coming),
                    state: Some(state(&package.state)),
                })
                .collect(),
        }),
        Message::Assign(assign) => Wire::Assign(proto::Assign {
            term: assign.term,
            digest: digest(assign.digest),
            assignments: assign.assignments.iter().map(assignment).collect(),
        }),
        Message::Want(want) => Wire::Want(proto::Want {
            transfer: want.transfer,
            digest: digest(want.digest),
            runs: runs(&want.runs),
            lost_holders: names(&want.lost_holders),
            rate_bits_per_second: want.pace.bits_per_second,
            class: if want.pace.makes_way { CLASS_BACKGROUND } else { 0 },
        }),
        Message::Unserved(unserved) => {
            let (reason, given_to) = unserved_reason(&unserved.reason);
            Wire::Unserved(proto::Unserved {
                digest: digest(unserved.digest),
                holder: unserved.holder.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
                runs: runs(&unserved.runs),
                reason: reason.to_owned(),
                given_to,
            })
        }
        Message::Fetch(fetch) => Wire::Fetch(proto::Fetch {
            term: fetch.term,
            digest: digest(fetch.digest),
            runs: runs(&fetch.runs),
            lost_holders: names(&fetch.lost_holders),
            delivered_by: names(&fetch.delivered_by),
        }),
        Message::Grant(grant) => Wire::Grant(proto::Grant {
            digest: digest(grant.digest),
            granted: grant.granted.iter().map(assignment).collect(),
            given_before: grant
                .given_before
                .iter()
                .map(|(node, given)| proto::GivenBefore { node: node.as_str().to_owned(), runs: runs(given) })
                .collect(),
            not_yet: runs(&grant.not_yet),
        }),
        &Message::Complete { digest: package, bytes, plan_revision } => {
            Wire::Complete(proto::Complete { digest: digest(package), bytes, plan_revision })
        }
        Message::HoldersFound(found) => Wire::HoldersFound(proto::HoldersFound {
            question: found.question,
            packages: found.packages.iter().map(delta).collect(),
            term: found.term,
            rendezvous_point: found.rendezvous_point,
        }),
        Message::OfficeReport(report) => Wire::OfficeReport(proto::OfficeReport {
            term: report.term,
            plan_revision: report.plan_revision,
            packages: report
                .packages
                .iter()
                .map(|package| proto::OfficePackage {
                    digest: digest(package.digest),
                    available: package.available.clone(),
                    nodes: package
                        .nodes
                        .iter()
                        .map(|(node, progress)| proto::NodeProgress {
                            node: node.as_str().to_owned(),
                            state: Some(state(progress)),
                        })
                        .collect(),
                })
                .collect(),
        }),
        Message::Plan(signed) => Wire::Plan(signed.into()),
    }
}

fn digest(value: Digest) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(value.as_bytes())
}

pub(crate) fn runs(values: &[ChunkRun]) -> Vec<proto::Run> {
    values.iter().map(|run| proto::Run { first: run.first, count: run.count }).collect()
}

fn names(values: &[NodeName]) -> Vec<String> {
    values.iter().map(|name| name.as_str().to_owned()).collect()
}

fn delta(value: &PackageDelta) -> proto::PackageDelta {
    proto::PackageDelta {
        digest: digest(value.digest),
        available: runs(&value.available),
        lost: runs(&value.lost),
        coming: runs(&value.coming),
        state: Some(state(&value.state)),
    }
}

fn assignment(value: &Assignment) -> proto::Assignment {
    let holder = match &value.holder {
        Holder::Server => proto::assignment::Holder::Server(true),
        Holder::Node(node) => proto::assignment::Holder::Node(encode_node(node)),
    };
    proto::Assignment { holder: Some(holder), runs: runs(&value.runs), lost_holders: names(&value.lost_holders) }
}

fn unserved_reason(reason: &UnservedReason) -> (&'static str, String) {
    match reason {
        UnservedReason::Unreachable => ("unreachable", String::new()),
        UnservedReason::Missing => ("missing", String::new()),
        UnservedReason::Corrupt => ("corrupt", String::new()),
        UnservedReason::Refused => ("refused", String::new()),
        UnservedReason::Ended => ("ended", String::new()),
        UnservedReason::AlreadyGiven(node) => ("already-given", node.as_str().to_owned()),
    }
}

fn state(value: &NodeState) -> proto::NodeState {
    let (error_reason, error_message) = value.error.clone().unwrap_or_default();
    let (waits_reason, waits_message) = value.waits.clone().unwrap_or_default();
    proto::NodeState {
        bytes_held: value.bytes_held,
        bytes_from_origin: value.bytes_from_origin,
        bytes_from_parent: value.bytes_from_parent,
        bytes_from_office: value.bytes_from_office,
        bytes_from_local: value.bytes_from_local,
        complete: value.complete,
        error_reason: cut(error_reason),
        error_message: cut(error_message),
        waits_reason: cut(waits_reason),
        waits_message: cut(waits_message),
        run: value.run,
        sequence: value.sequence,
        wan_bytes_received: value.wan_bytes_received,
        lan_bytes_received: value.lan_bytes_received,
    }
}

/// Cuts a text to its bound at a character boundary.
pub(super) fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
