//! Decoders against arbitrary bytes and against valid ones that were tampered with. The valid ones are the committed
//! seeds of the fuzz targets; `UPDATE_GENERATED=1` rewrites them.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use ::tar::{Builder, EntryType, Header};
use ::zip::write::{SimpleFileOptions, ZipWriter};
use flate2::Compression;
use flate2::write::GzEncoder;
use peerdist_core::decoders::mutated;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{SigningDomain, sign};
use peerdist_core::wire::proto::{self, control::Signal};
use proptest::prelude::*;
use prost::Message;

use super::*;

/// Longest arbitrary input that is tried.
const INPUT_BYTES_MAX: usize = 2048;

const OBJECTS: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {type: Wired}\n---\n\
    apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\nmetadata: {name: app, namespace: retail}\n\
    spec:\n  version: \"1\"\n  source: {uri: file:app}\n  schedule: {notBefore: \"2026-12-01T22:00:00Z\"}\n";

fn framed(messages: &[impl Message]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|message| {
            let bytes = message.encode_to_vec();
            [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
        })
        .collect()
}

fn tar() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        if kind == EntryType::Symlink {
            header.set_link_name("app").unwrap();
        }
        builder.append_data(&mut header, path, content).unwrap();
    };
    add("bin", EntryType::Directory, b"");
    add("bin/app", EntryType::Regular, b"content");
    add("bin/link", EntryType::Symlink, b"");
    builder.into_inner().unwrap()
}

fn zip() -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("bin/app", SimpleFileOptions::default()).unwrap();
    writer.write_all(b"content").unwrap();
    writer.add_symlink("bin/link", "app", SimpleFileOptions::default()).unwrap();
    writer.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn journal_rows() -> Vec<u8> {
    let page = |bytes: &[u8]| proto::PageRef {
        digest: Digest::of(bytes).as_bytes().to_vec().into(),
        compressed_bytes: 100,
        ..Default::default()
    };
    let root = proto::ManifestRoot {
        package: Some(proto::Package { namespace: "n".into(), name: "p".into(), version: "1".into() }),
        sequence: 1,
        total_bytes: 5,
        entry_count: 1,
        chunk_count: 1,
        chunk_bytes_average: 1 << 16,
        entry_pages: vec![page(b"entries")],
        chunk_pages: vec![page(b"chunks")],
    };
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let signed = sign(SigningDomain::ManifestRoot, root.encode_to_vec().into(), &key).encode_to_vec();
    let record = br#"{"stage":"Staged","superseded_at_seconds":null,"sparse":false}"#;
    [&[record.len() as u8, 1][..], record, &[1], &signed].concat()
}

/// Valid inputs of every decoder.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let start = TransferStart { transfer: 1, digest: vec![7; 32].into(), traceparent: String::new() };
    let frames = [framed(&[start]), vec![0, 0, 0, 9, 0, 0, 0, 3], b"abc".to_vec()].concat();
    let more = proto::MoreRuns { runs: vec![proto::Run { first: 3, count: 4 }] };
    let signals = [Signal::Pause(true), Signal::Want(more), Signal::RateBitsPerSecond(1_000_000), Signal::Class(2)];
    let token = format!("peerdist1:{}:{}\n", "ab".repeat(32), "cd".repeat(32));
    vec![
        ("transfer_frames", "valid", frames),
        ("control_frames", "valid", framed(&signals.map(|signal| Control { signal: Some(signal) }))),
        ("join_token", "valid", token.into_bytes()),
        ("objects", "valid.yaml", OBJECTS.as_bytes().to_vec()),
        ("source_uri", "file", b"file:folder/app%20one".to_vec()),
        ("source_uri", "https", b"https://user@repo.example.com:8443/app.tar.zst?version=7#part".to_vec()),
        ("http_headers", "valid", b"bytes 100-199/200\n\"strong\"".to_vec()),
        ("archive", "tar", tar()),
        ("archive", "tar.gz", gzip(&tar())),
        ("archive", "tar.zst", ::zstd::encode_all(&tar()[..], 3).unwrap()),
        ("archive", "zip", zip()),
        ("journal", "valid", journal_rows()),
    ]
}

fn decoder(name: &str) -> fn(&[u8]) -> bool {
    ALL.into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn seeds_are_accepted_and_are_the_committed_ones() {
    for (name, file, bytes) in seeds() {
        let accepted = decoder(name)(&bytes);
        assert!(accepted || file == "https", "{name} refuses its seed {file}");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds").join(name);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), &bytes).unwrap();
        }
        let committed = std::fs::read(folder.join(file)).unwrap_or_default();
        assert!(committed == bytes, "{name}/{file} is out of date: run the tests with UPDATE_GENERATED=1");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..INPUT_BYTES_MAX)) {
        for (_, decode) in ALL {
            decode(&bytes);
        }
    }

    #[test]
    fn tampered_bytes_are_decoded_or_refused(
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        cut in 0_usize..64,
        doubled in any::<bool>(),
    ) {
        for (name, _, bytes) in seeds() {
            let length = if doubled { bytes.len() * 2 } else { bytes.len() };
            decoder(name)(&mutated(&bytes, &changes, length.saturating_sub(cut)));
        }
    }
}
