//! Downloads against a small real server that cuts connections, changes content and sends redirects.

use std::fs;
use std::io::Read;
use std::net::TcpListener;

use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::request::{RedirectRefusal, check_redirect};
use super::*;
use crate::source::test_server::{Reply, TestServer};
use crate::source::uri;
use crate::store::{NodeStore, StoreLimits};

struct Target {
    folder: TempDir,
    digest: Option<SourceDigest>,
    credentials: Option<Credentials>,
    limit_left_bytes: Option<u64>,
    cancel: CancellationToken,
    downloader: Downloader,
}

impl Target {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            digest: None,
            credentials: None,
            limit_left_bytes: None,
            cancel: CancellationToken::new(),
            downloader: Downloader::new(RetryPolicy::Once, AddressRule::any()),
        }
    }

    fn expecting(content: &[u8]) -> Self {
        Self { digest: Some(SourceDigest::Sha256(Sha256::digest(content).into())), ..Self::new() }
    }

    fn with_keys(keys: &[(&str, &str)]) -> Self {
        let value = |key: &str| keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes());
        Self { credentials: Some(Credentials::from_keys(value).unwrap()), ..Self::new() }
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, SourceError> {
        let url = uri::parse_url(url)?;
        let partial = Partial::new(self.folder.path(), &package(), &url, self.digest);
        let download = Download {
            url: &url,
            digest: self.digest,
            credentials: self.credentials.as_ref(),
            partial: &partial,
            quota: Quota::Bytes(self.limit_left_bytes),
            progress: &Arc::new(Progress::default()),
            cancel: &self.cancel,
        };
        self.downloader.fetch(&download).await?;
        Ok(fs::read(partial.data()).unwrap())
    }

    async fn reason(&self, url: &str) -> &'static str {
        self.fetch(url).await.unwrap_err().reason()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

fn package() -> PackageKey {
    let (namespace, name) = (Namespace::new("retail").unwrap(), PackageName::new("app").unwrap());
    PackageKey { distribution: DistributionKey { namespace, name }, version: Version::new("1").unwrap() }
}

fn content(seed: u8) -> Vec<u8> {
    (0..300_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

#[tokio::test]
async fn a_download_is_checked_and_not_asked_for_again() {
    let server = TestServer::start(|request, _| Reply::file(request, "\"1\"", &content(1)));
    let target = Target::expecting(&content(1));
    let url = server.url("/a.bin?signature=x#fragment");
    assert_eq!(target.fetch(&url).await.unwrap(), content(1));
    assert_eq!(target.fetch(&url).await.unwrap(), content(1));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/a.bin?signature=x");
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_wrong_digest_is_final_and_leaves_nothing() {
    let server = TestServer::start(|request, _| Reply::file(request, "\"1\"", &content(1)));
    let target = Target::expecting(&content(2));
    let error = target.fetch(&server.url("/")).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
    assert!(error.is_final());
    assert_eq!((target.files(), server.requests().len()), (0, 1));
}

#[tokio::test]
async fn a_cut_download_is_resumed_where_it_was_cut() {
    let server = TestServer::start(|request, number| {
        let reply = Reply::file(request, "\"1\"", &content(1));
        if number < 2 { reply.cut(100_000) } else { reply }
    });
    let target = Target::expecting(&content(1));
    for _ in 0..2 {
        let error = target.fetch(&server.url("/")).await.unwrap_err();
        assert!(!error.is_final());
        assert!(matches!(error, SourceError::SourceUnavailable { received_bytes: 100_000, .. }), "{error}");
    }
    assert_eq!(target.fetch(&server.url("/")).await.unwrap(), content(1));
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().map(|request| (request.range(), request.header("if-range"))).collect();
    assert_eq!(ranges, [(None, None), (Some(100_000), Some("\"1\"")), (Some(200_000), Some("\"1\""))]);
}

/// Cuts the first answer, and gives `second` to the request that asks for the rest; then the new content.
async fn resumed_with(
    digest: Option<&[u8]>,
    first_etag: Option<&'static str>,
    second: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Result<Vec<u8>, SourceError>, usize) {
    let server = TestServer::start(move |_, number| match number {
        0 => {
            let reply = Reply::ok(&content(1)).cut(100_000);
            first_etag.map_or(reply.clone(), |etag| reply.with("ETag", etag))
        }
        1 => second(),
        _ => Reply::ok(&content(2)).with("ETag", "\"2\""),
    });
    let target = digest.map_or_else(Target::new, Target::expecting);
    assert_eq!(target.reason(&server.url("/")).await, "SourceUnavailable");
    let result = target.fetch(&server.url("/")).await;
    (result, server.requests().len())
}

#[tokio::test]
async fn content_that_changed_meanwhile_is_fetched_anew() {
    let new = content(2);
    let check = |outcome: (Result<Vec<u8>, SourceError>, usize), requests| {
        assert_eq!((outcome.0.unwrap(), outcome.1), (new.clone(), requests));
    };
    let etag = Some("\"1\"");
    check(resumed_with(None, etag, || Reply::ok(&content(2)).with("ETag", "\"2\"")).await, 2);
    check(resumed_with(None, etag, || Reply::part(100_000, &content(2)).with("ETag", "\"2\"")).await, 3);
    check(resumed_with(None, etag, || Reply::part(50_000, &content(2)).with("ETag", "\"1\"")).await, 3);
    check(resumed_with(None, etag, || Reply::part(100_000, &content(2)[..250_000]).with("ETag", "\"1\"")).await, 3);
    check(resumed_with(None, etag, || Reply::status(416)).await, 3);
    // Without any validator the digest tells that the two halves do not fit.
    check(resumed_with(Some(&new), None, || Reply::part(100_000, &content(2))).await, 3);
}

#[tokio::test]
async fn without_validator_and_digest_nothing_is_resumed() {
    for etag in [None, Some("W/\"weak\"")] {
        let (result, requests) = resumed_with(None, etag, || Reply::ok(&content(2))).await;
        assert_eq!((result.unwrap(), requests), (content(2), 2));
    }
}

#[tokio::test]
async fn a_date_serves_as_validator_and_unflushed_bytes_do_not_count() {
    let date = "Tue, 01 Jul 2025 10:00:00 GMT";
    let server = TestServer::start(move |request, number| match number {
        0 => Reply::ok(&content(1)).cut(100_000).with("Last-Modified", date),
        _ => Reply::part(request.range().unwrap(), &content(1)).with("Last-Modified", date),
    });
    let target = Target::new();
    assert_eq!(target.reason(&server.url("/")).await, "SourceUnavailable");
    // As after a crash: more bytes on disk than are known to be flushed.
    let url = uri::parse_url(&server.url("/")).unwrap();
    let partial = Partial::new(target.folder.path(), &package(), &url, None);
    let mut file = fs::OpenOptions::new().append(true).open(partial.data()).unwrap();
    io::Write::write_all(&mut file, b"garbage").unwrap();
    assert_eq!(target.fetch(&server.url("/")).await.unwrap(), content(1));
    assert_eq!(server.requests()[1].header("if-range"), Some(date));
}

#[tokio::test]
async fn statuses_are_final_or_not() {
    let server = TestServer::start(|request, _| Reply::status(request.path[1..].parse().unwrap()));
    let target = Target::new();
    let expected = [
        (404, "SourceMissing", true),
        (410, "SourceMissing", true),
        (400, "SourceRefused", true),
        (401, "SourceRefused", true),
        (403, "SourceRefused", true),
        (304, "SourceRefused", true),
        (204, "SourceRefused", true),
        (408, "SourceUnavailable", false),
        (429, "SourceUnavailable", false),
        (500, "SourceUnavailable", false),
        (503, "SourceUnavailable", false),
    ];
    for (status, reason, is_final) in expected {
        let error = target.fetch(&server.url(&format!("/{status}"))).await.unwrap_err();
        assert_eq!((error.reason(), error.is_final()), (reason, is_final), "{status}");
    }
    assert_eq!(target.files(), 0);
}

#[tokio::test]
async fn redirects_are_followed_ten_times() {
    let server = TestServer::start(|request, _| match request.path[1..].parse::<u32>() {
        Ok(0) => Reply::ok(b"arrived"),
        Ok(left) => Reply::status(302).with("Location", format!("/{}", left - 1)),
        Err(_) => Reply::status(301).with("Location", "file:///etc/passwd"),
    });
    let target = Target::new();
    assert_eq!(target.fetch(&server.url("/10")).await.unwrap(), b"arrived");
    let error = target.fetch(&server.url("/11")).await.unwrap_err();
    assert_eq!(error.reason(), "RedirectRefused");
    assert!(error.is_final() && error.to_string().contains("more than 10"), "{error}");
    assert!(target.fetch(&server.url("/elsewhere")).await.unwrap_err().is_final());
}

#[test]
fn redirects_never_give_up_the_encryption() {
    let url = |text: &str| Url::parse(text).unwrap();
    let (plain, secret) = (url("http://a/"), url("https://a/"));
    assert_eq!(check_redirect(std::slice::from_ref(&plain), &plain), Ok(()));
    assert_eq!(check_redirect(std::slice::from_ref(&plain), &secret), Ok(()));
    let downgrade = check_redirect(&[plain.clone(), secret], &url("http://a/?token=x"));
    assert_eq!(downgrade, Err(RedirectRefusal::Downgrade("http://a/".into())));
    let other = check_redirect(&[plain], &url("ftp://a/"));
    assert_eq!(other, Err(RedirectRefusal::Scheme("ftp".into())));
}

/// Path and credentials of every request that a server got.
fn asked(server: &TestServer) -> Vec<(String, Option<String>)> {
    let seen = server.requests().into_iter();
    seen.map(|request| (request.path.clone(), request.header("authorization").map(str::to_owned))).collect()
}

#[tokio::test]
async fn credentials_are_sent_to_the_origin_of_the_address_and_nowhere_else() {
    let basic = [("username", "Aladdin"), ("password", "open sesame")];
    for (keys, expected) in [
        (&basic[..], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (&[("token", "mF_9.B5f-4.1JqM")], "Bearer mF_9.B5f-4.1JqM"),
    ] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = format!("http://{}", port.local_addr().unwrap());
        let target_of_redirect = elsewhere.clone();
        let origin = TestServer::start(move |request, _| match request.path.as_str() {
            "/moved" => Reply::status(301).with("Location", "/here"),
            "/away" => Reply::status(302).with("Location", format!("{target_of_redirect}/first")),
            _ => Reply::ok(b"content"),
        });
        let back = origin.url("/again");
        let other = TestServer::serve_on(port, move |request, _| match request.path.as_str() {
            // Another page of the same host, and an address with a user of its own.
            "/first" => Reply::status(307).with("Location", "/second"),
            "/second" => Reply::status(307).with("Location", elsewhere.replace("http://", "http://u:p@") + "/third"),
            _ => Reply::status(303).with("Location", back.clone()),
        });
        let target = Target::with_keys(keys);
        for path in ["/moved", "/away"] {
            assert_eq!(target.fetch(&origin.url(path)).await.unwrap(), b"content");
        }
        let with = |path: &str| (path.to_owned(), Some(expected.to_owned()));
        let without = |path: &str| (path.to_owned(), None);
        assert_eq!(asked(&origin), [with("/moved"), with("/here"), with("/away"), without("/again")]);
        assert_eq!(asked(&other), [without("/first"), without("/second"), without("/third")]);
    }
}

#[tokio::test]
async fn the_rest_of_a_download_is_asked_for_with_credentials_too() {
    let server = TestServer::start(|request, number| {
        let reply = Reply::file(request, "\"1\"", &content(1));
        match request.header("authorization") {
            Some("Bearer abc") if number == 0 => reply.cut(100_000),
            Some("Bearer abc") => reply,
            _ => Reply::status(401),
        }
    });
    let target = Target::with_keys(&[("token", "abc")]);
    assert_eq!(target.reason(&server.url("/")).await, "SourceUnavailable");
    assert_eq!(target.fetch(&server.url("/")).await.unwrap(), content(1));
    assert_eq!(server.requests()[1].range(), Some(100_000));
}

#[tokio::test]
async fn refused_credentials_are_final_and_the_error_says_whether_they_were_sent() {
    let other = TestServer::start(|_, _| Reply::status(403));
    let away = other.url("/");
    let server = TestServer::start(move |request, _| match request.path.as_str() {
        "/away" => Reply::status(302).with("Location", away.clone()),
        _ => Reply::status(401),
    });
    let wrong = Target::with_keys(&[("token", "tell-tale")]);
    for (target, path, said, field) in [
        (&wrong, "/", "status 401 (the credentials of spec.source.secretRef were sent)", "spec.source.secretRef"),
        (&wrong, "/away", "status 403 (a redirect led to another host, to which", "spec.source.uri"),
        (&Target::new(), "/", "status 401 (no credentials were sent", "spec.source.uri"),
    ] {
        let error = target.fetch(&server.url(path)).await.unwrap_err();
        assert_eq!((error.reason(), error.field(), error.is_final()), ("SourceRefused", field, true), "{error}");
        let message = error.to_string();
        assert!(message.contains(said) && !message.contains("tell-tale"), "{message}");
    }
}

#[tokio::test]
async fn nobody_listening_is_final() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Target::new().fetch(&format!("http://{address}/")).await.unwrap_err();
    assert_eq!(error.reason(), "ConnectionRefused");
    assert!(error.is_final() && error.may_heal());
}

#[tokio::test]
async fn a_name_that_dns_does_not_know_is_named_and_tried_again() {
    // A rule that checks addresses asks no proxy. No label may be so long: nobody has to be asked for its address either.
    let downloader = Downloader::new(RetryPolicy::Once, AddressRule::checked(Vec::new(), Vec::new()));
    let target = Target { downloader, ..Target::new() };
    let name = format!("{}.invalid", "n".repeat(64));
    let error = target.fetch(&format!("http://{name}/app")).await.unwrap_err();
    let about = (error.reason(), error.field(), error.is_final());
    assert_eq!(about, ("NameUnresolved", "spec.source.uri", false), "{error}");
    let message = error.to_string();
    for words in [format!("the name {name:?} is not known to DNS").as_str(), "correct spec.source.uri (together with"] {
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn lengths_that_are_wrong_are_noticed() {
    let server = TestServer::start(|request, _| match request.path.as_str() {
        "/short" => Reply::ok(b"12345").with("Content-Length", "10"),
        "/chunks" => Reply::ok(b"5\r\n12345\r\n0\r\n\r\n").with("Transfer-Encoding", "chunked"),
        "/open" => Reply::ok(b"5\r\n12345\r\n").with("Transfer-Encoding", "chunked"),
        _ => Reply::ok(b""),
    });
    let target = Target::new();
    assert_eq!(target.reason(&server.url("/short")).await, "SourceUnavailable");
    assert_eq!(target.reason(&server.url("/open")).await, "SourceUnavailable");
    assert_eq!(target.fetch(&server.url("/chunks")).await.unwrap(), b"12345");
    assert_eq!(target.fetch(&server.url("/empty")).await.unwrap(), b"");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let server = TestServer::start(|_, _| Reply { hang: true, ..Reply::ok(&content(1)).cut(1000) });
    let downloader = Downloader { stall_timeout: Duration::from_millis(300), rule: AddressRule::any() };
    let target = Target { downloader, ..Target::new() };
    let error = target.fetch(&server.url("/")).await.unwrap_err();
    assert!(error.to_string().contains("no byte for"), "{error}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn a_server_that_sends_a_byte_now_and_then_is_left() {
    let trickle = Some(Duration::from_millis(20));
    let server = TestServer::start(move |_, _| Reply { trickle, ..Reply::ok(&content(1)).cut(100) });
    let downloader = Downloader { stall_timeout: Duration::from_millis(300), rule: AddressRule::any() };
    let target = Target { downloader, ..Target::new() };
    let error = target.fetch(&server.url("/")).await.unwrap_err();
    assert!(error.to_string().contains("bytes in 0 s"), "{error}");
    assert!(!error.is_final());
}

#[tokio::test]
async fn more_than_fits_is_refused_before_and_while_it_arrives() {
    let server = TestServer::start(|request, _| match request.path.as_str() {
        "/announced" => Reply { hang: true, ..Reply::ok(b"").with("Content-Length", "1000000") },
        _ => Reply::ok(&[b"186a0\r\n".as_slice(), &[0; 100_000], b"\r\n0\r\n\r\n"].concat())
            .with("Transfer-Encoding", "chunked"),
    });
    let target = Target { limit_left_bytes: Some(50_000), ..Target::new() };
    match target.fetch(&server.url("/announced")).await.unwrap_err() {
        SourceError::DiskFull { need, have, .. } => assert_eq!((need, have), (1_000_000, 50_000)),
        error => panic!("{error}"),
    }
    assert_eq!(target.reason(&server.url("/endless")).await, "DiskFull");
    assert_eq!(target.files(), 0, "what has no end makes room for others");
}

#[tokio::test]
async fn a_cancelled_download_keeps_what_arrived() {
    let server = TestServer::start(|request, number| {
        let reply = Reply::file(request, "\"1\"", &content(1));
        if number == 0 { Reply { hang: true, ..reply.cut(100_000) } } else { reply }
    });
    let mut target = Target::new();
    let cancel = target.cancel.clone();
    let stop = async {
        // Whenever this comes, before or after the first bytes, the rest must fit.
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let url = server.url("/");
    let (result, ()) = tokio::join!(target.fetch(&url), stop);
    assert_eq!(result.unwrap_err().reason(), "Cancelled");
    target.cancel = CancellationToken::new();
    assert_eq!(target.fetch(&url).await.unwrap(), content(1));
}

#[tokio::test]
async fn published_content_is_never_written_to() {
    let server = TestServer::start(|request, number| Reply::file(request, "\"1\"", &content(number as u8)));
    let target = Target::new();
    let url = server.url("/");
    target.fetch(&url).await.unwrap();
    let partial = Partial::new(target.folder.path(), &package(), &uri::parse_url(&url).unwrap(), None);
    let published = target.folder.path().join("published");
    partial.link_to(&published).unwrap();
    // As after a power loss that took the knowledge that it was complete.
    partial.save(&Pinned { validator: Some("\"1\"".into()), flushed_bytes: 1000, ..partial.load() }).unwrap();
    let stale = Pinned { complete: false, ..partial.load() };
    partial.save(&stale).unwrap();
    assert_eq!(target.fetch(&url).await.unwrap(), content(1));
    assert_eq!(fs::read(&published).unwrap(), content(0));
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_is_refused() {
    crate::http::install_tls_provider();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let config = Arc::new(config);
        for mut stream in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = connection.complete_io(&mut stream);
            let _ = stream.read(&mut [0; 100]);
        }
    });
    let error = Target::new().fetch(&format!("https://localhost:{port}/")).await.unwrap_err();
    assert_eq!(error.reason(), "ServerUntrusted", "{error}");
}

#[test]
fn old_downloads_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.partial"), b"x").unwrap();
    let now = std::time::SystemTime::now();
    Partial::remove_old(folder.path(), now).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    Partial::remove_old(folder.path(), now + Duration::from_secs(8 * 24 * 3600)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_was_not_flushed_takes_no_room_from_the_rest() {
    const STATE_FILE_BYTES: u64 = 4 << 10;
    let (root, content) = (tempfile::tempdir().unwrap(), content(1));
    let total_bytes = content.len() as u64;
    let limits = StoreLimits { limit_bytes: Some(total_bytes + STATE_FILE_BYTES) };
    let library = Arc::new(NodeStore::open(root.path(), limits).unwrap());
    let url = uri::parse_url("http://a/").unwrap();
    let partial = Partial::new(&library.downloads_folder().unwrap(), &package(), &url, None);
    fs::write(partial.data(), &content[..200_000]).unwrap();
    let pinned = Pinned { flushed_bytes: 100_000, total_bytes: Some(total_bytes), ..Pinned::default() };
    partial.save(&pinned).unwrap();
    let (sender, pieces) = mpsc::channel(2);
    sender.blocking_send(Piece::Bytes(Bytes::copy_from_slice(&content[100_000..]))).unwrap();
    sender.blocking_send(Piece::End).unwrap();
    let quota = Quota::Library(library);
    let writer =
        Writer { partial: partial.clone(), uri: url.to_string(), digest: None, quota, progress: Arc::default() };
    let written = writer.run(pinned, Some(total_bytes - 100_000), pieces);
    assert!(matches!(written, Ok(Written::All)), "{:?}", written.err());
    assert_eq!(fs::read(partial.data()).unwrap(), content);
}

#[test]
fn downloads_that_nobody_asks_for_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let [kept, other] = ["http://a/", "http://b/"].map(|url| {
        let partial = Partial::new(folder.path(), &package(), &uri::parse_url(url).unwrap(), None);
        fs::write(partial.data(), b"x").unwrap();
        partial.save(&Pinned { flushed_bytes: 1, ..Pinned::default() }).unwrap();
        partial
    });
    Partial::remove_others(folder.path(), std::slice::from_ref(&kept)).unwrap();
    assert_eq!((kept.load().flushed_bytes, other.data().exists()), (1, false));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
