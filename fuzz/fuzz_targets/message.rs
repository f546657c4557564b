//! Feeds the decoder of a message of any class.
#![no_main]

use peerdist_core::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::message(bytes);
});
