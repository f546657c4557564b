//! Sources that change while they are read: what arrives is one content as a whole, or nothing and a clear word.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::objects::{content, package, two_offices};
use crate::origin::{Answer, origin};
use crate::place::{PACKAGE_FAILED, Place};

const BYTES: usize = 2 << 20;

#[test]
fn source_that_changes_arrives_whole_or_not_at_all() {
    let place = Place::new(104);
    let web = origin(|asked| {
        let (old, new) = (content("old", BYTES), content("new", BYTES));
        match (asked.path.as_str(), asked.range) {
            // Replaced after the connection broke; the validator tells.
            ("/replaced", None) => Answer::file(asked, "\"old\"", &old).cut(BYTES / 2),
            ("/replaced", Some(_)) => Answer::file(asked, "\"new\"", &new),
            // The same, from an origin that sends the rest whatever the validator says.
            ("/careless", None) if asked.number < 3 => Answer::file(asked, "\"old\"", &old).cut(BYTES / 2),
            ("/careless", Some(_)) => Answer::file(asked, asked.if_range.as_deref().unwrap_or_default(), &new),
            ("/careless", None) => Answer::file(asked, "\"new\"", &new),
            // Another content with every request, and never to its end.
            _ => Answer::file(asked, &format!("\"{}\"", asked.number), &content("any", BYTES)).cut(BYTES / 2),
        }
    });
    let growing = place.write("growing", &content("growing", 16 << 20));
    let new_digest = "sha256:".to_owned() + &sha256(&content("new", BYTES));
    let pinned = |path: &str| format!("source: {{uri: \"{web}{path}\", digest: \"{new_digest}\"}}");
    let objects = [
        two_offices(),
        package("replaced", "1", &format!("{web}/replaced"), ""),
        package("careless", "1", "", &pinned("/careless")),
        package("restless", "1", &format!("{web}/restless"), ""),
        package("growing", "1", &place.uri("growing"), ""),
    ];
    place.objects(&objects.concat());

    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (done, mut file) = (done.clone(), OpenOptions::new().append(true).open(growing).unwrap());
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                thread::sleep(std::time::Duration::from_millis(1));
            }
        })
    };
    let ended = place.once();
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();

    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    for package in ["replaced", "careless"] {
        for node in ["central-1", "store-1", "store-2"] {
            place.assert_file(node, package, package, &content("new", BYTES));
        }
    }
    let uri = "spec.source.uri";
    let restless = [&format!("{web}/restless did not deliver"), "see whether its server works"];
    ended.assert_error("PackageDistribution demo/restless", uri, "SourceUnavailable", &restless);
    let changed = ["changed while it was read", "growing", "publish from a place that nobody writes to"];
    ended.assert_error("PackageDistribution demo/growing", uri, "SourceChanged", &changed);
    assert_eq!(ended.errors().len(), 2, "{:#?}", ended.errors());
    for node in ["central-1", "store-1", "store-2"] {
        assert!(!place.current(node, "restless").exists() && !place.current(node, "growing").exists());
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
