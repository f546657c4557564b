//! Feeds the decoder of a datagram that anybody in the subnet may send.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::broadcast_datagram(bytes);
});
