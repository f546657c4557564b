//! From a token to a certificate, and on to the next one.

use super::*;

pub(super) fn node_of(address: &str) -> proto::Node {
    proto::Node { name: "till-1".into(), office: "store".into(), address: here(address) }
}

/// A server's driver in short: one token, every renewal granted.
pub(super) fn answer_enrolments(site: Arc<Site>, server: &TestNode, token: JoinToken) {
    let transport = server.transport.clone();
    tokio::spawn(async move {
        while let Some(message) = transport.next_message().await {
            let Some(envelope::Message::Enrol(enrol)) = message.envelope.message else {
                message.reply.accept();
                continue;
            };
            if message.from == PeerIdentity::Enrolling && !token.accepts(&enrol.token) {
                message.reply.refuse("token", "the join token is not valid");
                continue;
            }
            let node = enrol.node.unwrap();
            let peer = PeerIdentity::Client { office: node.office.parse().unwrap(), node: node.name.parse().unwrap() };
            let issued = site.authority.issue(&enrol.certificate_request, &peer, message.address, SystemTime::now());
            let enrolment =
                EnrolReply { office_key: Bytes::from_static(&[7; 32]), ..site.authority.reply(issued.unwrap()) };
            message.reply.send(Reply { reply: Some(reply::Reply::Enrol(enrolment)) });
        }
    });
}

pub(super) fn hello() -> Envelope {
    envelope(envelope::Message::Hello(proto::Hello::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn node_enrols_renews_and_comes_back_enrolled() {
    let site = Arc::new(Site::new());
    let token = JoinToken::generate(site.authority.root_sha256());
    let server = site.server("127.77.30.1");
    answer_enrolments(site.clone(), &server, token.clone());
    let folder = site.path().join("till-1");
    let client = TestNode::start(Role::Client, "127.77.30.2", NodeIdentity::open(&folder).unwrap());
    let ask = || client.transport.request(server.address, Role::Server, MessageClass::Small, hello());

    assert!(client.transport.identity().renewal_due(SystemTime::now()));
    assert!(ask().await.is_err(), "nothing but enrolment works without a certificate");
    client.transport.enrol(server.address, &token, node_of("127.77.30.2")).await.unwrap();
    assert!(!client.transport.identity().renewal_due(SystemTime::now()));
    assert!(client.transport.identity().covers(client.address));
    assert_eq!(ask().await.unwrap(), accepted());

    let before = client.transport.identity().enrolment().unwrap().certificate;
    client.transport.renew(server.address, node_of("127.77.30.2"), "", None).await.unwrap();
    assert_ne!(client.transport.identity().enrolment().unwrap().certificate, before);

    let again = NodeIdentity::open(&folder).unwrap();
    assert_eq!(again.enrolment(), client.transport.identity().enrolment());
    assert!(again.renewal_due(SystemTime::now() + Duration::from_secs(3 * 24 * 3600)));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secret_is_refused_and_wrong_pin_keeps_the_secret_at_home() {
    let site = Arc::new(Site::new());
    let token = JoinToken::generate(site.authority.root_sha256());
    let server = site.server("127.77.31.1");
    answer_enrolments(site.clone(), &server, token);
    let identity = NodeIdentity::open(&site.path().join("till-1")).unwrap();
    let client = TestNode::start(Role::Client, "127.77.31.2", identity);

    let other_secret = JoinToken::generate(site.authority.root_sha256());
    let refused = client.transport.enrol(server.address, &other_secret, node_of("127.77.31.2")).await;
    let Err(EnrolError::Request(RequestError::Refused { reason, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, "token");

    let before = server.messages(TransferClass::SmallMessage);
    let other_pin = JoinToken::generate([1; 32]);
    let refused = client.transport.enrol(server.address, &other_pin, node_of("127.77.31.2")).await;
    let Err(EnrolError::Request(RequestError::Refused { reason, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, "certificate");
    assert_eq!(server.messages(TransferClass::SmallMessage), before);
    assert!(client.transport.identity().enrolment().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_certificate_takes_nothing_but_enrolment() {
    let site = Arc::new(Site::new());
    let token = JoinToken::generate(site.authority.root_sha256());
    let server = site.server("127.77.32.1");
    answer_enrolments(site.clone(), &server, token.clone());
    let identity = NodeIdentity::open(&site.path().join("till-1")).unwrap();
    let client = TestNode::start(Role::Client, "127.77.32.2", identity);
    let requester = &client.transport.requesters[&MessageClass::Small];
    let config = ClientConfig::new(tls::enrolling_client(token.pins()).unwrap());
    let to = SocketAddr::new(server.address, peerdist_core::ports::SERVER_SMALL);
    let refused = requester.request_once(config, to, &hello()).await;
    let Err(RequestError::Refused { reason, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, "not-enrolled");
}

/// Far more connections than one address may have without certificate, and how many of them are turned away at least.
const SILENT: usize = 12;
const SILENT_TURNED_AWAY_MIN: usize = SILENT / 2;
/// Silent connections are closed some time after this in any case.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_enrol_close_none_that_has_a_certificate() {
    let site = Site::new();
    let token = JoinToken::generate(site.authority.root_sha256());
    let (server, client) = (site.server("127.77.36.1"), site.client("127.77.36.2", "store"));
    let dialler = &client.transport.requesters[&MessageClass::Small].dialler;
    let to = SocketAddr::new(server.address, peerdist_core::ports::SERVER_SMALL);
    let link = dialler.connect(to, Role::Server).await.unwrap().connection;

    let config = ClientConfig::new(tls::enrolling_client(token.pins()).unwrap());
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..SILENT {
        let connection = dialler.dial_with(config.clone(), to).await.unwrap();
        silent.spawn(async move { connection.closed().await });
    }
    for _ in 0..SILENT_TURNED_AWAY_MIN {
        let closed = timeout(TURNED_AWAY_WITHIN, silent.join_next()).await.expect("there are too many of them");
        let reason = closed.unwrap().unwrap();
        assert!(matches!(&reason, noq::ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_DONE));
    }
    assert!(link.close_reason().is_none());
}
