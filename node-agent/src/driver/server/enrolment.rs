//! Enrolment: who may become which node, and what it gets. A token fixes the role, and that of a pod its node and
//! office too; the address that a node claims must be the one it is seen at. Whoever renews shows its certificate alone,
//! and gets no other once its node has left the cluster.

use std::net::IpAddr;
use std::time::SystemTime;

use peerdist_core::client::Refusal;
use peerdist_core::message::decode_node;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::office::OfficeType;
use peerdist_core::peer::NodeRef;
use peerdist_core::plan::encode_office_type;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::reply::Reply;

use crate::cluster::BoundPod;
use crate::transport::{Authority, JoinToken, PeerIdentity};

/// Reason word of a renewal for a node that has left the cluster.
const NODE_GONE: &str = "node-gone";

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
/// [`Refusal`] with its reason: token, name, office, address, or that the node has left.
pub(super) fn answer(
    authority: &Authority,
    entitlement: &Entitlement,
    asked: Asked,
    office: impl Fn(&OfficeName) -> Option<(OfficeType, bool)>,
    has_left: impl Fn(&NodeName) -> bool,
) -> Result<Enrolled, Refusal> {
    let Asked { from, address, enrol } = asked;
    let node = enrol.node.ok_or_else(|| Refusal::new("malformed", "the request names no node"))?;
    let node = decode_node(node).map_err(|error| Refusal::new("malformed", error.to_string()))?;
    check_caller(&from, &node, entitlement, has_left)?;
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

/// A newcomer shows a token, for which whoever gave it vouches; a node that renews is who its certificate says.
fn check_caller(
    from: &PeerIdentity,
    node: &NodeRef,
    entitlement: &Entitlement,
    has_left: impl Fn(&NodeName) -> bool,
) -> Result<(), Refusal> {
    match from {
        PeerIdentity::Enrolling => match entitlement {
            Entitlement::JoinToken => Ok(()),
            Entitlement::Pod(pod) => pod.entitles(node),
            Entitlement::None(refusal) => Err(refusal.clone()),
        },
        PeerIdentity::Client { office, node: name } if *office == node.office && *name == node.name => {
            if has_left(name) {
                let message = format!(
                    "node {name}: the cluster has no Node of this name any more, and its certificate is not renewed: \
                     register the Node again, or end its client"
                );
                return Err(Refusal::new(NODE_GONE, message));
            }
            Ok(())
        }
        _ => Err(Refusal::new("unexpected", "a certificate is renewed only for the node that it names")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeRef {
        NodeRef { name: name.parse().unwrap(), office: "store".parse().unwrap(), address: "10.0.0.1".parse().unwrap() }
    }

    fn client(name: &str) -> PeerIdentity {
        PeerIdentity::Client { office: "store".parse().unwrap(), node: name.parse().unwrap() }
    }

    /// What is said to somebody who wants to be a node, while the cluster has no Node `till-2`.
    fn answer_to(from: PeerIdentity, wanted: &str, entitlement: Entitlement) -> Result<(), &'static str> {
        let has_left = |name: &NodeName| name.as_str() == "till-2";
        check_caller(&from, &node(wanted), &entitlement, has_left).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn certificate_of_a_node_that_left_is_not_renewed_and_a_token_counts_all_the_same() {
        let no_token = || Entitlement::None(Refusal::new("token", "there is none"));
        assert_eq!(answer_to(client("till-1"), "till-1", no_token()), Ok(()));
        assert_eq!(answer_to(client("till-2"), "till-2", no_token()), Err(NODE_GONE));
        assert_eq!(answer_to(client("till-2"), "till-1", no_token()), Err("unexpected"));
        assert_eq!(answer_to(PeerIdentity::Enrolling, "till-2", no_token()), Err("token"));
        assert_eq!(answer_to(PeerIdentity::Enrolling, "till-2", Entitlement::JoinToken), Ok(()));
    }
}
