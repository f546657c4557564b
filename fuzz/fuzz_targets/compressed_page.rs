//! Feeds the decoder of a manifest page as it arrives.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::compressed_page(bytes);
});
