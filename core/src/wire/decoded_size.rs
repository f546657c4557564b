//! How much memory an encoded message will take, before it is decoded: an empty item of a list is two bytes on the wire
//! and some hundred in memory. It looks at lengths only and knows no message, so leaves that happen to read like messages
//! count too: an estimate from above for whoever hands out memory.

/// What an item takes in memory besides its bytes: at least as much as the largest of the generated types.
const ITEM_BYTES: usize = 384;
/// Lists lie no deeper: envelope, message, item, its own items.
const DEPTH: usize = 2;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

/// Bytes that an envelope takes once it is decoded, at most.
pub fn decoded_bytes_max(encoded: &[u8]) -> usize {
    encoded.len().saturating_add(items(encoded, DEPTH).saturating_mul(ITEM_BYTES))
}

/// Fields with a length of their own, down to a depth. Counting ends where the bytes stop being a message.
fn items(mut bytes: &[u8], depth: usize) -> usize {
    let mut count: usize = 0;
    while let Some((key, rest)) = varint(bytes) {
        bytes = match key & 7 {
            VARINT => match varint(rest) {
                Some((_, rest)) => rest,
                None => return count,
            },
            FIXED_64 => rest.get(8..).unwrap_or_default(),
            FIXED_32 => rest.get(4..).unwrap_or_default(),
            LENGTH_DELIMITED => {
                let Some((length, rest)) = varint(rest) else { return count };
                let Some((field, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
                else {
                    return count;
                };
                count = count.saturating_add(1);
                if depth > 0 {
                    count = count.saturating_add(items(field, depth - 1));
                }
                rest
            }
            _ => return count,
        };
    }
    count
}

/// The number at the start, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (position, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * position as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[position + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::proto;
    use proto::envelope::Message as Body;

    fn encoded(message: Body) -> Vec<u8> {
        proto::Envelope { traceparent: String::new(), message: Some(message) }.encode_to_vec()
    }

    #[test]
    fn empty_items_of_lists_count_as_much_as_they_take() {
        const ITEMS: usize = 10_000;
        let packages = vec![proto::PackageInventory::default(); ITEMS];
        let inventory = encoded(Body::Inventory(proto::Inventory { boot_id: 1, term: 1, packages }));
        assert!(inventory.len() < 3 * ITEMS);
        assert!(size_of::<proto::PackageInventory>() <= ITEM_BYTES);
        assert!(decoded_bytes_max(&inventory) >= ITEMS * size_of::<proto::PackageInventory>());

        let packages = vec![proto::PackageDelta::default(); ITEMS];
        let report = encoded(Body::MemberReport(proto::MemberReport { packages, ..Default::default() }));
        assert!(size_of::<proto::PackageDelta>() <= ITEM_BYTES);
        assert!(decoded_bytes_max(&report) >= ITEMS * size_of::<proto::PackageDelta>());

        let nodes = vec![proto::NodeProgress::default(); ITEMS];
        let package = proto::OfficePackage { nodes, ..Default::default() };
        let report = proto::OfficeReport { term: 1, plan_revision: 1, packages: vec![package] };
        assert!(size_of::<proto::NodeProgress>() <= ITEM_BYTES);
        assert!(decoded_bytes_max(&encoded(Body::OfficeReport(report))) >= ITEMS * size_of::<proto::NodeProgress>());
    }

    #[test]
    fn long_bytes_count_once() {
        let available = vec![0x0a; 1 << 20].into();
        let packages = vec![proto::PackageInventory { available, ..Default::default() }];
        let inventory = encoded(Body::Inventory(proto::Inventory { boot_id: 1, term: 1, packages }));
        assert!(decoded_bytes_max(&inventory) < inventory.len() + 10 * ITEM_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(decoded_bytes_max(&bytes) >= bytes.len());
        }
    }
}
