//! Sources behind TLS. Whom to trust is said as users say it, by the variable that other programs of the machine take it
//! from, too.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::objects::{content, package, two_offices};
use crate::origin::{Answer, Asked, listen};
use crate::place::{DONE, PACKAGE_FAILED, Place, Run};

const TOKEN: &str = "seven-dwarfs";

/// Starts an origin that speaks TLS only, and gives its address and, as PEM, the private root that vouches for it.
fn tls_origin(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (String, String) {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "private root of a test");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().unwrap();
    let root_certificate = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = own.signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let accepted = move |stream: TcpStream| StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
    (format!("https://{}", listen(accepted, answer)), root_certificate)
}

#[test]
fn sources_behind_tls_are_fetched_with_credentials_once_their_root_is_trusted() {
    let (open, guarded) = (content("open", 300_000), content("guarded", 200_000));
    let (heard, bearer) = (Arc::new(AtomicUsize::new(0)), format!("Bearer {TOKEN}"));
    let (counted, open_bytes, guarded_bytes) = (heard.clone(), open.clone(), guarded.clone());
    let (web, root) = tls_origin(move |asked| {
        counted.fetch_add(1, Ordering::Relaxed);
        match (asked.path.as_str(), asked.authorization.as_deref()) {
            ("/open.bin", None) => Answer::file(asked, "\"1\"", &open_bytes),
            ("/guarded.bin", Some(credentials)) if credentials == bearer => {
                Answer::file(asked, "\"1\"", &guarded_bytes)
            }
            _ => Answer::status(401),
        }
    });
    let place = Place::new(142);
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: repo, namespace: demo}}\nstringData: {{token: {TOKEN}}}\n"
    );
    let with_secret = format!("source: {{uri: \"{web}/guarded.bin\", secretRef: {{name: repo}}}}");
    let packages = package("open", "1", &format!("{web}/open.bin"), "") + &package("guarded", "1", "", &with_secret);
    place.objects(&[two_offices(), secret, packages].concat());

    let untrusted = place.once();
    assert_eq!(untrusted.code, Some(PACKAGE_FAILED), "{}", untrusted.said);
    for name in ["open", "guarded"] {
        let (object, words) = (format!("PackageDistribution demo/{name}"), ["the server is not trusted"]);
        untrusted.assert_error(&object, "spec.source.uri", "ServerUntrusted", &words);
    }
    assert_eq!(heard.load(Ordering::Relaxed), 0, "whoever is not trusted hears nothing, credentials least of all");

    let mut command = place.command();
    command.arg("--once").env("SSL_CERT_FILE", place.write("trusted.pem", root.as_bytes()));
    let trusted = Run::start(command).wait();
    assert_eq!(trusted.code, Some(DONE), "{}", trusted.said);
    for node in ["central-1", "store-1", "store-2"] {
        place.assert_file(node, "open", "open.bin", &open);
        place.assert_file(node, "guarded", "guarded.bin", &guarded);
    }
}
