//! The protocol's messages. `proto` holds the generated types, which [`crate::message`] turns into validated ones;
//! [`decoded_size`] says what they will take. Framing on streams is the driver's business.

pub mod decoded_size;

/// Types generated from `core/proto/peerdist.proto`. Unvalidated: nothing outside `wire` decides upon them.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/peerdist.v1.rs"));
}

/// Largest small message in bytes, envelope included.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Largest foreground or background message in bytes, envelope included.
pub const LARGE_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Size of every broadcast datagram (UDP payload), so that no answer is larger than its question.
pub const BROADCAST_DATAGRAM_BYTES: usize = 1200;
