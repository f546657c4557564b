//! Feeds the decoder of a file of objects.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::objects(bytes);
});
