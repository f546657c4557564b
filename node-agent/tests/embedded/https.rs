//! Sources behind TLS. Whom to trust is said as users and the operator say it, by the variables that other programs of the
//! machine take it from, too.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
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

/// Puts a file in force as kubelet does with a key of a ConfigMap: in a folder of its own, to which a rename turns the link
/// `..data`.
fn project(place: &Place, version: &str, certificates: &str) {
    place.write(&format!("authorities/..{version}/ca.crt"), certificates.as_bytes());
    let folder = place.path("authorities");
    symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !folder.join("ca.crt").is_symlink() {
        symlink("..data/ca.crt", folder.join("ca.crt")).unwrap();
    }
}

#[test]
fn authorities_of_a_config_map_count_beside_those_of_the_image_and_an_edit_of_it_without_a_restart() {
    let bytes = content("signed", 100_000);
    let signed = || {
        let bytes = bytes.clone();
        tls_origin(move |asked| Answer::file(asked, "\"1\"", &bytes))
    };
    let ((public, of_image), (company, first), (partner, second)) = (signed(), signed(), signed());
    let place = Place::new(143);
    project(&place, "2026_01", &first);
    let from = |name: &str, web: &str| package(name, "1", &format!("{web}/app.bin"), "");
    let packages = [from("public", &public), from("company", &company), from("partner", &partner)];
    let objects = two_offices() + &packages.concat();
    place.objects(&objects);
    let mut command = place.command();
    command.env("SSL_CERT_FILE", place.write("of-image.pem", of_image.as_bytes()));
    command.env("SSL_CERT_DIR", place.path("authorities"));
    let mut run = Run::start(command);
    let published = |name: &str| place.current("store-2", name).join("app.bin").exists();
    run.until("both published", || published("public") && published("company"));
    run.until_said("the server is not trusted");
    assert!(!published("partner"), "nobody vouches for it yet");

    project(&place, "2026_02", &(first + &second));
    // The next try of a source that was not trusted is minutes away; one that is new is tried at once.
    place.objects(&(objects + &from("later", &partner)));
    run.until("published", || published("later"));
    for name in ["public", "company", "later"] {
        place.assert_file("store-2", name, "app.bin", &bytes);
    }
    run.interrupt();
}
