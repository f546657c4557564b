//! Feeds the decoder of a manifest root that a trusted key signed.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::manifest_root(bytes);
});
