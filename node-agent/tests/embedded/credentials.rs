//! Sources that ask for credentials, which lie in Secrets beside the objects.

use crate::objects::{content, package, two_offices};
use crate::origin::{Answer, origin};
use crate::place::{PACKAGE_FAILED, Place};

/// What the origin wants: the user `ci` with the password `seven-dwarfs`.
const ACCEPTED: &str = "Basic Y2k6c2V2ZW4tZHdhcmZz";

fn guarded(bytes: Vec<u8>) -> String {
    origin(move |asked| match asked.authorization.as_deref() {
        Some(ACCEPTED) => Answer::file(asked, "\"1\"", &bytes),
        _ => Answer::status(401),
    })
}

fn secret(name: &str, password: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: demo}}\n\
         stringData: {{username: ci, password: {password}}}\n"
    )
}

fn asking(name: &str, web: &str, secret: &str) -> String {
    let source = format!("source: {{uri: \"{web}/app.bin\", secretRef: {{name: {secret}}}}}");
    package(name, "1", "", &source)
}

#[test]
fn each_source_is_asked_with_its_own_secret_and_missing_ones_are_named() {
    let (place, bytes) = (Place::new(122), content("guarded", 300_000));
    let web = guarded(bytes.clone());
    let objects = [
        two_offices(),
        secret("right", "seven-dwarfs"),
        secret("wrong", "snow-white"),
        asking("app", &web, "right"),
        asking("refused", &web, "wrong"),
        asking("unknown", &web, "nobody"),
        package("without", "1", &format!("{web}/app.bin"), ""),
        asking("open", "http://repo.example.com", "right"),
    ];
    place.objects(&objects.concat());
    let ended = place.once();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    for node in ["central-1", "store-1", "store-2"] {
        place.assert_file(node, "app", "app.bin", &bytes);
    }
    let of = |name: &str, field: &str, reason: &str, words: &[&str]| {
        ended.assert_error(&format!("PackageDistribution demo/{name}"), field, reason, words);
    };
    let field = "spec.source.secretRef";
    of("refused", field, "SourceRefused", &["status 401 (the credentials of spec.source.secretRef were sent)"]);
    of("unknown", field, "SecretNotFound", &["Secret demo/nobody does not exist", "create it"]);
    of("without", "spec.source.uri", "SourceRefused", &["status 401 (no credentials were sent"]);
    of("open", field, "CredentialsNeedTls", &["readable on the way", "expected an https:// source"]);
    for secret in ["seven-dwarfs", "snow-white", ACCEPTED] {
        assert!(!ended.said.contains(secret) && !ended.report.to_string().contains(secret), "{}", ended.said);
    }
}

#[test]
fn a_corrected_secret_is_tried_at_once() {
    let (place, bytes) = (Place::new(123), content("guarded", 100_000));
    let objects = [two_offices(), asking("app", &guarded(bytes.clone()), "repo")].concat();
    place.objects(&(objects.clone() + &secret("repo", "snow-white")));
    let mut run = place.start();
    run.until_said("status 401");
    place.objects(&(objects + &secret("repo", "seven-dwarfs")));
    run.until("published", || place.current("store-2", "app").join("app.bin").exists());
    place.assert_file("store-2", "app", "app.bin", &bytes);
    run.interrupt();
}
