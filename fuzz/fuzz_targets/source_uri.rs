//! Feeds the decoder of the address of a source.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::source_uri(bytes);
});
