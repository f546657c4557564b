//! Wrong bytes, hostile manifests, files that change under us.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerdist_core::chunk_set::ChunkRun;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ManifestRoot, SigningDomain, sign};
use peerdist_core::wire::proto;
use prost::Message;

use super::fixture::{Root, TestPackage, content, file, held, inside, key, rewrite, set_mode};
use crate::store::{NodeStore, ReadError, StoreError, VerifyReport};

#[test]
fn other_bytes_than_the_manifest_names_are_refused() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    let write = |index, bytes: &[u8]| store.write_chunk(package.digest(), index, &Bytes::copy_from_slice(bytes));
    assert!(matches!(write(0, &package.chunks[0]), Err(StoreError::NotPrepared(_))));
    store.prepare(package.digest()).unwrap();
    let mut flipped = package.chunks[2].to_vec();
    flipped[17] ^= 1;
    let cases: [(u32, &[u8]); 5] =
        [(2, &flipped), (2, &package.chunks[3]), (2, b""), (2, &flipped[1..]), (u32::MAX, &package.chunks[2])];
    for (index, bytes) in cases {
        assert!(matches!(write(index, bytes), Err(StoreError::ChunkRefused { .. })), "{index}");
    }
    assert!(matches!(store.read_chunk(package.digest(), 2), Err(ReadError::Missing { .. })));
    assert!(matches!(
        store.write_chunk(Digest::of(b"?"), 0, &Bytes::from_static(b"x")),
        Err(StoreError::UnknownPackage(_))
    ));
}

/// A signed manifest of any entries, without the checks of the builder: what a stolen key could make.
fn forged(entries: Vec<proto::Entry>, chunk: &[u8]) -> (ManifestRoot, Vec<(Digest, Vec<u8>)>) {
    let page = |raw: Vec<u8>| {
        let bytes = zstd::bulk::compress(&raw, 1).unwrap();
        (Digest::of(&bytes), bytes)
    };
    let reference = |page: &(Digest, Vec<u8>)| proto::PageRef {
        digest: Bytes::copy_from_slice(page.0.as_bytes()),
        compressed_bytes: page.1.len() as u32,
        first_index: 0,
        first_byte: 0,
    };
    let entry_count = entries.len() as u32;
    let entry_page = page(proto::EntryPage { entries }.encode_to_vec());
    let digests = Bytes::copy_from_slice(Digest::of(chunk).as_bytes());
    let chunk_page = page(proto::ChunkPage { digests, lengths: vec![chunk.len() as u32] }.encode_to_vec());
    let body = proto::ManifestRoot {
        package: Some(proto::Package { namespace: "retail".into(), name: "pos".into(), version: "1.0".into() }),
        sequence: 1,
        total_bytes: chunk.len() as u64,
        entry_count,
        chunk_count: 1,
        chunk_bytes_average: 16 << 10,
        entry_pages: vec![reference(&entry_page)],
        chunk_pages: vec![reference(&chunk_page)],
    };
    let signing = SigningKey::from_bytes(&[9; 32]);
    let signed = sign(SigningDomain::ManifestRoot, body.encode_to_vec().into(), &signing);
    (ManifestRoot::verify(&signed, &[signing.verifying_key()]).unwrap(), vec![entry_page, chunk_page])
}

fn entry(path: &'static [u8], kind: i32, bytes: u64, target: &'static [u8]) -> proto::Entry {
    proto::Entry {
        path: Bytes::from_static(path),
        kind,
        bytes,
        link_target: Bytes::from_static(target),
        executable: false,
    }
}

#[test]
fn hostile_manifests_write_nothing_outside_and_nothing_inside() {
    const FILE: i32 = 1;
    const DIRECTORY: i32 = 2;
    const LINK: i32 = 3;
    let payload = b"owned";
    let victim = |path| entry(path, FILE, payload.len() as u64, b"");
    let corpus: Vec<(&str, Vec<proto::Entry>)> = vec![
        ("parent", vec![victim(b"../escaped")]),
        ("deep parent", vec![entry(b"a", DIRECTORY, 0, b""), victim(b"a/../../escaped")]),
        ("absolute", vec![victim(b"/tmp/escaped")]),
        ("NUL", vec![victim(b"a\0b")]),
        ("dot", vec![victim(b"./a")]),
        ("empty", vec![victim(b"")]),
        ("link out", vec![entry(b"out", LINK, 0, b"../.."), victim(b"z")]),
        ("absolute link", vec![entry(b"out", LINK, 0, b"/etc"), victim(b"z")]),
        ("link through link", vec![entry(b"out", LINK, 0, b"x/../../.."), victim(b"z")]),
        ("file under link", vec![entry(b"out", LINK, 0, b"z"), victim(b"out/escaped"), entry(b"z", DIRECTORY, 0, b"")]),
        ("file under file", vec![entry(b"a", FILE, 0, b""), victim(b"a/b")]),
        ("no parent", vec![victim(b"a/b")]),
        ("duplicate", vec![entry(b"a", FILE, 0, b""), victim(b"a")]),
        ("disorder", vec![entry(b"b", FILE, 0, b""), victim(b"a")]),
        ("device", vec![entry(b"a", 4, 0, b""), victim(b"b")]),
        ("sizes", vec![entry(b"a", FILE, 9, b"")]),
        ("sum that wraps", vec![entry(b"a", FILE, u64::MAX, b""), entry(b"b", FILE, 6, b"")]),
    ];
    for (name, entries) in corpus {
        let root = Root::new();
        let store = root.open();
        let (manifest, pages) = forged(entries, payload);
        store.put_root(&manifest).unwrap();
        for (digest, bytes) in pages {
            store.put_page(manifest.digest(), digest, &bytes).unwrap();
        }
        let refused = store.prepare(manifest.digest());
        let refused = refused.expect_err(name);
        assert_eq!(refused.reason(), "ManifestRefused", "{name}: {refused}");
        assert!(store.write_chunk(manifest.digest(), 0, &Bytes::from_static(payload)).is_err());
        assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(root.path().join("packages")).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(root.0.path()).unwrap().count(), 1, "{name}");
    }
}

#[test]
fn a_link_that_someone_puts_into_staging_is_not_followed() {
    let root = Root::new();
    let package = TestPackage::new("1.0", vec![super::fixture::directory("d"), file("d/a", content(1, 100_000))]);
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    let outside = root.0.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a"), vec![0; 100_000]).unwrap();
    let staged = root.path().join("staging").join(package.digest().to_hex());
    fs::rename(staged.join("d"), staged.join("moved")).unwrap();
    symlink(&outside, staged.join("d")).unwrap();
    assert!(store.write_chunk(package.digest(), 0, &package.chunks[0]).is_err());
    assert_eq!(fs::read(outside.join("a")).unwrap(), vec![0; 100_000]);
    fs::remove_file(staged.join("d")).unwrap();
    fs::rename(staged.join("moved"), staged.join("d")).unwrap();
    fs::remove_file(staged.join("d/a")).unwrap();
    symlink(outside.join("a"), staged.join("d/a")).unwrap();
    package.write(&store, 0..package.count());
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
    assert_eq!(fs::read(outside.join("a")).unwrap(), vec![0; 100_000]);
}

fn damage(root: &Root, change: impl FnOnce(&std::path::Path)) {
    let (package, store) = (TestPackage::mixed("1.0"), root.open());
    package.deliver(&store);
    let top = store.published_path(&key("1.0"));
    let program = top.join("bin/pos");
    fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    change(&program);
    fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o555)).unwrap();
    if program.is_file() && !program.is_symlink() {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let lost: Vec<u32> = (0..package.count())
        .filter(|&index| match store.read_chunk(package.digest(), index) {
            Ok(bytes) => {
                assert_eq!(bytes, package.chunks[index as usize]);
                false
            }
            Err(ReadError::Corrupt { .. }) => true,
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert!(!lost.is_empty());
    assert_eq!(held(&store, package.digest()).len(), package.count() - lost.len() as u32);
    drop(store);
    let store = root.open();
    let missing = store.prepare(package.digest()).unwrap().available.complement();
    assert!(missing.iter().eq(lost.iter().copied()), "what is lost stays lost after a restart");
    // What a repair takes from a file that had to be made anew is lost, too.
    package.write(&store, missing.iter());
    let missing = store.prepare(package.digest()).unwrap().available.complement();
    package.write(&store, missing.iter());
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn repair_tells_what_else_a_file_lost_that_had_to_be_made_anew() {
    let (root, package) = (Root::new(), TestPackage::new("1.0", vec![file("a", content(1, 1_000_000))]));
    let store = root.open();
    package.deliver(&store);
    let place = store.published_path(&key("1.0")).join("a");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&place, fs::read(&place).unwrap().split_at(999_999).0).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o444)).unwrap();
    let last = package.count() - 1;
    assert!(last > 1 && store.read_chunk(package.digest(), last).is_err());
    store.prepare(package.digest()).unwrap();
    let outcome = store.write_chunk(package.digest(), last, &package.chunks[last as usize]).unwrap();
    assert_eq!(outcome.lost, [ChunkRun { first: 0, count: last }]);
    store.flush().unwrap();
    assert!(matches!(store.publish(package.digest()), Err(StoreError::NotComplete { .. })), "zeros are not content");
    package.write(&store, 0..last);
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
}

#[test]
fn a_file_that_changed_is_noticed_reported_and_repaired() {
    damage(&Root::new(), |file| {
        let mut content = fs::read(file).unwrap();
        content[150_000] ^= 0xff;
        fs::write(file, content).unwrap();
    });
}

#[test]
fn a_file_that_was_cut_or_grew_is_noticed_reported_and_repaired() {
    damage(&Root::new(), |file| fs::write(file, fs::read(file).unwrap().split_at(99_999).0).unwrap());
    damage(&Root::new(), |file| fs::write(file, [fs::read(file).unwrap(), vec![1]].concat()).unwrap());
}

#[test]
fn a_file_that_was_removed_or_replaced_is_noticed_reported_and_repaired() {
    damage(&Root::new(), |file| fs::remove_file(file).unwrap());
    damage(&Root::new(), |file| {
        fs::remove_file(file).unwrap();
        symlink("/etc/passwd", file).unwrap();
    });
    damage(&Root::new(), |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
        fs::write(file.join("x"), "x").unwrap();
    });
}

#[test]
fn verification_names_bad_files_and_has_them_fetched_again() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let readme = store.published_path(&key("1.0")).join("readme");
    fs::set_permissions(&readme, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&readme, vec![7; 50_000]).unwrap();
    let report = store.verify().unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.packages[0].chunks, package.count());
    assert!(report.packages[0].faults.iter().any(|fault| fault.path == "readme" && fault.chunk.is_some()));
    assert!(report.packages[0].faults.iter().all(|fault| fault.path != "bin/pos"));
    assert!(!held(&store, package.digest()).is_full());
    let again = store.verify().unwrap();
    assert!(again.packages[0].chunks < package.count(), "what is lost is not held");
    assert!(again.packages[0].faults.iter().any(|fault| fault.path == "readme" && fault.chunk.is_some()));
    assert!(!again.is_clean(), "and not healed by looking");
}

/// Delivers a package and changes its published tree.
fn changed(change: impl FnOnce(&Path)) -> (Root, TestPackage) {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    change(&store.published_path(&key("1.0")));
    (root, package)
}

fn verify(root: &Root) -> VerifyReport {
    NodeStore::open_to_verify(&root.path()).unwrap().verify().unwrap()
}

/// Expects that a verification names one path with one problem, besides chunks, and again when it looks again.
fn named(path: &str, problem: &str, change: impl FnOnce(&Path)) {
    let (root, _package) = changed(change);
    for _ in 0..2 {
        let report = verify(&root);
        assert!(!report.is_clean(), "{path}: {problem}");
        let faults = report.packages[0].faults.iter().filter(|fault| fault.chunk.is_none());
        let named: Vec<_> = faults.map(|fault| (fault.path.as_str(), fault.problem)).collect();
        assert_eq!(named, [(path, problem)]);
    }
}

#[test]
fn verification_names_sizes_and_modes_that_are_not_the_manifests() {
    let size = "its size is not the one that the manifest says";
    named("data/b", size, |top| rewrite(&top.join("data/b"), b"x"));
    named("data/a", size, |top| rewrite(&top.join("data/a"), &[0; 101]));
    named("bin/pos", "it should be executable and is not", |top| set_mode(&top.join("bin/pos"), 0o444));
    named("readme", "it is executable and should not be", |top| set_mode(&top.join("readme"), 0o555));
    let mode = "its mode is not that of a published file (0444, of a program 0555)";
    named("readme", mode, |top| set_mode(&top.join("readme"), 0o644));
    named("bin/pos", mode, |top| set_mode(&top.join("bin/pos"), 0o755));
    let mode = "its mode is not that of a published directory (0555)";
    named("data/empty", mode, |top| set_mode(&top.join("data/empty"), 0o755));
    named(".", mode, |top| set_mode(top, 0o755));
}

#[test]
fn verification_names_what_is_missing_replaced_or_foreign() {
    named("data/empty", "it is missing", |top| {
        inside(&top.join("data"), |data| fs::remove_dir(data.join("empty")).unwrap());
    });
    named("data/latest", "it leads elsewhere than the manifest says", |top| {
        inside(&top.join("data"), |data| {
            fs::remove_file(data.join("latest")).unwrap();
            symlink("a", data.join("latest")).unwrap();
        });
    });
    named("data/b", "it is something else than the manifest says", |top| {
        inside(&top.join("data"), |data| {
            fs::remove_file(data.join("b")).unwrap();
            symlink("a", data.join("b")).unwrap();
        });
    });
    let foreign = "it does not belong to the package";
    named("data/theirs", foreign, |top| inside(&top.join("data"), |data| fs::write(data.join("theirs"), "x").unwrap()));
    named("data/empty/theirs", foreign, |top| {
        inside(&top.join("data/empty"), |empty| symlink("..", empty.join("theirs")).unwrap());
    });
    named("theirs", foreign, |top| {
        inside(top, |top| {
            fs::create_dir(top.join("theirs")).unwrap();
            fs::write(top.join("theirs/more"), "x").unwrap();
        });
    });
    named("th\x1beirs", foreign, |top| inside(top, |top| fs::write(top.join("th\x1beirs"), "x").unwrap()));
}

#[test]
fn all_that_is_in_a_missing_directory_is_missing() {
    let (root, _package) = changed(|top| inside(top, remove_data));
    let report = verify(&root);
    for path in ["data", "data/a", "data/b", "data/empty", "data/latest"] {
        let named = |fault: &&crate::store::VerifyFault| fault.path == path && fault.problem == "it is missing";
        assert_eq!(report.packages[0].faults.iter().filter(named).count(), 1, "{path}");
    }
}

fn remove_data(top: &Path) {
    set_mode(&top.join("data"), 0o755);
    fs::remove_dir_all(top.join("data")).unwrap();
}

#[test]
fn what_needs_no_content_is_put_right_by_the_start_after_a_verification() {
    let (root, package) = changed(|top| {
        rewrite(&top.join("data/b"), b"x");
        set_mode(&top.join("bin/pos"), 0o444);
        set_mode(&top.join("readme"), 0o666);
        inside(&top.join("data"), |data| {
            fs::remove_dir(data.join("empty")).unwrap();
            fs::remove_file(data.join("latest")).unwrap();
            fs::create_dir(data.join("latest")).unwrap();
        });
        set_mode(top, 0o755);
    });
    assert!(!verify(&root).is_clean());
    let store = root.open();
    package.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
    assert!(held(&store, package.digest()).is_full());
}

#[test]
fn what_others_put_into_a_tree_stays_and_is_named_until_they_take_it_away() {
    let (root, _package) = changed(|top| inside(top, |top| fs::write(top.join("theirs"), "x").unwrap()));
    assert!(!verify(&root).is_clean());
    let store = root.open();
    assert!(!store.verify().unwrap().is_clean());
    inside(&store.published_path(&key("1.0")), |top| {
        assert_eq!(fs::read(top.join("theirs")).unwrap(), b"x");
        fs::remove_file(top.join("theirs")).unwrap();
    });
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_repaired_tree_is_whole_and_sealed_again() {
    let (root, package) = changed(|top| {
        set_mode(&top.join("readme"), 0o644);
        fs::write(top.join("readme"), vec![7; 50_000]).unwrap();
        inside(top, remove_data);
    });
    assert!(!verify(&root).is_clean());
    let store = root.open();
    // What a repair takes from a file that had to be made anew is lost, too.
    for _ in 0..2 {
        let missing = store.prepare(package.digest()).unwrap().available.complement();
        package.write(&store, missing.iter());
    }
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn damage_that_a_reader_finds_is_repaired_and_sealed_without_a_verification() {
    let (root, package) = changed(|top| {
        set_mode(&top.join("readme"), 0o644);
        fs::write(top.join("readme"), vec![7; 50_000]).unwrap();
    });
    let store = root.open();
    let lost = (0..package.count()).filter(|&index| store.read_chunk(package.digest(), index).is_err()).count();
    assert!(lost > 0);
    let missing = store.prepare(package.digest()).unwrap().available.complement();
    package.write(&store, missing.iter());
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
}
