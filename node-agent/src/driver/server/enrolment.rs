//! Enrolment: who may become which node, and what it gets. A token fixes the role, and that of a pod its node and
//! office too; the address that a node claims must be the one it is seen at. Whoever renews shows its certificate, in a
//! cluster with the token of its pod, and gets no other once its node has left its office or the cluster.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use peerdist_core::client::Refusal;
use peerdist_core::message::decode_node;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::office::OfficeType;
use peerdist_core::peer::NodeRef;
use peerdist_core::plan::encode_office_type;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::reply::Reply;

use crate::cluster::{BoundPod, Cluster};
use crate::transport::join_token::JoinTokenError;
use crate::transport::{Authority, JoinToken, PeerIdentity};

/// Reason word of a renewal for a node that has left the cluster.
pub(super) const NODE_GONE: &str = "node-gone";
/// Reason word of whoever shows no token that entitles to what it asks for.
const NO_TOKEN: &str = "token";

/// An enrolment or renewal request.
pub(super) struct Asked {
    pub(super) from: PeerIdentity,
    pub(super) address: IpAddr,
    pub(super) enrol: proto::Enrol,
}

/// The token that newcomers show outside of a cluster, made now unless one for this root is there. A cluster has none:
/// it would let whoever reads it become any node of any office for ever, and every pod has a token of its own.
///
/// # Errors
/// [`JoinTokenError`] when its file cannot be read or written.
pub(super) fn join_token(
    cluster: Option<&Cluster>,
    file: &Path,
    root_sha256: [u8; 32],
) -> Result<Option<JoinToken>, JoinTokenError> {
    if cluster.is_some() {
        return Ok(None);
    }
    match JoinToken::read(file)? {
        Some(token) if token.pins() == [root_sha256] => Ok(Some(token)),
        _ => {
            let token = JoinToken::generate(root_sha256);
            token.write(file)?;
            Ok(Some(token))
        }
    }
}

/// What speaks for whoever asks.
pub(super) enum Entitlement {
    /// The join token, which may become any node.
    JoinToken,
    /// The token of a pod.
    Pod(BoundPod),
    /// The certificate that is to be renewed: outside of a cluster, and while no API server can say whose a token is.
    Certificate,
    /// Nothing, and why.
    None(Refusal),
}

impl Entitlement {
    /// Of a request with no token that an API server could know. Who has no join token serves a cluster.
    pub(super) fn without_review(join_token: Option<&JoinToken>, asked: &Asked) -> Self {
        let is_new = asked.from == PeerIdentity::Enrolling;
        let why = match join_token {
            Some(_) if !is_new => return Self::Certificate,
            Some(token) if token.accepts(&asked.enrol.token) => return Self::JoinToken,
            Some(_) => "the join token is not valid at this server",
            None if is_new => {
                "this is no token of a pod, and the server of a cluster takes no other: run the client as a pod of its \
                 office; a join token is for servers outside of a cluster"
            }
            None => {
                "in a cluster a certificate is renewed with the token of the node's pod, and none came with it: \
                 upgrade the client, which enrols anew with that token when its certificate has run out"
            }
        };
        let node = asked.enrol.node.as_ref().map_or("", |node| node.name.as_str());
        Self::None(Refusal::new(NO_TOKEN, format!("node {node}: {why}")))
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

/// A newcomer shows a token, for which whoever gave it vouches. A node that renews is who its certificate says, and in
/// a cluster its pod must still be there, and be one of its office: the certificate of a node that was moved ends.
fn check_caller(
    from: &PeerIdentity,
    node: &NodeRef,
    entitlement: &Entitlement,
    has_left: impl Fn(&NodeName) -> bool,
) -> Result<(), Refusal> {
    match from {
        PeerIdentity::Enrolling => {}
        PeerIdentity::Client { office, node: name } if *office == node.office && *name == node.name => {
            if has_left(name) {
                let message = format!(
                    "node {name}: the cluster has no Node of this name any more, and its certificate is not renewed: \
                     register the Node again, or end its client"
                );
                return Err(Refusal::new(NODE_GONE, message));
            }
        }
        _ => return Err(Refusal::new("unexpected", "a certificate is renewed only for the node that it names")),
    }
    match entitlement {
        Entitlement::JoinToken => Ok(()),
        Entitlement::Pod(pod) => pod.entitles(node),
        Entitlement::Certificate if *from != PeerIdentity::Enrolling => Ok(()),
        Entitlement::Certificate => Err(Refusal::new(NO_TOKEN, format!("node {}: it has no certificate", node.name))),
        Entitlement::None(refusal) => Err(refusal.clone()),
    }
}

#[cfg(test)]
mod tests {
    use kube::{Client, Config};

    use super::*;

    fn node(name: &str) -> NodeRef {
        NodeRef { name: name.parse().unwrap(), office: "store".parse().unwrap(), address: "10.0.0.1".parse().unwrap() }
    }

    fn client(name: &str) -> PeerIdentity {
        PeerIdentity::Client { office: "store".parse().unwrap(), node: name.parse().unwrap() }
    }

    fn nothing() -> Entitlement {
        Entitlement::None(Refusal::new(NO_TOKEN, "there is none"))
    }

    /// What is said to somebody who wants to be a node, while the cluster has no Node `till-2`.
    fn answer_to(from: PeerIdentity, wanted: &str, entitlement: Entitlement) -> Result<(), &'static str> {
        let has_left = |name: &NodeName| name.as_str() == "till-2";
        check_caller(&from, &node(wanted), &entitlement, has_left).map_err(|refusal| refusal.reason)
    }

    /// What speaks for somebody with this token, in a cluster or where there is a join token.
    fn entitlement_of(join_token: Option<&JoinToken>, from: PeerIdentity, token: &str) -> Entitlement {
        let enrol = proto::Enrol { token: token.to_owned(), ..proto::Enrol::default() };
        Entitlement::without_review(join_token, &Asked { from, address: "10.0.0.1".parse().unwrap(), enrol })
    }

    #[test]
    fn certificate_of_a_node_that_left_is_not_renewed_and_a_token_counts_all_the_same() {
        assert_eq!(answer_to(client("till-1"), "till-1", Entitlement::Certificate), Ok(()));
        assert_eq!(answer_to(client("till-2"), "till-2", Entitlement::Certificate), Err(NODE_GONE));
        assert_eq!(answer_to(client("till-2"), "till-2", nothing()), Err(NODE_GONE));
        assert_eq!(answer_to(client("till-2"), "till-1", Entitlement::Certificate), Err("unexpected"));
        assert_eq!(answer_to(PeerIdentity::Enrolling, "till-2", nothing()), Err(NO_TOKEN));
        assert_eq!(answer_to(PeerIdentity::Enrolling, "till-2", Entitlement::JoinToken), Ok(()));
    }

    #[test]
    fn certificate_is_renewed_only_while_the_token_of_a_pod_entitles_to_its_node_and_office() {
        let pod = |office: &str, node: &str| Entitlement::Pod(BoundPod::of_client(office, node.parse().unwrap()));
        assert_eq!(answer_to(client("till-1"), "till-1", pod("store", "till-1")), Ok(()));
        assert_eq!(answer_to(client("till-1"), "till-1", pod("hub", "till-1")), Err(NO_TOKEN), "it was moved");
        assert_eq!(answer_to(client("till-1"), "till-1", pod("store", "till-3")), Err(NO_TOKEN));
        assert_eq!(answer_to(client("till-1"), "till-1", nothing()), Err(NO_TOKEN), "its pod is gone");
        assert_eq!(answer_to(PeerIdentity::Enrolling, "till-1", Entitlement::Certificate), Err(NO_TOKEN));
    }

    #[test]
    fn join_token_counts_outside_of_a_cluster_alone() {
        let token = JoinToken::generate([7; 32]);
        let (new, secret) = (PeerIdentity::Enrolling, token.secret());
        assert!(matches!(entitlement_of(Some(&token), new.clone(), secret), Entitlement::JoinToken));
        assert!(matches!(entitlement_of(Some(&token), new.clone(), "other"), Entitlement::None(_)));
        assert!(matches!(entitlement_of(Some(&token), client("till-1"), ""), Entitlement::Certificate));
        let in_a_cluster = [(new, secret, "no token of a pod"), (client("till-1"), "", "none came with it")];
        for (from, presented, said) in in_a_cluster {
            let Entitlement::None(refusal) = entitlement_of(None, from, presented) else { panic!("{said}") };
            assert!(refusal.reason == NO_TOKEN && refusal.message.contains(said), "{refusal:?}");
        }
    }

    #[tokio::test]
    async fn server_of_a_cluster_makes_no_join_token() {
        crate::http::install_tls_provider();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("join-token");
        let client = Client::try_from(Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let cluster = Cluster { client, namespace: "peerdist".to_owned() };
        assert_eq!(join_token(Some(&cluster), &file, [7; 32]).unwrap(), None);
        assert!(!file.exists());
        let made = join_token(None, &file, [7; 32]).unwrap();
        assert!(made.is_some() && join_token(None, &file, [7; 32]).unwrap() == made);
        assert_ne!(join_token(None, &file, [8; 32]).unwrap(), made, "another root");
    }
}
