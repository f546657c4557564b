//! A change of the root as a node lives through it: one that was there, one that kept an old certificate, and one that
//! was away for all of it. Each meets the server when the former root is gone.

use ed25519_dalek::SigningKey;
use peerdist_authority::{CertifiedKey, ServerIdentity, sha256};

use super::enrolments::{answer_enrolments, hello, node_of};
use super::*;

/// A server that is given its authority, and the two roots that it is under one after the other.
struct Change {
    site: Arc<Site>,
    old: CertifiedKey,
    new: CertifiedKey,
}

fn pins(roots: &[&CertifiedKey]) -> Vec<[u8; 32]> {
    roots.iter().map(|root| sha256(&root.certificate)).collect()
}

/// Writes what an operator gives a server: the first root signs.
fn give(folder: &Path, roots: &[&CertifiedKey]) {
    let identity = ServerIdentity {
        roots: roots.iter().map(|root| root.certificate.clone()).collect(),
        intermediate: roots[0].new_intermediate(SystemTime::now()).unwrap(),
        manifest_key: SigningKey::from_bytes(&[1; 32]),
        next_manifest_key: None,
        office_secret: [2; 32],
    };
    std::fs::create_dir_all(folder).unwrap();
    for (name, content) in identity.files() {
        std::fs::write(folder.join(name), content).unwrap();
    }
}

impl Change {
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [(); 2].map(|()| CertifiedKey::new_root(SystemTime::now()).unwrap());
        let given = folder.path().join("given");
        give(&given, &[&old]);
        let authority = Authority::follow(&given, &folder.path().join("authority")).unwrap();
        Self { site: Arc::new(Site { folder, authority }), old, new }
    }

    /// The next step: the first of these roots signs, the others are trusted besides.
    fn step(&self, roots: &[&CertifiedKey]) {
        give(&self.site.path().join("given"), roots);
        assert!(self.site.authority.look().unwrap().is_some());
    }

    /// What the server would give this node at this step.
    fn reply(&self, identity: &NodeIdentity, address: &str) -> EnrolReply {
        let peer = PeerIdentity::Client { office: "store".parse().unwrap(), node: "till-1".parse().unwrap() };
        let request = identity.certificate_request().unwrap();
        let issued = self.site.authority.issue(&request, &peer, ip(address), SystemTime::now()).unwrap();
        self.site.authority.reply(issued)
    }

    /// A node that enrolled before the change began.
    fn enrolled(&self, address: &str) -> NodeIdentity {
        let identity = NodeIdentity::open(&self.site.path().join("till-1")).unwrap();
        identity.install(&self.site.authority.roots(), self.reply(&identity, address)).unwrap();
        identity
    }

    /// The last step, and after it server and node, which have not met before. The token is that of the node's pod.
    fn end(&self, server: &str, client: &str, identity: NodeIdentity) -> (TestNode, TestNode, JoinToken) {
        self.step(&[&self.new]);
        let token = JoinToken::generate(sha256(&self.new.certificate));
        let server = self.site.server(server);
        answer_enrolments(self.site.clone(), &server, token.clone());
        (server, TestNode::start(Role::Client, client, identity), token)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_there_renews_after_the_former_root_went() {
    const CLIENT: &str = "127.77.33.2";
    let change = Change::begin();
    let Change { old, new, .. } = &change;
    let identity = change.enrolled(CLIENT);
    for roots in [[old, new], [new, old]] {
        change.step(&roots);
        identity.renew(change.reply(&identity, CLIENT), Some(&pins(&roots))).unwrap();
        assert!(identity.trusts_all(&pins(&roots)));
    }
    let (server, client, _) = change.end("127.77.33.1", CLIENT, identity);
    let trusted = pins(&[new]);
    client.transport.renew(server.address, node_of(CLIENT), "", Some(&trusted)).await.unwrap();
    let identity = client.transport.identity();
    assert!(identity.trusts_all(&trusted) && !identity.trusts_any(&pins(&[old])));
    let answer = client.transport.request(server.address, Role::Server, MessageClass::Small, hello()).await;
    assert_eq!(answer.unwrap(), accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_kept_a_certificate_of_the_former_root_is_refused_and_enrols_anew() {
    const CLIENT: &str = "127.77.34.2";
    let change = Change::begin();
    let Change { old, new, .. } = &change;
    let identity = change.enrolled(CLIENT);
    change.step(&[old, new]);
    identity.renew(change.reply(&identity, CLIENT), Some(&pins(&[old, new]))).unwrap();
    let (server, client, token) = change.end("127.77.34.1", CLIENT, identity);
    let (trusted, identity) = (pins(&[new]), client.transport.identity());
    assert!(identity.trusts_any(&trusted), "it learnt of the new root");
    assert!(!identity.trusts_all(&trusted), "its own certificate is worth nothing there");

    let refused = client.transport.renew(server.address, node_of(CLIENT), "", Some(&trusted)).await;
    assert!(matches!(refused, Err(EnrolError::Request(RequestError::Refused { .. }))), "{refused:?}");
    let why = identity.news_of_why_anew(&trusted, client.address, SystemTime::now()).unwrap();
    assert!(why.contains("certificate is of a root that is not trusted"), "{why}");
    client.transport.enrol(server.address, &token, node_of(CLIENT)).await.unwrap();
    assert!(identity.trusts_all(&trusted) && !identity.trusts_any(&pins(&[old])));
    let answer = client.transport.request(server.address, Role::Server, MessageClass::Small, hello()).await;
    assert_eq!(answer.unwrap(), accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_away_for_all_of_the_change_enrols_anew_and_says_why_once() {
    const CLIENT: &str = "127.77.35.2";
    let change = Change::begin();
    let Change { old, new, .. } = &change;
    let identity = change.enrolled(CLIENT);
    change.step(&[old, new]);
    change.step(&[new, old]);
    let (server, client, token) = change.end("127.77.35.1", CLIENT, identity);
    let (trusted, identity) = (pins(&[new]), client.transport.identity());
    assert!(!identity.trusts_any(&trusted));
    let refused = client.transport.renew(server.address, node_of(CLIENT), "", Some(&trusted)).await;
    assert!(matches!(refused, Err(EnrolError::Request(RequestError::Refused { .. }))), "{refused:?}");

    let news_of_why = || identity.news_of_why_anew(&trusted, client.address, SystemTime::now());
    assert!(news_of_why().unwrap().starts_with("no root that it knows is trusted any more"));
    assert_eq!(news_of_why(), None, "it is said once");
    let other = JoinToken::generate(sha256(&new.certificate));
    assert!(client.transport.enrol(server.address, &other, node_of(CLIENT)).await.is_err());
    client.transport.enrol(server.address, &token, node_of(CLIENT)).await.unwrap();
    assert!(identity.trusts_all(&trusted) && !identity.trusts_any(&pins(&[old])));
    let answer = client.transport.request(server.address, Role::Server, MessageClass::Small, hello()).await;
    assert_eq!(answer.unwrap(), accepted());
}
