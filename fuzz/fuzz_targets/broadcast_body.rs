//! Feeds the decoder of what is inside a broadcast of the own office.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::broadcast_body(bytes);
});
