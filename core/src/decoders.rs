//! Every decoder of bytes from the network as one function from bytes, so that fuzz targets and property tests feed the
//! same thing. Each says whether the bytes were accepted; none decides anything, and nothing else calls them.

use std::iter;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message;

use crate::broadcast::{self, OfficeKey};
use crate::digest::Digest;
use crate::manifest::{ChunkTable, EntryPage, ManifestRoot, PageError, PageRef, TreeOrder};
use crate::message::decode_envelope;
use crate::plan::Plan;
use crate::signature::{SigningDomain, sign};
use crate::wire::proto;

/// A decoder by the name of its fuzz target.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const ALL: [Decoder; 8] = [
    ("message", message),
    ("broadcast_datagram", broadcast_datagram),
    ("broadcast_body", broadcast_body),
    ("manifest_root", manifest_root),
    ("compressed_page", compressed_page),
    ("entry_page", entry_page),
    ("chunk_page", chunk_page),
    ("plan", plan),
];

/// Level of compression of pages: the cheapest.
const COMPRESSION_LEVEL: i32 = 1;

/// A message of any class between two roles.
pub fn message(bytes: &[u8]) -> bool {
    let envelope = proto::Envelope::decode(bytes);
    envelope.is_ok_and(|envelope| decode_envelope(envelope).is_ok()) || proto::Reply::decode(bytes).is_ok()
}

/// A datagram that anybody in the subnet may send.
pub fn broadcast_datagram(bytes: &[u8]) -> bool {
    broadcast::open(&office_key(), bytes).is_ok()
}

/// What is inside a datagram of the own office, its length included.
pub fn broadcast_body(bytes: &[u8]) -> bool {
    broadcast::open(&office_key(), &broadcast::authenticate(&office_key(), bytes)).is_ok()
}

/// A manifest root that a trusted key signed.
pub fn manifest_root(bytes: &[u8]) -> bool {
    verified_root(Bytes::copy_from_slice(bytes)).is_some()
}

/// A page as it arrives.
pub fn compressed_page(bytes: &[u8]) -> bool {
    EntryPage::decode(&reference(bytes, 1, 0), bytes).is_ok()
}

/// The entries of a page, under a root that agrees with their number and sizes.
pub fn entry_page(bytes: &[u8]) -> bool {
    let Ok(message) = proto::EntryPage::decode(bytes) else { return false };
    let total = message.entries.iter().fold(0_u64, |total, entry| total.saturating_add(entry.bytes));
    let page = compressed(bytes);
    let Ok(page) = EntryPage::decode(&reference(&page, message.entries.len(), total), &page) else { return false };
    let mut order = TreeOrder::default();
    let _ = page.position_of_byte(total / 2);
    page.entries.iter().all(|entry| order.check(entry).is_ok())
}

/// The chunks of a page, under a root that agrees with their number and lengths.
pub fn chunk_page(bytes: &[u8]) -> bool {
    let Ok(message) = proto::ChunkPage::decode(bytes) else { return false };
    let total = message.lengths.iter().map(|&length| u64::from(length)).sum();
    let page = compressed(bytes);
    let page_ref = |page: &[u8]| proto::PageRef {
        digest: Digest::of(page).as_bytes().to_vec().into(),
        compressed_bytes: page.len() as u32,
        ..Default::default()
    };
    let root = proto::ManifestRoot {
        package: Some(proto::Package { namespace: "n".into(), name: "p".into(), version: "1".into() }),
        sequence: 1,
        total_bytes: total,
        entry_count: 1,
        chunk_count: message.lengths.len() as u32,
        chunk_bytes_average: 1 << 16,
        entry_pages: vec![page_ref(b"entries")],
        chunk_pages: vec![page_ref(&page)],
    };
    let Some(root) = verified_root(root.encode_to_vec().into()) else { return false };
    let table = ChunkTable::from_pages(&root, |_| Ok::<_, PageError>(Bytes::from(page.clone())));
    table.is_ok_and(|table| (0..=table.len()).all(|index| table.offset(index).is_none_or(|offset| offset <= total)))
}

/// A plan that a trusted key signed.
pub fn plan(bytes: &[u8]) -> bool {
    let key = key();
    let signed = sign(SigningDomain::Plan, Bytes::copy_from_slice(bytes), &key).into();
    Plan::open(&signed, &[key.verifying_key()]).is_ok()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn office_key() -> OfficeKey {
    OfficeKey::new(&[7; 32])
}

fn verified_root(body: Bytes) -> Option<ManifestRoot> {
    let key = key();
    ManifestRoot::verify(&sign(SigningDomain::ManifestRoot, body, &key), &[key.verifying_key()]).ok()
}

fn reference(page: &[u8], count: usize, bytes: u64) -> PageRef {
    let (digest, compressed_bytes, count) = (Digest::of(page), page.len() as u32, count as u32);
    PageRef { digest, compressed_bytes, first_index: 0, count, first_byte: 0, bytes }
}

/// Empty when it cannot be compressed, which is no page either.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, COMPRESSION_LEVEL).unwrap_or_default()
}

/// Other bytes made of these, as a hostile sender would try: single bytes changed, the end cut off, a part repeated.
/// For property tests; `changes` are positions and values.
pub fn mutated(bytes: &[u8], changes: &[(usize, u8)], length: usize) -> Vec<u8> {
    let mut mutated: Vec<u8> = match bytes.len() {
        0 => iter::repeat_n(0, length).collect(),
        _ => bytes.iter().copied().cycle().take(length).collect(),
    };
    for &(position, value) in changes {
        let end = mutated.len().max(1);
        if let Some(byte) = mutated.get_mut(position % end) {
            *byte = value;
        }
    }
    mutated
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "seeds lie in files")]
mod tests;
