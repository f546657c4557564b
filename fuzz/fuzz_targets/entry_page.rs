//! Feeds the decoder of the entries of a manifest page.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::entry_page(bytes);
});
