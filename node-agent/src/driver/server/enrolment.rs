//! Enrolment: who may become which node, and what it gets. A token fixes the role, and that of a pod its node and
//! office too; the address that a node claims must be the one it is seen at.

use std::net::IpAddr;
use std::time::SystemTime;

use peerdist_core::client::Refusal;
use peerdist_core::message::decode_node;
use peerdist_core::names::OfficeName;
use peerdist_core::office::OfficeType;
use peerdist_core::peer::NodeRef;
use peerdist_core::plan::encode_office_type;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::reply::Reply;

use crate::cluster::BoundPod;
use crate::transport::{Authority, JoinToken, PeerIdentity};

/// An enrolment or renewal request.
pub(super) struct Asked {
    pub(super) from: PeerIdentity,
    pub(super) address: IpAddr,
    pub(super) enrol: proto::Enrol,
}

/// What the token of a newcomer is worth.
pub(super) enum Entitlement {
    /// It is the join token, which may become any node.
    JoinToken,
    /// It belongs to a pod.
    Pod(BoundPod),
    /// Nothing, and why.
    None(Refusal),
}

impl Entitlement {
    pub(super) fn of_join_token(token: &JoinToken, asked: &Asked) -> Self {
        if token.accepts(&asked.enrol.token) {
            return Self::JoinToken;
        }
        let node = asked.enrol.node.as_ref().map_or("", |node| node.name.as_str());
        Self::None(Refusal::new("token", format!("node {node}: the join token is not valid at this server")))
    }
}

/// A node with a new certificate.
pub(super) struct Enrolled {
    pub(super) node: NodeRef,
    pub(super) reply: proto::Reply,
}

/// Decides about a request.
///
/// # Errors
/// [`Refusal`] with its reason: token, name, office, address.
pub(super) fn answer(
    authority: &Authority,
    entitlement: &Entitlement,
    asked: Asked,
    office: impl Fn(&OfficeName) -> Option<(OfficeType, bool)>,
) -> Result<Enrolled, Refusal> {
    let Asked { from, address, enrol } = asked;
    let node = enrol.node.ok_or_else(|| Refusal::new("malformed", "the request names no node"))?;
    let node = decode_node(node).map_err(|error| Refusal::new("malformed", error.to_string()))?;
    check_caller(&from, &node, entitlement)?;
    if node.address != address {
        let message = format!(
            "node {} claims {} and is seen at {address}: nodes need addresses that are routed without translation",
            node.name, node.address
        );
        return Err(Refusal::new("AddressTranslated", message));
    }
    let Some((office_type, central)) = office(&node.office) else {
        let message = format!("node {}: there is no office {}: create it or correct the name", node.name, node.office);
        return Err(Refusal::new("unknown-office", message));
    };
    let identity = PeerIdentity::Client { office: node.office.clone(), node: node.name.clone() };
    let issued = authority
        .issue(&enrol.certificate_request, &identity, address, SystemTime::now())
        .map_err(|error| Refusal::new("malformed", error.to_string()))?;
    let reply = proto::EnrolReply {
        office_type: encode_office_type(office_type) as i32,
        office_key: bytes::Bytes::copy_from_slice(&authority.office_key(&node.office)),
        central,
        ..authority.reply(issued)
    };
    Ok(Enrolled { node, reply: proto::Reply { reply: Some(Reply::Enrol(reply)) } })
}

/// A newcomer shows a token; a node that renews is who its certificate says.
fn check_caller(from: &PeerIdentity, node: &NodeRef, entitlement: &Entitlement) -> Result<(), Refusal> {
    match from {
        PeerIdentity::Enrolling => match entitlement {
            Entitlement::JoinToken => Ok(()),
            Entitlement::Pod(pod) => pod.entitles(node),
            Entitlement::None(refusal) => Err(refusal.clone()),
        },
        PeerIdentity::Client { office, node: name } if *office == node.office && *name == node.name => Ok(()),
        _ => Err(Refusal::new("unexpected", "a certificate is renewed only for the node that it names")),
    }
}
