//! The framing of streams, applied to bytes instead of a stream.

use prost::Message;

use super::framing::{self, PREFIX_BYTES};
use super::streams::{CHUNK_HEADER_BYTES, chunk_header};

/// Whether the bytes are messages of at most `maximum` bytes, one after the other.
pub(crate) fn are_messages<M: Message + Default>(mut bytes: &[u8], maximum: usize) -> bool {
    while let Some((&prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
        let Some((message, rest)) =
            framing::length(prefix, maximum).ok().and_then(|length| rest.split_at_checked(length))
        else {
            return false;
        };
        if M::decode(message).is_err() {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}

/// Whether the bytes are chunks of at most `maximum` bytes, one after the other.
pub(crate) fn are_chunks(mut bytes: &[u8], maximum: usize) -> bool {
    while let Some((&header, rest)) = bytes.split_first_chunk::<CHUNK_HEADER_BYTES>() {
        let (_, length) = chunk_header(header);
        let Some((_, rest)) = rest.split_at_checked(length).filter(|_| length <= maximum) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}
