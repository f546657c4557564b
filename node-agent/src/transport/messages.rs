//! Messages: one request a stream, one reply on the same stream.
//!
//! The three message classes differ in ports, sizes and time limits only. A request that hits a connection of a peer's
//! earlier run is repeated once on a new connection. What messages mean is the drivers' business.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use noq::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use peerdist_core::ports::{Role, TransferClass};
use peerdist_core::wire::decoded_size::decoded_bytes_max;
use peerdist_core::wire::{LARGE_MESSAGE_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX, proto};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::metrics::{ClassCounters, Direction, TransferErrorReason};

use super::acceptor::{Accepted, Serve};
use super::certificate::PeerIdentity;
use super::connections::{CLOSE_DONE, CLOSE_REFUSED, DialError, Dialler, Established};
use super::framing::{self, FrameError};
use super::settings::Traffic;

/// Messages that wait for the driver.
pub(super) const INCOMING_MESSAGES_MAX: usize = 256;
/// Memory for messages that are being read or wait for the driver, in units of one KiB.
const INCOMING_KIBIBYTES_MAX: usize = 64 << 10;
/// A peer that stops in the middle of a message is cut off after this.
const SMALL_READ_TIMEOUT: Duration = Duration::from_secs(5);
const LARGE_READ_TIMEOUT: Duration = Duration::from_secs(120);
/// A connection without certificate is closed after this.
const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// The row group that a message travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageClass {
    /// At most 64 KiB, answered at once.
    Small,
    /// Large, inside an office or between the server and the Central Office.
    Foreground,
    /// Large, between offices: only bandwidth that nobody else wants.
    Background,
}

impl MessageClass {
    /// Largest message and largest reply in bytes.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Small => SMALL_MESSAGE_BYTES_MAX,
            Self::Foreground | Self::Background => LARGE_MESSAGE_BYTES_MAX,
        }
    }

    pub(super) fn traffic(self) -> Traffic {
        match self {
            Self::Small => Traffic::SmallMessage,
            Self::Foreground => Traffic::ForegroundMessage,
            Self::Background => Traffic::BackgroundMessage,
        }
    }

    fn transfer_class(self, vesc: bool) -> TransferClass {
        match self {
            _ if vesc => TransferClass::VescMessage,
            Self::Small => TransferClass::SmallMessage,
            Self::Foreground => TransferClass::ForegroundMessage,
            Self::Background => TransferClass::BackgroundMessage,
        }
    }

    fn read_timeout(self) -> Duration {
        match self {
            Self::Small => SMALL_READ_TIMEOUT,
            Self::Foreground | Self::Background => LARGE_READ_TIMEOUT,
        }
    }
}

/// A request without a reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// No connection, or it was lost before the reply.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was asked.
        to: IpAddr,
        /// What went wrong.
        reason: String,
    },
    /// Connected, but no reply in time.
    #[error("{to} did not reply within {seconds} s")]
    TimedOut {
        /// Who was asked.
        to: IpAddr,
        /// The limit.
        seconds: f32,
    },
    /// The peer will not: by certificate, or by its reply.
    #[error("{to} refused: {reason}: {message}")]
    Refused {
        /// Who was asked.
        to: IpAddr,
        /// A stable word: `certificate`, or the reply's reason.
        reason: String,
        /// A sentence for people.
        message: String,
    },
    /// The message does not fit its class, or the reply is not one.
    #[error("message to {to}: {problem}")]
    Protocol {
        /// Who was asked.
        to: IpAddr,
        /// What is wrong.
        problem: String,
    },
}

impl RequestError {
    /// Whether nobody answered.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    fn reason(&self) -> TransferErrorReason {
        match self {
            Self::Unreachable { .. } => TransferErrorReason::Unreachable,
            Self::TimedOut { .. } => TransferErrorReason::TimedOut,
            Self::Refused { reason, .. } if reason == "certificate" => TransferErrorReason::Unauthorised,
            Self::Refused { .. } => TransferErrorReason::Refused,
            Self::Protocol { .. } => TransferErrorReason::Malformed,
        }
    }
}

/// A message that arrived.
#[derive(Debug)]
pub struct IncomingMessage {
    /// Who sent it, by certificate.
    pub from: PeerIdentity,
    /// Where it came from: the address that the certificate is for.
    pub address: IpAddr,
    /// The ports it came through.
    pub class: MessageClass,
    /// The message. A peer that is [`PeerIdentity::Enrolling`] can only have sent an enrolment request.
    pub envelope: proto::Envelope,
    /// Answers it.
    pub reply: ReplyHandle,
    /// For its bytes, and for what they take when decoded.
    _memory: [OwnedSemaphorePermit; 2],
}

/// Sends the one reply to a message. Dropped without reply, the peer learns that there is none.
#[derive(Debug)]
pub struct ReplyHandle {
    stream: Option<SendStream>,
    class: MessageClass,
    transfer_class: TransferClass,
    counters: Arc<ClassCounters>,
}

impl ReplyHandle {
    /// Sends the reply without waiting for it to arrive.
    pub fn send(mut self, reply: proto::Reply) {
        let Some(mut stream) = self.stream.take() else { return };
        let encoded = match framing::encode(&reply, self.class.bytes_max()) {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::warn!(%error, "reply is too large and was not sent");
                let _ = stream.reset(CLOSE_REFUSED);
                return;
            }
        };
        let (limit, class, counters) = (self.class.read_timeout(), self.transfer_class, self.counters.clone());
        tokio::spawn(async move {
            counters.add_message(class, Direction::Sent);
            let written = timeout(limit, framing::write(&mut stream, encoded)).await;
            let ended = if matches!(written, Ok(Ok(()))) { stream.finish() } else { stream.reset(CLOSE_REFUSED) };
            if ended.is_err() {
                tracing::debug!("peer did not wait for its reply");
            }
        });
    }

    /// Accepts the message, with nothing more to say.
    pub fn accept(self) {
        self.send(proto::Reply { reply: Some(proto::reply::Reply::Accepted(proto::Accepted {})) });
    }

    /// Refuses the message: a stable word and a sentence for people.
    pub fn refuse(self, reason: &str, message: &str) {
        let refused = proto::Refused { reason: reason.to_owned(), message: message.to_owned() };
        self.send(proto::Reply { reply: Some(proto::reply::Reply::Refused(refused)) });
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.reset(CLOSE_REFUSED);
        }
    }
}

/// Asks over the connections of one dialling port.
pub(super) struct Requester {
    pub(super) dialler: Dialler,
    pub(super) class: MessageClass,
    pub(super) vesc: bool,
    pub(super) time_limit: Duration,
    pub(super) counters: Arc<ClassCounters>,
}

/// How one attempt failed.
enum Attempt {
    Dial(DialError),
    /// The peer does not know this connection: it was started anew.
    Stale,
    Connection(ConnectionError),
    Frame(FrameError),
}

impl From<FrameError> for Attempt {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Read(ReadError::ConnectionLost(error))
            | FrameError::Write(WriteError::ConnectionLost(error)) => error.into(),
            other => Self::Frame(other),
        }
    }
}

impl From<ConnectionError> for Attempt {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Reset | ConnectionError::LocallyClosed => Self::Stale,
            ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_DONE => Self::Stale,
            other => Self::Connection(other),
        }
    }
}

impl Requester {
    /// One request and its reply.
    pub(super) async fn request(
        &self,
        to: SocketAddr,
        role: Role,
        envelope: &proto::Envelope,
    ) -> Result<proto::Reply, RequestError> {
        let replied = self.ask(to, role, envelope).await;
        replied.inspect_err(|error| self.counters.add_error(self.class.transfer_class(self.vesc), error.reason()))
    }

    async fn ask(&self, to: SocketAddr, role: Role, envelope: &proto::Envelope) -> Result<proto::Reply, RequestError> {
        let encoded = framing::encode(envelope, self.class.bytes_max())
            .map_err(|error| RequestError::Protocol { to: to.ip(), problem: error.to_string() })?;
        let ask = async {
            match self.attempt(to, role, encoded.clone()).await {
                Err(Attempt::Stale) => self.attempt(to, role, encoded).await,
                result => result,
            }
        };
        let reply = timeout(self.time_limit, ask)
            .await
            .map_err(|_| RequestError::TimedOut { to: to.ip(), seconds: self.time_limit.as_secs_f32() })?
            .map_err(|error| describe(to, error))?;
        accepted(to, reply)
    }

    async fn attempt(&self, to: SocketAddr, role: Role, encoded: bytes::Bytes) -> Result<proto::Reply, Attempt> {
        let Established { connection, .. } = self.dialler.connect(to, role).await.map_err(Attempt::Dial)?;
        self.exchange(&connection, encoded).await
    }

    async fn exchange(&self, connection: &noq::Connection, encoded: bytes::Bytes) -> Result<proto::Reply, Attempt> {
        let class = self.class.transfer_class(self.vesc);
        let (mut send, mut receive) = connection.open_bi().await?;
        self.counters.add_message(class, Direction::Sent);
        framing::write(&mut send, encoded).await?;
        // Only fails when the stream is closed already, which the read below reports.
        let _ = send.finish();
        let reply = framing::read(&mut receive, self.class.bytes_max()).await?;
        let reply = reply.ok_or(Attempt::Frame(FrameError::Truncated))?;
        self.counters.add_message(class, Direction::Received);
        Ok(reply)
    }

    /// One request on a connection of its own, closed afterwards.
    pub(super) async fn request_once(
        &self,
        config: noq::ClientConfig,
        to: SocketAddr,
        envelope: &proto::Envelope,
    ) -> Result<(proto::Reply, noq::Connection), RequestError> {
        let encoded = framing::encode(envelope, self.class.bytes_max())
            .map_err(|error| RequestError::Protocol { to: to.ip(), problem: error.to_string() })?;
        let ask = async {
            let connection = self.dialler.dial_with(config, to).await.map_err(Attempt::Dial)?;
            let reply = self.exchange(&connection, encoded).await?;
            connection.close(CLOSE_DONE, b"");
            Ok((reply, connection))
        };
        let (reply, connection) = timeout(ENROLMENT_TIMEOUT, ask)
            .await
            .map_err(|_| RequestError::TimedOut { to: to.ip(), seconds: ENROLMENT_TIMEOUT.as_secs_f32() })?
            .map_err(|error| describe(to, error))?;
        Ok((accepted(to, reply)?, connection))
    }
}

/// A reply that refuses is an error.
fn accepted(to: SocketAddr, reply: proto::Reply) -> Result<proto::Reply, RequestError> {
    match reply.reply {
        Some(proto::reply::Reply::Refused(refused)) => {
            Err(RequestError::Refused { to: to.ip(), reason: refused.reason, message: refused.message })
        }
        reply => Ok(proto::Reply { reply }),
    }
}

fn describe(to: SocketAddr, error: Attempt) -> RequestError {
    let certificate = |message| RequestError::Refused { to: to.ip(), reason: "certificate".to_owned(), message };
    match error {
        Attempt::Dial(DialError::Unreachable { reason, .. }) => RequestError::Unreachable { to: to.ip(), reason },
        Attempt::Dial(DialError::Refused { reason, .. }) => certificate(reason),
        Attempt::Stale => RequestError::Unreachable { to: to.ip(), reason: "it closed the connection".to_owned() },
        Attempt::Connection(error) => match DialError::from_connection(to, &error) {
            DialError::Refused { reason, .. } => certificate(reason),
            DialError::Unreachable { reason, .. } => RequestError::Unreachable { to: to.ip(), reason },
        },
        Attempt::Frame(error) => RequestError::Protocol { to: to.ip(), problem: error.to_string() },
    }
}

/// Reads messages of one accepting port and hands them to the driver.
pub(super) struct MessageService {
    class: MessageClass,
    counters: Arc<ClassCounters>,
    memory: Arc<Semaphore>,
    messages: mpsc::Sender<IncomingMessage>,
}

/// The memory that all message ports of a node share.
pub(super) fn message_memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(INCOMING_KIBIBYTES_MAX))
}

impl MessageService {
    pub(super) fn new(
        class: MessageClass,
        counters: Arc<ClassCounters>,
        memory: Arc<Semaphore>,
        messages: mpsc::Sender<IncomingMessage>,
    ) -> Self {
        Self { class, counters, memory, messages }
    }

    /// Reads one message and queues it.
    async fn take(
        &self,
        accepted: &Accepted,
        transfer_class: TransferClass,
        send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), FrameError> {
        let reply =
            ReplyHandle { stream: Some(send), class: self.class, transfer_class, counters: self.counters.clone() };
        let Some(length) = framing::read_length(&mut receive, self.class.bytes_max()).await? else { return Ok(()) };
        let kibibytes = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(memory) = self.memory.clone().acquire_many_owned(kibibytes).await else { return Ok(()) };
        let bytes = framing::read_bytes(&mut receive, length).await?;
        // Many small items take far more memory than they have bytes. Waiting for that with some of it in hand could
        // wait for ever.
        let decoded = decoded_bytes_max(&bytes).saturating_sub(length);
        let kibibytes = u32::try_from(decoded / 1024).unwrap_or(u32::MAX);
        let Ok(decoding) = self.memory.clone().try_acquire_many_owned(kibibytes) else {
            reply.refuse("busy", "there is no memory for a message with so many items now");
            return Err(FrameError::TooLarge { bytes: decoded, maximum: INCOMING_KIBIBYTES_MAX * 1024 });
        };
        let envelope: proto::Envelope = prost::Message::decode(bytes)?;
        self.counters.add_message(transfer_class, Direction::Received);
        if accepted.peer == PeerIdentity::Enrolling
            && !matches!(envelope.message, Some(proto::envelope::Message::Enrol(_)))
        {
            reply.refuse("not-enrolled", "only an enrolment request is taken without certificate");
            return Ok(());
        }
        let message = IncomingMessage {
            from: accepted.peer.clone(),
            address: accepted.address,
            class: self.class,
            envelope,
            reply,
            _memory: [memory, decoding],
        };
        // The driver is gone only when the node stops.
        let _ = self.messages.send(message).await;
        Ok(())
    }

    async fn take_in_time(&self, accepted: &Accepted, send: SendStream, receive: RecvStream) {
        let class = self.class.transfer_class(matches!(accepted.peer, PeerIdentity::Vesc { .. }));
        match timeout(self.class.read_timeout(), self.take(accepted, class, send, receive)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.counters.add_error(class, error.reason());
                tracing::debug!(from = %accepted.peer, %error, "message dropped");
            }
            Err(_) => {
                self.counters.add_error(class, TransferErrorReason::TimedOut);
                tracing::debug!(from = %accepted.peer, "message dropped: it took too long");
            }
        }
    }

    /// A connection without certificate carries one request and ends.
    async fn enrol(&self, accepted: Accepted) {
        let one = async {
            if let Ok((send, receive)) = accepted.connection.accept_bi().await {
                self.take_in_time(&accepted, send, receive).await;
                accepted.connection.closed().await;
            }
        };
        let _ = timeout(ENROLMENT_TIMEOUT, one).await;
        accepted.connection.close(CLOSE_DONE, b"one enrolment a connection");
    }
}

impl Serve for Arc<MessageService> {
    async fn serve(&self, accepted: Accepted) {
        if accepted.peer == PeerIdentity::Enrolling {
            return self.enrol(accepted).await;
        }
        // Ends with the connection. The streams of one peer at a time are bounded by the connection's settings.
        while let Ok((send, receive)) = accepted.connection.accept_bi().await {
            let (service, accepted) = (self.clone(), accepted.clone());
            tokio::spawn(async move { service.take_in_time(&accepted, send, receive).await });
        }
    }
}
