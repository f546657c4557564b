//! Feeds the decoder of an archive of any format.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::archive(bytes);
});
