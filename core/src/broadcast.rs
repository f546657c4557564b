//! The broadcast datagram: authenticated with the office key, padded to one fixed size, protected against replays.
//!
//! Layout: magic (4), keyed BLAKE3 of everything after it (32), length of the message (2, big endian), the encoded
//! [`proto::Broadcast`], zeros up to [`BROADCAST_DATAGRAM_BYTES`]. The content is authenticated, not hidden: it says
//! nothing that the office's own traffic does not show. Sockets, and who answers when, are the caller's business.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;

use crate::names::NodeName;
use crate::wire::{BROADCAST_DATAGRAM_BYTES, proto};

/// Nodes and boots whose counters are remembered; the one not heard for longest is forgotten first.
pub const REPLAY_SENDERS_MAX: usize = 2048;

/// Bytes of a message that fit into the datagram.
pub const BROADCAST_MESSAGE_BYTES_MAX: usize = BROADCAST_DATAGRAM_BYTES - HEADER_BYTES;

const MAGIC: [u8; 4] = *b"PDB1";
const MAC_END: usize = MAGIC.len() + blake3::OUT_LEN;
const HEADER_BYTES: usize = MAC_END + 2;
const KEY_CONTEXT: &str = "peerdist 2026 office broadcast datagram v1";
/// Counters behind the highest one that may still arrive, in another order.
const WINDOW_COUNTERS: u64 = 64;

/// Authenticates the broadcasts of one office.
#[derive(Clone, PartialEq, Eq)]
pub struct OfficeKey([u8; 32]);

impl OfficeKey {
    /// The key that a node received at enrolment.
    pub fn new(enrolled: &[u8; 32]) -> Self {
        Self(blake3::derive_key(KEY_CONTEXT, enrolled))
    }
}

impl fmt::Debug for OfficeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OfficeKey(..)")
    }
}

/// Why a broadcast was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The message does not fit.
    #[error(
        "broadcast message has {bytes} bytes, expected at most {BROADCAST_MESSAGE_BYTES_MAX}: ask about fewer packages"
    )]
    TooLarge {
        /// Encoded size of the message.
        bytes: usize,
    },
}

/// Why a datagram was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a datagram of this size and magic.
    #[error("datagram is no broadcast: expected {BROADCAST_DATAGRAM_BYTES} bytes that start with PDB1")]
    NotBroadcast,
    /// Authenticated with another key: another office, no error.
    #[error("broadcast is not authenticated with this office's key")]
    OtherOffice,
    /// Authenticated, yet not a message.
    #[error("broadcast of this office cannot be decoded: a node of the office runs an incompatible version")]
    Malformed,
}

/// Turns a message into the datagram.
///
/// # Errors
/// [`SealError::TooLarge`] when the message does not fit.
pub fn seal(key: &OfficeKey, broadcast: &proto::Broadcast) -> Result<[u8; BROADCAST_DATAGRAM_BYTES], SealError> {
    let message = broadcast.encode_to_vec();
    if message.len() > BROADCAST_MESSAGE_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: message.len() });
    }
    Ok(authenticate(key, &[&(message.len() as u16).to_be_bytes()[..], &message].concat()))
}

/// The datagram around what is authenticated: length and message. What does not fit is left out.
pub(crate) fn authenticate(key: &OfficeKey, authenticated: &[u8]) -> [u8; BROADCAST_DATAGRAM_BYTES] {
    let mut datagram = [0; BROADCAST_DATAGRAM_BYTES];
    datagram[..MAGIC.len()].copy_from_slice(&MAGIC);
    datagram[MAC_END..].iter_mut().zip(authenticated).for_each(|(place, &byte)| *place = byte);
    let mac = blake3::keyed_hash(&key.0, &datagram[MAC_END..]);
    datagram[MAGIC.len()..MAC_END].copy_from_slice(mac.as_bytes());
    datagram
}

/// Checks and decodes a datagram.
///
/// # Errors
/// [`OpenError`] says whether it is foreign, another office's, or malformed.
pub fn open(key: &OfficeKey, datagram: &[u8]) -> Result<proto::Broadcast, OpenError> {
    if datagram.len() != BROADCAST_DATAGRAM_BYTES || datagram[..MAGIC.len()] != MAGIC {
        return Err(OpenError::NotBroadcast);
    }
    let claimed = blake3::Hash::from_slice(&datagram[MAGIC.len()..MAC_END]).map_err(|_| OpenError::NotBroadcast)?;
    // The comparison of hashes takes constant time.
    if blake3::keyed_hash(&key.0, &datagram[MAC_END..]) != claimed {
        return Err(OpenError::OtherOffice);
    }
    let length = usize::from(u16::from_be_bytes([datagram[MAC_END], datagram[MAC_END + 1]]));
    let message = datagram[HEADER_BYTES..].get(..length).ok_or(OpenError::Malformed)?;
    proto::Broadcast::decode(message).map_err(|_| OpenError::Malformed)
}

/// Remembers which counters each sender and boot has used.
#[derive(Debug, Default)]
pub struct ReplayGuard {
    senders: BTreeMap<(NodeName, u64), Window>,
    admissions: u64,
}

#[derive(Debug)]
struct Window {
    highest: u64,
    /// Bit n: counter `highest - n` was seen.
    seen: u64,
    last_admission: u64,
}

impl ReplayGuard {
    /// Whether this counter of this boot is heard for the first time.
    pub fn admit(&mut self, sender: &NodeName, boot_id: u64, counter: u64) -> bool {
        self.admissions += 1;
        let admission = self.admissions;
        if let Some(window) = self.senders.get_mut(&(sender.clone(), boot_id)) {
            return window.admit(counter, admission);
        }
        if self.senders.len() >= REPLAY_SENDERS_MAX {
            self.forget_longest_unheard();
        }
        let window = Window { highest: counter, seen: 1, last_admission: admission };
        self.senders.insert((sender.clone(), boot_id), window);
        true
    }

    fn forget_longest_unheard(&mut self) {
        let oldest = self.senders.iter().min_by_key(|(_, window)| window.last_admission).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.senders.remove(&key);
        }
    }
}

impl Window {
    fn admit(&mut self, counter: u64, admission: u64) -> bool {
        if counter > self.highest {
            let step = counter - self.highest;
            self.seen = if step < WINDOW_COUNTERS { (self.seen << step) | 1 } else { 1 };
            self.highest = counter;
        } else {
            let behind = self.highest - counter;
            if behind >= WINDOW_COUNTERS || self.seen & (1 << behind) != 0 {
                return false;
            }
            self.seen |= 1 << behind;
        }
        self.last_admission = admission;
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn question(digests: usize) -> proto::Broadcast {
        let digests = vec![Bytes::from(vec![7; 32]); digests];
        proto::Broadcast {
            sender: Some(proto::Node { name: "till-1".into(), office: "store".into(), address: "10.0.0.1".into() }),
            boot_id: 9,
            counter: 4,
            request: Some(proto::broadcast::Request::WhoHas(proto::HolderQuestion { question: 1, digests })),
        }
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn sealed_broadcast_opens_with_the_same_key_only() {
        let (ours, theirs) = (OfficeKey::new(&[1; 32]), OfficeKey::new(&[2; 32]));
        let datagram = seal(&ours, &question(16)).unwrap();
        assert_eq!(open(&ours, &datagram), Ok(question(16)));
        assert_eq!(open(&theirs, &datagram), Err(OpenError::OtherOffice));
    }

    #[test]
    fn message_that_does_not_fit_is_refused() {
        assert!(matches!(seal(&OfficeKey::new(&[1; 32]), &question(64)), Err(SealError::TooLarge { .. })));
    }

    #[test]
    fn counter_is_admitted_once_also_out_of_order() {
        let mut guard = ReplayGuard::default();
        let sender = node("a");
        assert!(guard.admit(&sender, 1, 10));
        assert!(!guard.admit(&sender, 1, 10));
        assert!(guard.admit(&sender, 1, 12));
        assert!(guard.admit(&sender, 1, 11));
        assert!(!guard.admit(&sender, 1, 11));
        assert!(guard.admit(&sender, 1, 1000));
        assert!(!guard.admit(&sender, 1, 12));
        assert!(guard.admit(&sender, 2, 10), "another boot counts anew");
        assert!(guard.admit(&node("b"), 1, 10), "another sender counts for itself");
    }

    #[test]
    fn memory_of_senders_is_bounded() {
        let mut guard = ReplayGuard::default();
        for boot in 0..(REPLAY_SENDERS_MAX as u64 + 10) {
            assert!(guard.admit(&node("a"), boot, 1));
        }
        assert_eq!(guard.senders.len(), REPLAY_SENDERS_MAX);
    }

    proptest! {
        #[test]
        fn changed_datagram_is_never_opened(position in 0..BROADCAST_DATAGRAM_BYTES, bit in 0_u8..8) {
            let key = OfficeKey::new(&[1; 32]);
            let mut datagram = seal(&key, &question(2)).unwrap();
            datagram[position] ^= 1 << bit;
            prop_assert!(open(&key, &datagram).is_err());
        }

        #[test]
        fn any_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            prop_assert!(open(&OfficeKey::new(&[1; 32]), &bytes).is_err());
        }
    }
}
