//! Zstandard: decompressed in memory that is bounded, whatever a frame asks for. Which of the files are archives is left to
//! the formats above.

use std::io::{self, BufReader, Read};

/// How far back a frame may refer, as a power of two. A decoder keeps as much in memory, and the server unpacks several
/// archives at a time in a pod whose memory is limited: what asked for more could end it again and again.
const WINDOW_BITS_MAX: u32 = 25;
/// The same in mebibytes.
const WINDOW_MEBIBYTES_MAX: u32 = 1 << (WINDOW_BITS_MAX - 20);
/// What the library says of a frame that asks for more. It tells its errors by text only.
const ASKS_FOR_MORE: &str = "Frame requires too much memory for decoding";

/// A frame asks for more memory than it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its Zstandard window has more than {WINDOW_MEBIBYTES_MAX} MiB: compress it with a window of at most \
     {WINDOW_MEBIBYTES_MAX} MiB (zstd without --ultra, and with --long={WINDOW_BITS_MAX} at most)"
)]
pub(super) struct WindowTooLarge;

/// Decompresses what a reader brings, frame after frame.
pub(super) struct Decoder<R>(::zstd::Decoder<'static, BufReader<R>>);

impl<R: Read> Decoder<R> {
    pub(super) fn new(reader: BufReader<R>) -> io::Result<Self> {
        let mut decoder = ::zstd::Decoder::with_buffer(reader)?;
        decoder.window_log_max(WINDOW_BITS_MAX)?;
        Ok(Self(decoder))
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(told)
    }
}

fn told(error: io::Error) -> io::Error {
    let asks_for_more = error.get_ref().is_some_and(|inner| inner.to_string() == ASKS_FOR_MORE);
    if asks_for_more { io::Error::other(WindowTooLarge) } else { error }
}
