//! Whose a service-account token is, by the word of the API server: clients enrol and renew with the token of their pod,
//! which is bound to it and to its node, for our audience alone, and the pod's service account says its office.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::Api;
use kube::api::PostParams;
use peerdist_core::client::Refusal;
use peerdist_core::names::NodeName;
use peerdist_core::peer::NodeRef;
use peerdist_crds::names::{TOKEN_AUDIENCE, client_objects};
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, Cluster};

/// Longest wait for the word on a token that comes with a renewal. Its client waits three seconds for the certificate, the
/// way there and back included.
const RENEWAL_ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// With a status of HTTP from here the API server refuses; with another it, or what is in front of it, is in trouble.
const REFUSALS: std::ops::Range<u16> = 400..500;
/// Longest token that is passed on.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// What the API server says of the pod and node that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The pod that a valid token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundPod {
    service_account: String,
    pod: String,
    /// Identity of the pod, as far as the API server tells it.
    uid: Option<String>,
    node: NodeName,
}

impl BoundPod {
    /// Name and identity of the pod.
    pub fn name_and_uid(&self) -> (&str, Option<&str>) {
        (&self.pod, self.uid.as_deref())
    }

    /// A client of an office on a node.
    #[cfg(test)]
    pub(crate) fn of_client(office: &str, node: NodeName) -> Self {
        Self { service_account: client_objects(office), pod: "pod-1".to_owned(), uid: None, node }
    }

    /// Whether this pod may become this node, or stay it.
    ///
    /// # Errors
    /// [`Refusal`] `token` says which of office and node is another one.
    pub fn entitles(&self, node: &NodeRef) -> Result<(), Refusal> {
        let refused = |message: String| Err(Refusal::new("token", message));
        if self.service_account != client_objects(node.office.as_str()) {
            return refused(format!(
                "node {}: the token of pod {} belongs to the service account {}, which is not that of office {}",
                node.name, self.pod, self.service_account, node.office
            ));
        }
        if self.node != node.name {
            return refused(format!(
                "node {}: the token of pod {} is bound to node {}",
                node.name, self.pod, self.node
            ));
        }
        Ok(())
    }
}

/// Asks the API server.
#[derive(Clone)]
pub struct TokenReviewer(Cluster);

impl TokenReviewer {
    /// For pods in our namespace of this cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self(cluster)
    }

    /// Whose the token is.
    ///
    /// # Errors
    /// [`Refusal`] `token` when it is no valid token of one of our clients; `busy` when the API server cannot say.
    pub async fn review(&self, token: &str) -> Result<BoundPod, Refusal> {
        let user = review_token(&self.0, token, TOKEN_AUDIENCE).await.map_err(TokenReviewError::refusal)?;
        owner(user, &self.0.namespace)
    }

    /// Whose the token is that comes with a renewal; `None` while the API server is away, so that no node ends with it.
    ///
    /// # Errors
    /// As [`Self::review`]; also when the API server answers, and cannot say whose this token is.
    pub async fn review_of_renewal(&self, token: &str) -> Result<Option<BoundPod>, Refusal> {
        let reviewing = timeout(RENEWAL_ANSWER_TIMEOUT, review_token(&self.0, token, TOKEN_AUDIENCE));
        // Asked beside it and without the token: a token that is looked at for long is no API server that is away.
        let (reviewed, is_there) = tokio::join!(reviewing, answers(&self.0));
        match reviewed.unwrap_or(Err(TokenReviewError::Unavailable)) {
            Ok(user) => owner(user, &self.0.namespace).map(Some),
            Err(TokenReviewError::Unavailable) if !is_there => Ok(None),
            Err(error) => Err(error.refusal()),
        }
    }
}

/// Whether the API server answers to anything, a refusal included.
async fn answers(cluster: &Cluster) -> bool {
    match timeout(RENEWAL_ANSWER_TIMEOUT, cluster.client.apiserver_version()).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) => REFUSALS.contains(&status.code),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// A token that nobody is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenReviewError {
    /// Why the API server does not accept it.
    Refused(String),
    /// The API server cannot say.
    Unavailable,
}

impl TokenReviewError {
    fn refusal(self) -> Refusal {
        match self {
            Self::Refused(why) => Refusal::new("token", why),
            Self::Unavailable => Refusal::new("busy", "the API server cannot review the token now: try again"),
        }
    }
}

/// Whose token it is, if it is one for this audience.
pub(super) async fn review_token(cluster: &Cluster, token: &str, audience: &str) -> Result<UserInfo, TokenReviewError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenReviewError::Refused(format!("the token has more than {TOKEN_BYTES_MAX} bytes")));
    }
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![audience.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(cluster.client.clone());
    match timeout(ANSWER_TIMEOUT, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(reviewed)) => user(reviewed.status.unwrap_or_default(), audience).map_err(TokenReviewError::Refused),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the API server cannot review a token");
            Err(TokenReviewError::Unavailable)
        }
        Err(_) => Err(TokenReviewError::Unavailable),
    }
}

fn user(status: TokenReviewStatus, audience: &str) -> Result<UserInfo, String> {
    if status.authenticated != Some(true) {
        let why = status.error.unwrap_or_else(|| "the API server does not accept it".to_owned());
        return Err(format!("the token is not valid for the audience {audience}: {why}"));
    }
    // An API server that knows no audiences answers without them: such a token is for anything.
    if !status.audiences.unwrap_or_default().iter().any(|one| one == audience) {
        return Err(format!("the token is not for the audience {audience}"));
    }
    status.user.ok_or_else(|| "the API server does not say whose token it is".to_owned())
}

fn owner(user: UserInfo, namespace: &str) -> Result<BoundPod, Refusal> {
    let refused = |message: String| Refusal::new("token", message);
    let name = user.username.unwrap_or_default();
    let service_account = name.strip_prefix(&format!("system:serviceaccount:{namespace}:"));
    let Some(service_account) = service_account.map(str::to_owned) else {
        return Err(refused(format!("{name} is no service account of the namespace {namespace}")));
    };
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    let only = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) => Some(value.clone()),
        _ => None,
    };
    let node = only(NODE_NAME).and_then(|node| NodeName::new(&node).ok());
    let (Some(pod), Some(node)) = (only(POD_NAME), node) else {
        return Err(refused(format!(
            "the token of {name} is not bound to a pod on a node: expected a projected token"
        )));
    };
    Ok(BoundPod { service_account, pod, uid: only(POD_UID), node })
}

#[cfg(test)]
mod tests {
    use kube::{Client, Config};
    use serde_json::{Value, json};

    use super::*;
    use crate::source::test_server::{Reply, TestServer};

    fn status(change: impl FnOnce(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["peerdist"],
            "user": {
                "username": "system:serviceaccount:peerdist:peerdist-office-store",
                "extra": {POD_NAME: ["pod-1"], NODE_NAME: ["till-1"]},
            },
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    fn node(name: &str, office: &str) -> NodeRef {
        NodeRef {
            name: NodeName::new(name).unwrap(),
            office: peerdist_core::names::OfficeName::new(office).unwrap(),
            address: "10.0.0.1".parse().unwrap(),
        }
    }

    fn pod_of(status: TokenReviewStatus) -> Result<BoundPod, Refusal> {
        owner(user(status, TOKEN_AUDIENCE).map_err(|why| Refusal::new("token", why))?, "peerdist")
    }

    /// An API server that answers so to the review of a token, and with this status to everything else.
    fn api_server(code: u16, review: Value, other: u16) -> TestServer {
        TestServer::start(move |request, _| {
            let is_review = request.path.contains("tokenreviews");
            let (status, body) = if is_review { (code, review.clone()) } else { (other, answer(other)) };
            let reply = Reply { status, ..Reply::ok(body.to_string().as_bytes()) };
            reply.with("Content-Type", "application/json")
        })
    }

    fn answer(code: u16) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code})
    }

    fn review(status: TokenReviewStatus) -> Value {
        let (version, kind) = ("authentication.k8s.io/v1", "TokenReview");
        json!({"apiVersion": version, "kind": kind, "metadata": {}, "spec": {}, "status": status})
    }

    /// What comes of the token of a renewal, where the API server has this address.
    async fn renewal_at(address: &str) -> Result<Option<BoundPod>, &'static str> {
        crate::http::install_tls_provider();
        let client = Client::try_from(Config::new(address.parse().unwrap())).unwrap();
        let reviewer = TokenReviewer::new(Cluster { client, namespace: "peerdist".to_owned() });
        reviewer.review_of_renewal("a.b.c").await.map_err(|refusal| refusal.reason)
    }

    #[tokio::test]
    async fn certificate_alone_is_enough_only_while_the_api_server_is_away() {
        let (known, void) = (status(|_| {}), status(|status| status["authenticated"] = json!(false)));
        let pod = pod_of(known.clone()).unwrap();
        assert_eq!(renewal_at(&api_server(201, review(known), 200).address).await, Ok(Some(pod)));
        assert_eq!(renewal_at(&api_server(201, review(void), 200).address).await, Err("token"));
        for (other, said) in [(200, Err("busy")), (403, Err("busy")), (502, Ok(None))] {
            assert_eq!(renewal_at(&api_server(500, answer(500), other).address).await, said, "{other}");
        }
        assert_eq!(renewal_at("http://127.0.0.1:9").await, Ok(None));
    }

    #[test]
    fn a_token_entitles_to_its_own_node_in_its_own_office() {
        let pod = pod_of(status(|_| {})).unwrap();
        assert!(pod.entitles(&node("till-1", "store")).is_ok());
        for other in [node("till-2", "store"), node("till-1", "hub"), node("till-1", "store-2")] {
            assert_eq!(pod.entitles(&other).unwrap_err().reason, "token");
        }
    }

    #[test]
    fn tokens_of_others_are_refused_with_the_reason() {
        let account = "/user/username";
        for (change, said) in [
            (("/authenticated", json!(false)), "not valid"),
            (("/audiences", json!(["https://kubernetes.default.svc"])), "audience"),
            ((account, json!("system:serviceaccount:other:peerdist-office-store")), "no service account"),
            ((account, json!("admin")), "no service account"),
            (("/user/extra", json!({})), "not bound"),
            (("/user/extra", json!({POD_NAME: ["pod-1"]})), "not bound"),
            (("/user/extra", json!({POD_NAME: ["pod-1"], NODE_NAME: ["a", "b"]})), "not bound"),
        ] {
            let (pointer, value) = change;
            let status = status(|status| *status.pointer_mut(pointer).unwrap() = value);
            let refusal = pod_of(status).unwrap_err();
            assert!(refusal.message.contains(said), "{pointer}: {}", refusal.message);
        }
    }
}
