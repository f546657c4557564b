//! Length-prefixed protobuf messages on QUIC streams. Every length is checked before memory is spent on it.

use bytes::{BufMut, Bytes, BytesMut};
use noq::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use prost::Message;

use crate::metrics::TransferErrorReason;

/// Length of a message, big endian.
pub(super) const PREFIX_BYTES: usize = 4;

/// A message that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("message has {bytes} bytes, expected at most {maximum}")]
    TooLarge { bytes: usize, maximum: usize },
    #[error("message ended early")]
    Truncated,
    #[error("message cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("stream cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("stream cannot be written: {0}")]
    Write(#[from] WriteError),
}

impl FrameError {
    pub(super) fn reason(&self) -> TransferErrorReason {
        match self {
            Self::TooLarge { .. } => TransferErrorReason::OverLimit,
            Self::Decode(_) => TransferErrorReason::Malformed,
            Self::Truncated | Self::Read(_) | Self::Write(_) => TransferErrorReason::Interrupted,
        }
    }
}

/// Encodes a message with its prefix.
pub(super) fn encode(message: &impl Message, maximum: usize) -> Result<Bytes, FrameError> {
    let bytes = message.encoded_len();
    if bytes > maximum {
        return Err(FrameError::TooLarge { bytes, maximum });
    }
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    buffer.put_u32(u32::try_from(bytes).map_err(|_| FrameError::TooLarge { bytes, maximum })?);
    message.encode_raw(&mut buffer);
    Ok(buffer.freeze())
}

/// Reads the length of the next message; `None` when the stream ended before it.
pub(super) async fn read_length(stream: &mut RecvStream, maximum: usize) -> Result<Option<usize>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => return Err(FrameError::Truncated),
        Err(ReadExactError::ReadError(error)) => return Err(error.into()),
    }
    length(prefix, maximum).map(Some)
}

/// The length that a prefix announces.
pub(super) fn length(prefix: [u8; PREFIX_BYTES], maximum: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(prefix) as usize;
    if bytes > maximum { Err(FrameError::TooLarge { bytes, maximum }) } else { Ok(bytes) }
}

/// Reads the next message; `None` when the stream ended before it.
pub(super) async fn read<M: Message + Default>(
    stream: &mut RecvStream,
    maximum: usize,
) -> Result<Option<M>, FrameError> {
    let Some(length) = read_length(stream, maximum).await? else { return Ok(None) };
    Ok(Some(M::decode(read_bytes(stream, length).await?)?))
}

/// Reads exactly `length` bytes, which the caller has bounded, without a copy when they arrive in one piece.
pub(super) async fn read_bytes(stream: &mut RecvStream, length: usize) -> Result<Bytes, FrameError> {
    let mut collected = BytesMut::new();
    while collected.len() < length {
        let piece = stream.read_chunk(length - collected.len()).await?.ok_or(FrameError::Truncated)?;
        if piece.len() == length {
            return Ok(piece);
        }
        if collected.is_empty() {
            collected.reserve(length);
        }
        collected.put(piece);
    }
    Ok(collected.freeze())
}

/// Writes an encoded message.
pub(super) async fn write(stream: &mut SendStream, encoded: Bytes) -> Result<(), FrameError> {
    Ok(stream.write_chunk(encoded).await?)
}
