//! Feeds the decoder of a join token file.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::join_token(bytes);
});
