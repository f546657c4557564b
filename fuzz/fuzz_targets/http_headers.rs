//! Feeds the decoder of headers that a download is resumed by.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::http_headers(bytes);
});
