//! Bulk content, whatever carries it: the holder opens a transfer and sends chunks, the receiver steers.
//!
//! The traits are what the drivers see; `streams` is the implementation on QUIC streams. Chunks are proven against the
//! manifest by the receiver, not here.

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use peerdist_core::ports::TransferClass;
use peerdist_core::wire::proto::{Control, TransferStart};

use super::certificate::PeerIdentity;

/// The row group that content travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContentClass {
    /// Inside an office.
    Foreground,
    /// To a child office.
    Background,
}

impl ContentClass {
    pub(super) fn transfer_class(self) -> TransferClass {
        match self {
            Self::Foreground => TransferClass::ForegroundContent,
            Self::Background => TransferClass::BackgroundContent,
        }
    }
}

/// A transfer that cannot start or go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BulkError {
    /// No connection, or it was lost.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// The other end.
        to: IpAddr,
        /// What went wrong.
        reason: String,
    },
    /// The other end's certificate does not allow it.
    #[error("{to} refused the transfer: {reason}")]
    Refused {
        /// The other end.
        to: IpAddr,
        /// What went wrong.
        reason: String,
    },
    /// The other end gave up the transfer.
    #[error("{0} gave up the transfer")]
    Stopped(IpAddr),
    /// What arrived is not a transfer, or larger than allowed.
    #[error("transfer with {with}: {problem}")]
    Protocol {
        /// The other end.
        with: IpAddr,
        /// What is wrong.
        problem: String,
    },
    /// The node stops.
    #[error("this node stops")]
    Closed,
}

/// Opens and takes transfers.
pub trait BulkTransport: Send + Sync {
    /// Opens a transfer to a receiver that asked for it.
    fn open(&self, to: IpAddr, class: ContentClass, start: TransferStart)
    -> BoxFuture<'_, Result<BulkSend, BulkError>>;

    /// Waits for the next transfer that a holder opens.
    fn accept(&self) -> BoxFuture<'_, Result<BulkReceive, BulkError>>;
}

/// The holder's end: the halves can be used at the same time.
pub struct BulkSend {
    /// The receiver, by certificate.
    pub peer: PeerIdentity,
    /// Sends chunks.
    pub chunks: Box<dyn ChunkSender>,
    /// Hears the receiver's control signals.
    pub control: Box<dyn ControlReceiver>,
}

/// The receiver's end: the halves can be used at the same time.
pub struct BulkReceive {
    /// The holder, by certificate.
    pub from: PeerIdentity,
    /// The holder's address.
    pub address: IpAddr,
    /// The ports it came through.
    pub class: ContentClass,
    /// What the holder says it sends.
    pub start: TransferStart,
    /// Receives chunks.
    pub chunks: Box<dyn ChunkReceiver>,
    /// Steers the holder.
    pub control: Box<dyn ControlSender>,
}

/// Sends the chunks of one transfer. Dropped before `finish`, the receiver learns that the rest will not come.
pub trait ChunkSender: Send {
    /// Sends chunks in this order. Waits while the receiver does not read.
    fn send_chunks(&mut self, chunks: Vec<(u32, Bytes)>) -> BoxFuture<'_, Result<(), BulkError>>;

    /// Says that nothing more comes, and waits until everything has arrived.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), BulkError>>;
}

/// Receives the chunks of one transfer. Dropped, the holder learns that it may stop.
pub trait ChunkReceiver: Send {
    /// The next chunk of at most `bytes_max` bytes; `None` after the last.
    fn next_chunk(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Option<(u32, Bytes)>, BulkError>>;
}

/// Sends control signals to the holder.
pub trait ControlSender: Send {
    /// Sends one signal.
    fn send_control(&mut self, control: Control) -> BoxFuture<'_, Result<(), BulkError>>;
}

/// Receives control signals of the receiver.
pub trait ControlReceiver: Send {
    /// The next signal; `None` when the receiver has nothing more to say.
    fn next_control(&mut self) -> BoxFuture<'_, Result<Option<Control>, BulkError>>;
}
