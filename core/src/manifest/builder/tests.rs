//! What is built can be read again, and contradictions are refused.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::manifest::{ChunkTable, EntryPage, ManifestRoot, PageError, RelativePath, SigningDomain, sign};
use crate::names::{DistributionKey, Namespace, PackageName, Version};

fn package() -> PackageKey {
    let namespace = Namespace::new("retail").unwrap();
    let distribution = DistributionKey { namespace, name: PackageName::new("pos").unwrap() };
    PackageKey { distribution, version: Version::new("1.0").unwrap() }
}

fn build(entries: &[Entry], chunks: &[(Digest, u32)]) -> Result<(ManifestRoot, BTreeMap<Digest, Bytes>), BuildError> {
    let mut builder = ManifestBuilder::default();
    let mut pages = BTreeMap::new();
    let mut keep = |page: EncodedPage| pages.insert(page.digest, page.bytes);
    for entry in entries {
        builder.push_entry(entry)?.map(&mut keep);
    }
    for &(digest, length) in chunks {
        builder.push_chunk(digest, length)?.map(&mut keep);
    }
    let built = builder.finish(&package(), 1, 16 << 10)?;
    built.last_pages.into_iter().for_each(|page| {
        keep(page);
    });
    let key = SigningKey::from_bytes(&[5; 32]);
    let signed = sign(SigningDomain::ManifestRoot, built.body, &key);
    Ok((ManifestRoot::verify(&signed, &[key.verifying_key()]).unwrap(), pages))
}

fn read_back(root: &ManifestRoot, pages: &BTreeMap<Digest, Bytes>) -> (Vec<Entry>, ChunkTable) {
    let entries =
        root.entry_pages().iter().flat_map(|page| EntryPage::decode(page, &pages[&page.digest]).unwrap().entries);
    let table = ChunkTable::from_pages(root, |page| Ok::<_, PageError>(pages[&page.digest].clone())).unwrap();
    (entries.collect(), table)
}

fn chunks_of(total: u64) -> Vec<(Digest, u32)> {
    let lengths = (0..total / 1000).map(|_| 1000).chain((!total.is_multiple_of(1000)).then_some((total % 1000) as u32));
    lengths.enumerate().map(|(index, length)| (Digest::of(&index.to_le_bytes()), length)).collect()
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(files in prop::collection::btree_map("[a-z]{1,3}", (0u64..5000, any::<bool>()), 0..40), top in any::<bool>()) {
        let prefix = if top { "" } else { "d/" };
        let mut entries: Vec<Entry> = files.iter().map(|(name, &(bytes, executable))| {
            Entry::file(RelativePath::new(format!("{prefix}{name}").into_bytes()).unwrap(), bytes, executable)
        }).collect();
        if !top {
            entries.insert(0, Entry::directory(RelativePath::new(&b"d"[..]).unwrap()));
        }
        entries.push(Entry::symlink(RelativePath::new(&b"zzzz"[..]).unwrap(), &b"d/x"[..]).unwrap());
        let chunks = chunks_of(entries.iter().map(Entry::bytes).sum());
        let (root, pages) = build(&entries, &chunks).unwrap();
        let (read, table) = read_back(&root, &pages);
        prop_assert_eq!(read, entries);
        let listed: Vec<(Digest, u32)> = (0..table.len()).map(|index| (table.digest(index).unwrap(), table.length(index).unwrap())).collect();
        prop_assert_eq!(listed, chunks);
        prop_assert_eq!(table.bytes_of(0..table.len()), root.total_bytes());
    }
}

#[test]
fn large_trees_span_pages_and_bytes_are_found_again() {
    let path = |index: u32| RelativePath::new(format!("{index:08}-{}", "x".repeat(100)).into_bytes()).unwrap();
    let entries: Vec<Entry> = (0..20_000).map(|index| Entry::file(path(index), u64::from(index % 3), false)).collect();
    let total: u64 = entries.iter().map(Entry::bytes).sum();
    let chunks: Vec<(Digest, u32)> = (0..total).map(|byte| (Digest::of(&byte.to_le_bytes()), 1)).collect();
    let (root, pages) = build(&entries, &chunks).unwrap();
    assert!(root.entry_pages().len() > 2 && root.chunk_pages().len() > 2);
    let (read, table) = read_back(&root, &pages);
    assert_eq!((read.len(), u64::from(table.len())), (20_000, total));
    let decoded: Vec<EntryPage> =
        root.entry_pages().iter().map(|page| EntryPage::decode(page, &pages[&page.digest]).unwrap()).collect();
    let mut byte = 0;
    for entry in entries.iter().filter(|entry| entry.bytes() > 0) {
        let page = &decoded[root.entry_page_of_byte(byte)];
        assert_eq!(page.entries[page.position_of_byte(byte)].path, entry.path);
        byte += entry.bytes();
    }
}

#[test]
fn contradictions_are_refused_while_building() {
    let file = |name: &'static str, bytes| Entry::file(RelativePath::new(name.as_bytes()).unwrap(), bytes, false);
    let chunk = |length| (Digest::of(b"x"), length);
    assert!(matches!(build(&[file("a", 5)], &[chunk(4)]), Err(BuildError::BytesDiffer { .. })));
    assert!(matches!(build(&[file("a", 5)], &[chunk(0)]), Err(BuildError::ChunkLength { .. })));
    assert!(matches!(build(&[file("a", 5), file("a", 5)], &[]), Err(BuildError::Order(_))));
    let twice_all = [file("a", u64::MAX), file("b", 1)];
    assert!(matches!(build(&twice_all, &[]), Err(BuildError::TooManyBytes)));
}

#[test]
fn one_entry_too_many_is_refused_with_the_count() {
    let mut builder = ManifestBuilder::default();
    builder.entries.next_index = ENTRIES_MAX;
    let entry = Entry::directory(RelativePath::new(&b"a"[..]).unwrap());
    assert!(matches!(builder.push_entry(&entry), Err(BuildError::TooManyEntries { found: 2_000_001 })));
}
