//! Bulk content on QUIC: one bidirectional stream a transfer.
//!
//! Towards the receiver: the length-prefixed `TransferStart`, then frames of chunk index (4 bytes), length (4) and
//! bytes. Towards the holder: length-prefixed control signals. A receiver that does not read stops the holder by flow
//! control.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt};
use noq::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use peerdist_core::ports::{self, Role, TransferClass};
use peerdist_core::wire::SMALL_MESSAGE_BYTES_MAX;
use peerdist_core::wire::proto::{Control, TransferStart};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::metrics::{ClassCounters, Direction, TransferErrorReason};

use super::acceptor::{Accepted, Serve};
use super::bulk::{
    BulkError, BulkReceive, BulkSend, BulkTransport, ChunkReceiver, ChunkSender, ContentClass, ControlReceiver,
    ControlSender,
};
use super::connections::{CLOSE_REFUSED, DialError, Dialler, Established};
use super::framing::{self, FrameError};

/// Transfers that wait for the driver.
pub(super) const INCOMING_TRANSFERS_MAX: usize = 64;
/// A holder that opens a transfer says at once which.
const START_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const CHUNK_HEADER_BYTES: usize = 8;

/// Transfers over the content ports of one node.
pub(super) struct StreamBulk {
    dialler: Option<Dialler>,
    counters: Arc<ClassCounters>,
    incoming: Mutex<mpsc::Receiver<BulkReceive>>,
}

impl StreamBulk {
    pub(super) fn new(
        dialler: Option<Dialler>,
        counters: Arc<ClassCounters>,
        incoming: mpsc::Receiver<BulkReceive>,
    ) -> Self {
        Self { dialler, counters, incoming: Mutex::new(incoming) }
    }

    async fn open_stream(&self, to: IpAddr, class: ContentClass, start: &TransferStart) -> Result<BulkSend, BulkError> {
        let dialler = self.dialler.as_ref().ok_or(BulkError::Closed)?;
        let encoded = framing::encode(start, SMALL_MESSAGE_BYTES_MAX).map_err(|error| frame_error(to, error))?;
        let destination = SocketAddr::new(to, class.port());
        let established = dialler.connect(destination, Role::Client).await.map_err(|error| dial_error(to, error))?;
        match open_on(&established, encoded.clone()).await {
            Ok((send, receive)) => Ok(self.bulk_send(to, class, established, send, receive)),
            // The connection closed between its last use and now: one more, and that one must do.
            Err(_) => {
                let established =
                    dialler.connect(destination, Role::Client).await.map_err(|error| dial_error(to, error))?;
                let opened = open_on(&established, encoded).await;
                let (send, receive) = opened.map_err(|error| frame_error(to, error))?;
                Ok(self.bulk_send(to, class, established, send, receive))
            }
        }
    }

    fn bulk_send(
        &self,
        to: IpAddr,
        class: ContentClass,
        established: Established,
        send: SendStream,
        receive: RecvStream,
    ) -> BulkSend {
        let end = End {
            peer: to,
            class: class.transfer_class(),
            counters: self.counters.clone(),
            _uses: Some(established.uses),
        };
        BulkSend {
            peer: established.peer,
            chunks: Box::new(StreamChunkSender { end: end.clone(), stream: send, done: false }),
            control: Box::new(StreamControlReceiver { end, stream: receive }),
        }
    }
}

impl ContentClass {
    fn port(self) -> u16 {
        match self {
            Self::Foreground => ports::CLIENT_FOREGROUND_CONTENT,
            Self::Background => ports::CLIENT_BACKGROUND_CONTENT,
        }
    }
}

impl BulkTransport for StreamBulk {
    fn open(
        &self,
        to: IpAddr,
        class: ContentClass,
        start: TransferStart,
    ) -> BoxFuture<'_, Result<BulkSend, BulkError>> {
        async move {
            let opened = self.open_stream(to, class, &start).await;
            opened.inspect_err(|error| count(&self.counters, class.transfer_class(), error))
        }
        .boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Result<BulkReceive, BulkError>> {
        async move { self.incoming.lock().await.recv().await.ok_or(BulkError::Closed) }.boxed()
    }
}

async fn open_on(established: &Established, start: Bytes) -> Result<(SendStream, RecvStream), FrameError> {
    let opened = established.connection.open_bi().await;
    let (mut send, receive) = opened.map_err(|error| FrameError::Write(WriteError::ConnectionLost(error)))?;
    framing::write(&mut send, start).await?;
    Ok((send, receive))
}

/// Takes transfers on one content port and hands them to the driver.
pub(super) struct TransferService {
    class: ContentClass,
    counters: Arc<ClassCounters>,
    transfers: mpsc::Sender<BulkReceive>,
}

impl TransferService {
    pub(super) fn new(class: ContentClass, counters: Arc<ClassCounters>, transfers: mpsc::Sender<BulkReceive>) -> Self {
        Self { class, counters, transfers }
    }

    async fn take(&self, accepted: &Accepted, send: SendStream, mut receive: RecvStream) {
        let start = timeout(START_TIMEOUT, framing::read(&mut receive, SMALL_MESSAGE_BYTES_MAX)).await;
        let Ok(Ok(Some(start))) = start else {
            tracing::debug!(from = %accepted.peer, "transfer dropped: it does not say what it is");
            return;
        };
        let end = End {
            peer: accepted.address,
            class: self.class.transfer_class(),
            counters: self.counters.clone(),
            _uses: None,
        };
        let transfer = BulkReceive {
            from: accepted.peer.clone(),
            address: accepted.address,
            class: self.class,
            start,
            chunks: Box::new(StreamChunkReceiver { end: end.clone(), stream: receive }),
            control: Box::new(StreamControlSender { end, stream: send }),
        };
        // The driver is gone only when the node stops.
        let _ = self.transfers.send(transfer).await;
    }
}

impl Serve for Arc<TransferService> {
    async fn serve(&self, accepted: Accepted) {
        // Ends with the connection. The transfers of one peer at a time are bounded by the connection's settings.
        while let Ok((send, receive)) = accepted.connection.accept_bi().await {
            let (service, accepted) = (self.clone(), accepted.clone());
            tokio::spawn(async move { service.take(&accepted, send, receive).await });
        }
    }
}

/// What each half of a transfer knows.
#[derive(Clone)]
struct End {
    peer: IpAddr,
    class: TransferClass,
    counters: Arc<ClassCounters>,
    /// Keeps a dialled connection from being closed as unused.
    _uses: Option<Arc<()>>,
}

impl End {
    /// A transfer that fails on its way is counted once, by the half that notices first.
    fn counted<T>(&self, result: Result<T, BulkError>) -> Result<T, BulkError> {
        result.inspect_err(|error| count(&self.counters, self.class, error))
    }
}

fn count(counters: &ClassCounters, class: TransferClass, error: &BulkError) {
    let reason = match error {
        BulkError::Unreachable { .. } => TransferErrorReason::Unreachable,
        BulkError::Refused { .. } => TransferErrorReason::Unauthorised,
        BulkError::Stopped(_) => TransferErrorReason::Interrupted,
        BulkError::Protocol { .. } => TransferErrorReason::Malformed,
        BulkError::Closed => return,
    };
    counters.add_error(class, reason);
}

struct StreamChunkSender {
    end: End,
    stream: SendStream,
    done: bool,
}

impl ChunkSender for StreamChunkSender {
    fn send_chunks(&mut self, chunks: Vec<(u32, Bytes)>) -> BoxFuture<'_, Result<(), BulkError>> {
        async move {
            let peer = self.end.peer;
            let mut pieces = Vec::with_capacity(2 * chunks.len());
            for (index, bytes) in chunks {
                let length = u32::try_from(bytes.len()).map_err(|_| too_large(peer, bytes.len(), u32::MAX as usize))?;
                let mut header = BytesMut::with_capacity(CHUNK_HEADER_BYTES);
                header.put_u32(index);
                header.put_u32(length);
                pieces.extend([header.freeze(), bytes]);
            }
            // In one go: the connection fills its packets with what it finds, and a short one costs as much as a full
            // one.
            let written = self.stream.write_all_chunks(&mut pieces).await;
            self.end.counted(written.map_err(|error| frame_error(peer, error.into())))?;
            (0..pieces.len() / 2).for_each(|_| self.end.counters.add_message(self.end.class, Direction::Sent));
            Ok(())
        }
        .boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BulkError>> {
        async move {
            self.done = true;
            // Fails only when the stream is closed already, which the wait below reports.
            let _ = self.stream.finish();
            self.end.counted(match self.stream.stopped().await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(BulkError::Stopped(self.end.peer)),
                Err(error) => Err(BulkError::Unreachable { to: self.end.peer, reason: error.to_string() }),
            })
        }
        .boxed()
    }
}

impl Drop for StreamChunkSender {
    fn drop(&mut self) {
        if !self.done {
            // A stream that is dropped without this looks complete to the receiver.
            let _ = self.stream.reset(CLOSE_REFUSED);
        }
    }
}

struct StreamChunkReceiver {
    end: End,
    stream: RecvStream,
}

impl ChunkReceiver for StreamChunkReceiver {
    fn next_chunk(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Option<(u32, Bytes)>, BulkError>> {
        async move {
            let chunk = self.read_chunk(bytes_max).await;
            let chunk = self.end.counted(chunk)?;
            chunk.iter().for_each(|_| self.end.counters.add_message(self.end.class, Direction::Received));
            Ok(chunk)
        }
        .boxed()
    }
}

impl StreamChunkReceiver {
    async fn read_chunk(&mut self, bytes_max: usize) -> Result<Option<(u32, Bytes)>, BulkError> {
        let peer = self.end.peer;
        let mut header = [0; CHUNK_HEADER_BYTES];
        match self.stream.read_exact(&mut header).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(ReadExactError::FinishedEarly(_)) => return Err(frame_error(peer, FrameError::Truncated)),
            Err(ReadExactError::ReadError(error)) => return Err(frame_error(peer, error.into())),
        }
        let (index, length) = chunk_header(header);
        if length > bytes_max {
            return Err(too_large(peer, length, bytes_max));
        }
        let bytes = framing::read_bytes(&mut self.stream, length).await;
        Ok(Some((index, bytes.map_err(|error| frame_error(peer, error))?)))
    }
}

struct StreamControlSender {
    end: End,
    stream: SendStream,
}

impl ControlSender for StreamControlSender {
    fn send_control(&mut self, control: Control) -> BoxFuture<'_, Result<(), BulkError>> {
        async move {
            let peer = self.end.peer;
            let encoded = framing::encode(&control, SMALL_MESSAGE_BYTES_MAX);
            let encoded = encoded.map_err(|error| frame_error(peer, error))?;
            framing::write(&mut self.stream, encoded).await.map_err(|error| frame_error(peer, error))?;
            self.end.counters.add_message(TransferClass::ContentControl, Direction::Sent);
            Ok(())
        }
        .boxed()
    }
}

struct StreamControlReceiver {
    end: End,
    stream: RecvStream,
}

impl ControlReceiver for StreamControlReceiver {
    fn next_control(&mut self) -> BoxFuture<'_, Result<Option<Control>, BulkError>> {
        async move {
            let control = framing::read(&mut self.stream, SMALL_MESSAGE_BYTES_MAX).await;
            let control = control.map_err(|error| frame_error(self.end.peer, error))?;
            if control.is_some() {
                self.end.counters.add_message(TransferClass::ContentControl, Direction::Received);
            }
            Ok(control)
        }
        .boxed()
    }
}

/// Index and length of the chunk that follows.
pub(super) fn chunk_header(header: [u8; CHUNK_HEADER_BYTES]) -> (u32, usize) {
    let [i0, i1, i2, i3, length @ ..] = header;
    (u32::from_be_bytes([i0, i1, i2, i3]), u32::from_be_bytes(length) as usize)
}

fn too_large(with: IpAddr, bytes: usize, maximum: usize) -> BulkError {
    BulkError::Protocol { with, problem: format!("chunk has {bytes} bytes, expected at most {maximum}") }
}

fn dial_error(to: IpAddr, error: DialError) -> BulkError {
    match error {
        DialError::Unreachable { reason, .. } => BulkError::Unreachable { to, reason },
        DialError::Refused { reason, .. } => BulkError::Refused { to, reason },
    }
}

fn frame_error(with: IpAddr, error: FrameError) -> BulkError {
    match error {
        FrameError::Read(ReadError::ConnectionLost(error)) | FrameError::Write(WriteError::ConnectionLost(error)) => {
            connection_error(with, &error)
        }
        FrameError::Read(ReadError::Reset(_)) | FrameError::Write(WriteError::Stopped(_)) => BulkError::Stopped(with),
        other => BulkError::Protocol { with, problem: other.to_string() },
    }
}

fn connection_error(to: IpAddr, error: &ConnectionError) -> BulkError {
    let destination = SocketAddr::new(to, ports::CLIENT_FOREGROUND_CONTENT);
    dial_error(to, DialError::from_connection(destination, error))
}
