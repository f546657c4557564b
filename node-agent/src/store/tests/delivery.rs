//! The plain way of a package, and local reuse.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::{Root, TestPackage, content, directory, distribution, file, held, key};
use crate::store::{NodeStore, Publication, ReadError, StoreError, StoreLimits};

#[test]
fn a_package_arrives_and_is_published_whole() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.hold(&store);
    assert!(!store.published_path(&key("1.0")).exists());
    assert_eq!(store.publish(package.digest()).unwrap(), Publication::Published);
    package.assert_published_in(&store);
    let link = store.root().join("packages/retail/pos/current");
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("1.0"));
    assert_eq!(fs::read_dir(store.root().join("staging")).unwrap().count(), 0);
    let inventory = store.inventory();
    assert!(inventory[0].published && inventory[0].current && inventory[0].held.is_full());
    for (index, chunk) in package.chunks.iter().enumerate() {
        assert_eq!(&store.read_chunk(package.digest(), index as u32).unwrap(), chunk);
    }
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn chunks_can_be_read_and_passed_on_while_the_package_arrives() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    package.write(&store, [3]);
    assert_eq!(store.read_chunk(package.digest(), 3).unwrap(), package.chunks[3]);
    assert!(matches!(store.read_chunk(package.digest(), 4), Err(ReadError::Missing { .. })));
    assert!(held(&store, package.digest()).is_empty());
    let flushed = store.flush().unwrap();
    assert_eq!(flushed.len(), 1);
    assert_eq!((flushed[0].1[0].first, flushed[0].1[0].count), (3, 1));
    assert!(store.flush().unwrap().is_empty());
    assert_eq!(held(&store, package.digest()).len(), 1);
}

#[test]
fn publishing_needs_every_chunk_held() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    assert!(matches!(store.publish(package.digest()), Err(StoreError::NotPrepared(_))));
    store.prepare(package.digest()).unwrap();
    package.write(&store, 0..package.count());
    assert!(matches!(store.publish(package.digest()), Err(StoreError::NotComplete { .. })), "written is not held");
    store.flush().unwrap();
    store.publish(package.digest()).unwrap();
}

#[test]
fn a_second_write_and_a_second_publish_do_nothing() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.deliver(&store);
    let changed = || {
        let top = fs::metadata(store.published_path(&key("1.0"))).unwrap();
        let folder = fs::metadata(store.root().join("packages/retail/pos")).unwrap();
        (std::os::unix::fs::MetadataExt::ctime_nsec(&top), std::os::unix::fs::MetadataExt::ctime_nsec(&folder))
    };
    let before = changed();
    assert!(!store.write_chunk(package.digest(), 0, &package.chunks[0]).unwrap().new);
    assert_eq!(store.publish(package.digest()).unwrap(), Publication::Unchanged);
    assert!(store.prepare(package.digest()).unwrap().held.is_full());
    assert_eq!(changed(), before);
}

#[test]
fn a_manifest_is_asked_for_page_by_page() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    let missing = store.put_root(&package.root).unwrap();
    assert_eq!(missing.len(), package.pages.len());
    assert!(matches!(store.prepare(package.digest()), Err(StoreError::ManifestIncomplete { missing: 2, .. })));
    let page = &package.pages[0];
    assert!(matches!(store.put_page(package.digest(), page.digest, b"other"), Err(StoreError::Page(_))));
    let unknown = store.put_page(package.digest(), package.digest(), &page.bytes);
    assert!(matches!(unknown, Err(StoreError::UnknownPage { .. })));
    package.put_manifest(&store);
    assert_eq!(store.manifest_page(package.digest(), page.digest).unwrap(), page.bytes);
    assert_eq!(store.chunk_table(package.digest()).unwrap().len(), package.count());
}

#[test]
fn a_page_that_was_torn_on_disk_is_asked_for_again() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    package.put_manifest(&store);
    let page = &package.pages[0];
    let torn = root.path().join("journal/manifests").join(package.digest().to_hex()).join(page.digest.to_hex());
    fs::write(torn, vec![0; page.bytes.len()]).unwrap();
    assert!(matches!(store.prepare(package.digest()), Err(StoreError::ManifestIncomplete { .. })));
    assert_eq!(store.missing_pages(package.digest()).unwrap(), [page.digest]);
    package.deliver(&store);
}

#[test]
fn a_new_version_copies_what_the_old_one_has() {
    let root = Root::new();
    let (old, mut changed) = (content(1, 1 << 20), content(1, 1 << 20));
    changed.splice(500_000..500_010, content(2, 3000));
    let first = TestPackage::new("1.0", vec![file("data", old), file("same", content(3, 200_000))]);
    let second = TestPackage::new("2.0", vec![file("data", changed), file("same", content(3, 200_000))]);
    let store = root.open();
    first.deliver(&store);
    second.put_manifest(&store);
    let prepared = store.prepare(second.digest()).unwrap();
    let missing = prepared.available.complement();
    assert!(missing.len() <= 8 && prepared.bytes_from_local > 1_000_000, "{prepared:?}");
    assert!(prepared.held.is_empty(), "copied is not held before the flush");
    second.write(&store, missing.iter());
    store.flush().unwrap();
    store.publish(second.digest()).unwrap();
    second.assert_published_in(&store);
    first.assert_published_in(&store);
    let inventory = store.inventory();
    let of = |package: &TestPackage| inventory.iter().find(|stored| stored.digest == package.digest()).unwrap();
    assert!(of(&second).current && !of(&first).current);
    assert!(of(&first).superseded_at_seconds.is_some() && of(&second).superseded_at_seconds.is_none());
}

#[test]
fn chunks_are_found_in_other_files_other_offsets_and_twice() {
    let root = Root::new();
    let (one, two) = (content(1, 300_000), content(2, 300_000));
    let old = TestPackage::new("1.0", vec![file("a", one.clone()), file("b", two.clone())]);
    let moved = vec![
        file("A", content(3, 12_345)),
        directory("d"),
        file("d/x", [two.clone(), one.clone()].concat()),
        file("e", vec![0; 500_000]),
        file("f", two.clone()),
    ];
    let new = TestPackage::new("2.0", moved);
    let store = root.open();
    old.deliver(&store);
    new.put_manifest(&store);
    let prepared = store.prepare(new.digest()).unwrap();
    assert!(prepared.bytes_from_local > 700_000, "{prepared:?}");
    let missing = prepared.available.complement();
    new.write(&store, missing.iter().take(missing.len() as usize / 2));
    drop(store);
    let store = root.open();
    let prepared = store.prepare(new.digest()).unwrap();
    new.write(&store, prepared.available.complement().iter());
    store.flush().unwrap();
    store.publish(new.digest()).unwrap();
    new.assert_published_in(&store);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_damaged_old_version_does_not_spoil_the_new_one() {
    let root = Root::new();
    let (old, new) =
        (TestPackage::mixed("1.0"), TestPackage::with_sequence("2.0", 2, TestPackage::mixed("2.0").entries));
    let store = root.open();
    old.deliver(&store);
    let program = store.published_path(&key("1.0")).join("bin/pos");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut bytes = fs::read(&program).unwrap();
    bytes[123_456] ^= 1;
    fs::write(&program, bytes).unwrap();
    new.put_manifest(&store);
    let missing = store.prepare(new.digest()).unwrap().available.complement();
    assert_eq!(missing.len(), 1);
    new.write(&store, missing.iter());
    store.flush().unwrap();
    store.publish(new.digest()).unwrap();
    new.assert_published_in(&store);
    assert!(held(&store, old.digest()).complement().len() == 1, "the damage was noticed");
}

#[test]
fn an_older_version_becomes_current_again_without_moving() {
    let root = Root::new();
    let (first, second) = (TestPackage::mixed("1.0"), TestPackage::new("2.0", vec![file("a", content(9, 100))]));
    let store = root.open();
    first.deliver(&store);
    second.deliver(&store);
    assert_eq!(store.publish(first.digest()).unwrap(), Publication::Activated);
    assert_eq!(fs::read_link(root.path().join("packages/retail/pos/current")).unwrap().to_str(), Some("1.0"));
    store.retire(&distribution()).unwrap();
    assert!(store.inventory().iter().all(|package| !package.current && package.superseded_at_seconds.is_some()));
    assert!(!root.path().join("packages/retail/pos/current").exists());
    first.assert_published_in(&store);
}

#[test]
fn an_empty_package_and_empty_files_are_published() {
    let root = Root::new();
    let store = root.open();
    for (version, entries) in [("1", Vec::new()), ("2", vec![file("empty", Vec::new())])] {
        let package = TestPackage::new(version, entries);
        package.deliver(&store);
        package.assert_published_in(&store);
    }
}

#[test]
fn of_two_trees_that_are_made_at_once_the_second_sees_what_the_first_reserved() {
    let root = Root::new();
    let store = NodeStore::open(&root.path(), StoreLimits { limit_bytes: Some(100_000) }).unwrap();
    let first = store.reserve(60_000).unwrap();
    let StoreError::DiskFull { have_bytes, .. } = store.reserve(60_000).err().unwrap() else { panic!("not full") };
    assert_eq!(have_bytes, 40_000);
    drop(first);
    store.reserve(60_000).unwrap();
}

#[test]
fn a_limit_is_refused_before_anything_is_made() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = NodeStore::open(&root.path(), StoreLimits { limit_bytes: Some(100_000) }).unwrap();
    package.put_manifest(&store);
    let refused = store.prepare(package.digest()).unwrap_err();
    let StoreError::DiskFull { need_bytes, have_bytes, limit_bytes } = refused else { panic!("{refused}") };
    assert!(need_bytes > 400_000 && have_bytes == 100_000 && limit_bytes == Some(100_000));
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    store.set_limits(StoreLimits { limit_bytes: Some(1 << 30) });
    package.deliver(&store);
    assert!(matches!(store.check_space(1 << 30), Err(StoreError::DiskFull { .. })));
}

#[test]
fn writers_and_a_flusher_work_side_by_side() {
    let root = Root::new();
    let package = TestPackage::new("1.0", vec![file("big", content(1, 8 << 20)), file("small", content(2, 999))]);
    let store = root.open();
    package.put_manifest(&store);
    store.prepare(package.digest()).unwrap();
    let done = AtomicBool::new(false);
    let mut flushed = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|lane| {
                let (store, package) = (&store, &package);
                scope.spawn(move || package.write(store, (0..package.count()).filter(|index| index % 4 == lane)))
            })
            .collect();
        let flusher = scope.spawn(|| {
            let mut held = 0;
            while !done.load(Ordering::Acquire) {
                held += store.flush().unwrap().iter().flat_map(|(_, runs)| runs).map(|run| run.count).sum::<u32>();
            }
            held
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        flushed += flusher.join().unwrap();
    });
    flushed += store.flush().unwrap().iter().flat_map(|(_, runs)| runs).map(|run| run.count).sum::<u32>();
    assert_eq!(flushed, package.count());
    store.publish(package.digest()).unwrap();
    package.assert_published_in(&store);
}

#[test]
fn an_ingest_becomes_a_package_without_a_copy() {
    let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
    let store = root.open();
    let ingest = store.begin_ingest().unwrap();
    package.unpack_to(ingest.tree());
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&ingest.tree().join("bin/pos"));
    package.pages.iter().for_each(|page| ingest.put_page(page).unwrap());
    assert_eq!(store.adopt(ingest, &package.root).unwrap(), Publication::Published);
    package.assert_published_in(&store);
    assert_eq!(inode(&store.published_path(&key("1.0")).join("bin/pos")), before);
    assert!(store.is_held(package.digest()) && store.verify().unwrap().is_clean());
    let again = store.begin_ingest().unwrap();
    package.pages.iter().for_each(|page| again.put_page(page).unwrap());
    assert_eq!(store.adopt(again, &package.root).unwrap(), Publication::Unchanged);
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
}
