//! Which roots are believed.

use super::*;
use crate::manifest::sign;
use ed25519_dalek::SigningKey;

fn page(first_index: u32, first_byte: u64) -> proto::PageRef {
    proto::PageRef { digest: vec![7; 32].into(), compressed_bytes: 10, first_index, first_byte }
}

fn plain() -> proto::ManifestRoot {
    proto::ManifestRoot {
        package: Some(proto::Package { namespace: "retail".into(), name: "pos".into(), version: "1".into() }),
        sequence: 1,
        total_bytes: 100,
        entry_count: 4,
        chunk_count: 3,
        chunk_bytes_average: 16 << 10,
        entry_pages: vec![page(0, 0), page(2, 50)],
        chunk_pages: vec![page(0, 0)],
    }
}

fn verify(message: &proto::ManifestRoot) -> Result<ManifestRoot, ManifestError> {
    let key = SigningKey::from_bytes(&[3; 32]);
    ManifestRoot::verify(&sign(SigningDomain::ManifestRoot, encode_root(message), &key), &[key.verifying_key()])
}

#[test]
fn a_plain_root_is_accepted_and_restored_by_its_digest() {
    let root = verify(&plain()).unwrap();
    assert_eq!((root.entry_pages()[1].count, root.entry_pages()[1].bytes), (2, 50));
    assert_eq!(root.digest(), Digest::of(&root.signed().body));
    assert_eq!(ManifestRoot::restore(root.signed(), root.digest()).unwrap(), root);
    assert!(ManifestRoot::restore(root.signed(), Digest::of(b"other")).is_err());
}

#[test]
fn counts_above_the_limits_and_bad_names_are_refused() {
    let changes: [fn(&mut proto::ManifestRoot); 6] = [
        |root| root.entry_count = ENTRIES_MAX + 1,
        |root| root.chunk_count = CHUNKS_MAX + 1,
        |root| root.chunk_bytes_average = 1,
        |root| root.total_bytes = u64::MAX,
        |root| root.package = None,
        |root| root.package.as_mut().unwrap().version = "../1".into(),
    ];
    for (position, change) in changes.into_iter().enumerate() {
        let mut message = plain();
        change(&mut message);
        assert!(verify(&message).is_err(), "change {position}");
    }
}

#[test]
fn pages_with_gaps_or_overlaps_are_refused() {
    let changes: [fn(&mut proto::ManifestRoot); 8] = [
        |root| root.entry_pages.clear(),
        |root| root.entry_pages[0].first_index = 1,
        |root| root.entry_pages[0].first_byte = 1,
        |root| root.entry_pages[1].first_index = 0,
        |root| root.entry_pages[1].first_index = 4,
        |root| root.entry_pages[1].first_byte = 101,
        |root| root.chunk_pages[0].digest = vec![1; 31].into(),
        |root| root.chunk_pages[0].compressed_bytes = PAGE_BYTES_MAX as u32 + 1,
    ];
    for (position, change) in changes.into_iter().enumerate() {
        let mut message = plain();
        change(&mut message);
        let refused = verify(&message);
        assert!(matches!(refused, Err(ManifestError::PagesNotContiguous { .. })), "change {position}: {refused:?}");
    }
}

#[test]
fn a_root_larger_than_its_limit_is_refused_before_it_is_read() {
    let mut message = plain();
    message.entry_pages = (0..2000).map(|index| page(index, 0)).collect();
    message.entry_count = 2000;
    assert!(matches!(verify(&message), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn an_empty_package_is_a_package() {
    let message = proto::ManifestRoot {
        total_bytes: 0,
        entry_count: 0,
        chunk_count: 0,
        entry_pages: Vec::new(),
        chunk_pages: Vec::new(),
        ..plain()
    };
    assert_eq!(verify(&message).unwrap().pages().count(), 0);
}
