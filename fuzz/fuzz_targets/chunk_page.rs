//! Feeds the decoder of the chunks of a manifest page.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::chunk_page(bytes);
});
