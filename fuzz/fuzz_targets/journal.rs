//! Feeds the decoder of rows of the journal.
#![no_main]

use peerdist_node_agent::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::journal(bytes);
});
