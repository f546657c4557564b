//! Feeds the decoder of what a receiver sends on a content stream.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::control_frames(bytes);
});
