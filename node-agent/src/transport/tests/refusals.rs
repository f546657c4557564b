//! Who is not let in, and which port is not to be had.

use super::*;

use noq::crypto::rustls::QuicClientConfig;
use peerdist_authority::certificates::NODE_LIFETIME;
use peerdist_authority::days;
use peerdist_core::ports;
use rustls::RootCertStore;

/// What is left of a certificate that ends while it is used: far more than two handshakes take.
const ENDS_WITHIN: Duration = Duration::from_secs(12);

fn hello() -> Envelope {
    envelope(envelope::Message::Hello(proto::Hello::default()))
}

/// A client that trusts the site's root and has no certificate of its own.
fn anonymous(site: &Site, protocol: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(site.authority.roots().remove(0)).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// Whether the peer closes the connection, at the handshake or right after it.
async fn is_turned_away(from: SocketAddr, to: SocketAddr, config: ClientConfig) -> bool {
    let endpoint = Endpoint::client(from).unwrap();
    let connecting = endpoint.connect_with(config, to, &to.ip().to_string()).unwrap();
    match connecting.await {
        Ok(connection) => timeout(Duration::from_secs(5), connection.closed()).await.is_ok(),
        Err(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_without_certificate_is_turned_away_on_every_port() {
    let site = Site::new();
    let _server = site.server("127.77.20.1");
    let _client = site.client("127.77.20.2", "store");
    let pairs = [
        ("127.77.20.1", ports::SERVER_SMALL, ports::CLIENT_SMALL_REPLY),
        ("127.77.20.1", ports::SERVER_FOREGROUND, ports::CLIENT_FOREGROUND_REPLY),
        ("127.77.20.1", ports::SERVER_BACKGROUND, ports::CLIENT_BACKGROUND_REPLY),
        ("127.77.20.2", ports::CLIENT_SMALL, ports::CLIENT_SMALL_REPLY),
        ("127.77.20.2", ports::CLIENT_FOREGROUND, ports::CLIENT_FOREGROUND_REPLY),
        ("127.77.20.2", ports::CLIENT_BACKGROUND, ports::CLIENT_BACKGROUND_REPLY),
        ("127.77.20.2", ports::CLIENT_FOREGROUND_CONTENT, ports::CLIENT_CONTENT_CONTROL),
        ("127.77.20.2", ports::CLIENT_BACKGROUND_CONTENT, ports::CLIENT_CONTENT_CONTROL),
    ];
    for (number, (to, port, from_port)) in pairs.into_iter().enumerate() {
        let from = SocketAddr::new(ip(&format!("127.77.20.{}", 10 + number)), from_port);
        let to = SocketAddr::new(ip(to), port);
        assert!(is_turned_away(from, to, anonymous(&site, tls::ALPN)).await, "{to}");
    }
    // The enrolment protocol exists on one port only.
    let from = SocketAddr::new(ip("127.77.20.30"), ports::CLIENT_SMALL_REPLY);
    let to = SocketAddr::new(ip("127.77.20.2"), ports::CLIENT_SMALL);
    assert!(is_turned_away(from, to, anonymous(&site, tls::ALPN_ENROL)).await);
    // There it is taken from clients only.
    let from = SocketAddr::new(ip("127.77.20.31"), ports::VESC_REPLY);
    let to = SocketAddr::new(ip("127.77.20.1"), ports::SERVER_SMALL);
    assert!(is_turned_away(from, to, anonymous(&site, tls::ALPN_ENROL)).await);
}

/// The first datagrams of so many handshakes. They are good from any address, and whoever sends them need not go on.
async fn first_datagrams(site: &Site, count: usize) -> Vec<Vec<u8>> {
    // Behind the flags, the version and its length lies the connection's identifier, of which this is enough.
    const IDENTIFIER: std::ops::Range<usize> = 6..14;
    let sink = tokio::net::UdpSocket::bind((ip("127.77.27.8"), 0)).await.unwrap();
    let endpoint = Endpoint::client(SocketAddr::new(ip("127.77.27.9"), 0)).unwrap();
    let to = sink.local_addr().unwrap();
    let dial = |_| endpoint.connect_with(anonymous(site, tls::ALPN), to, &to.ip().to_string()).unwrap();
    let _dialling: Vec<_> = (0..count).map(dial).collect();
    let (mut first, mut buffer) = (BTreeMap::new(), [0; 2048]);
    while first.len() < count {
        let (bytes, _) = sink.recv_from(&mut buffer).await.unwrap();
        first.entry(buffer[IDENTIFIER].to_vec()).or_insert_with(|| buffer[..bytes].to_vec());
    }
    first.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn address_whose_handshakes_never_end_has_few_of_them_and_keeps_nobody_out() {
    const UNFINISHED: usize = 40;
    let site = Site::new();
    let server = site.server("127.77.27.1");
    server.accept_messages();
    let ask = async |from: &TestNode| {
        from.transport.request(server.address, Role::Server, MessageClass::Small, hello()).await.unwrap()
    };
    let stranger = std::net::UdpSocket::bind((ip("127.77.27.2"), ports::CLIENT_SMALL_REPLY)).unwrap();
    for datagram in first_datagrams(&site, UNFINISHED).await {
        stranger.send_to(&datagram, (server.address, ports::SERVER_SMALL)).unwrap();
    }
    // Its connection is looked at after those of the stranger.
    assert_eq!(ask(&site.client("127.77.27.3", "store")).await, accepted());
    let open: usize = server.transport.endpoints.0.iter().map(Endpoint::open_connections).sum();
    assert!(open < UNFINISHED / 2, "{open}");
    // Somebody may have sent them in the name of a node, which only has to show that it is there.
    drop(stranger);
    assert_eq!(ask(&site.client("127.77.27.2", "store")).await, accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_authority_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let _server = site.server("127.77.21.1");
    let client = other.client("127.77.21.2", "store");
    let refused = client.transport.request(ip("127.77.21.1"), Role::Server, MessageClass::Small, hello()).await;
    assert!(matches!(refused, Err(RequestError::Refused { ref reason, .. }) if reason == "certificate"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_for_another_address_is_refused_by_both_sides() {
    let site = Site::new();
    let server = site.server("127.77.22.1");
    server.accept_messages();
    let moved = TestNode::start(Role::Client, "127.77.22.2", site.client_identity("127.77.22.9", "store"));
    let dialling = moved.transport.request(server.address, Role::Server, MessageClass::Small, hello()).await;
    assert!(matches!(dialling, Err(RequestError::Refused { .. })), "{dialling:?}");
    let dialled = server.transport.request(moved.address, Role::Client, MessageClass::Small, hello()).await;
    assert!(matches!(dialled, Err(RequestError::Refused { .. })), "{dialled:?}");
}

/// A client whose certificate was issued then.
fn client_issued_at(site: &Site, address: &str, office: &str, issued_at: SystemTime) -> TestNode {
    let identity = NodeIdentity::open(&site.path().join(format!("{address}-late"))).unwrap();
    let peer = PeerIdentity::Client { office: office.parse().unwrap(), node: "late".parse().unwrap() };
    let request = identity.certificate_request().unwrap();
    let issued = site.authority.issue(&request, &peer, ip(address), issued_at).unwrap();
    let enrolment = EnrolReply { certificate: issued.certificate, chain: issued.chain, ..Default::default() };
    identity.install(&site.authority.roots(), enrolment).unwrap();
    TestNode::start(Role::Client, address, identity)
}

/// A client whose certificate ran out yesterday.
fn expired_client(site: &Site, address: &str, office: &str) -> TestNode {
    let client = client_issued_at(site, address, office, SystemTime::now() - NODE_LIFETIME - days(1));
    assert!(client.transport.identity().is_expired(SystemTime::now()));
    client
}

async fn ask(from: &TestNode, to: &TestNode) -> Result<Reply, RequestError> {
    from.transport.request(to.address, Role::Client, MessageClass::Small, hello()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_certificate_is_taken_only_in_the_own_office_while_the_server_is_away() {
    let site = Site::opened_at(SystemTime::now() - days(20));
    let client = site.client("127.77.25.2", "store");
    let late = expired_client(&site, "127.77.25.3", "store");
    let stranger = expired_client(&site, "127.77.25.4", "other");
    late.accept_messages();
    stranger.accept_messages();
    assert!(matches!(ask(&client, &late).await, Err(RequestError::Refused { .. })));
    client.transport.identity().tolerate_expired_peers(true);
    assert_eq!(ask(&client, &late).await.unwrap(), accepted());
    assert!(matches!(ask(&client, &stranger).await, Err(RequestError::Refused { .. })));
    client.transport.identity().tolerate_expired_peers(false);
    let refused = ask(&late, &client).await;
    assert!(matches!(refused, Err(RequestError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_end_with_the_certificate_of_their_peer_whoever_dialled() {
    let site = Site::opened_at(SystemTime::now() - days(20));
    let stays = site.client("127.77.26.2", "store");
    let ending = client_issued_at(&site, "127.77.26.3", "store", SystemTime::now() - NODE_LIFETIME + ENDS_WITHIN);
    for node in [&stays, &ending] {
        node.accept_messages();
    }
    for (from, to) in [(&stays, &ending), (&ending, &stays)] {
        assert_eq!(ask(from, to).await.unwrap(), accepted());
    }
    // Asked so often, no connection is idle.
    for (from, to) in [(&stays, &ending), (&ending, &stays)] {
        let refused = async {
            loop {
                match ask(from, to).await {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Err(error) => break error,
                }
            }
        };
        let error = timeout(ENDS_WITHIN * 5, refused).await.expect("the certificate has run out");
        assert!(matches!(error, RequestError::Refused { ref reason, .. } if reason == "certificate"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_plays_the_server_is_refused() {
    let site = Site::new();
    let impostor = TestNode::start(Role::Server, "127.77.23.1", site.client_identity("127.77.23.1", "store"));
    let client = site.client("127.77.23.2", "store");
    client.accept_messages();
    let refused = client.transport.request(ip("127.77.23.1"), Role::Server, MessageClass::Small, hello()).await;
    assert!(matches!(refused, Err(RequestError::Refused { .. })), "{refused:?}");
    let refused = impostor.transport.request(client.address, Role::Client, MessageClass::Small, hello()).await;
    assert!(matches!(refused, Err(RequestError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use_names_the_process_that_holds_it() {
    let site = Site::new();
    let holder = std::net::UdpSocket::bind((ip("127.77.24.1"), ports::CLIENT_FOREGROUND)).unwrap();
    let identity = Arc::new(site.client_identity("127.77.24.1", "store"));
    let counters = Arc::new(ClassCounters::default());
    let bound = Transport::bind(Role::Client, ip("127.77.24.1"), identity, TransportSettings::default(), counters);
    let message = bound.err().unwrap().to_string();
    let process = format!("process {} (", std::process::id());
    assert!(message.contains(&here("port 34337 on 127.77.24.1")) && message.contains(&process), "{message}");
    drop(holder);
}
