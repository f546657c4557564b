//! The UDP socket under every QUIC endpoint: counts bytes by class, marks background traffic, bounds receive memory,
//! joins sends.
//!
//! Receiving uses noq-udp (recvmmsg, GRO). Sending is our own `sendmsg` (in `datagram`), because noq-udp overwrites the
//! traffic class of the socket with every send. Joining consecutive transmits is in `coalesce`.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use noq::udp::{RecvMeta, Transmit, UdpSocketState};
use noq::{AsyncUdpSocket, UdpSender};
use peerdist_core::ports;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::metrics::{ClassCounters, Direction};
use crate::port_holder::{self, PortHolder};

use super::datagram;
use coalesce::Coalescer;

mod coalesce;

/// Largest batch of segments in one send: with UDP and IP headers the kernel takes 64 KiB.
const SEND_BYTES_MAX: usize = 65000;
/// Most segments that the kernel takes in one send.
const KERNEL_SEGMENTS_MAX: usize = 64;
/// What a datagram carries before path discovery has found more.
const SEGMENT_BYTES_INITIAL: usize = 1452;
/// A send error is logged at most this often a socket.
const SEND_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How much memory a socket may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketLimits {
    /// SO_RCVBUF and SO_SNDBUF.
    pub(super) kernel_bytes: usize,
    /// Buffers that one receive call fills, each up to 64 KiB.
    pub(super) receive_buffers: usize,
    /// Parts of a buffer in units of the endpoint's largest datagram.
    pub(super) receive_segments: NonZeroUsize,
}

/// A port that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody holds it.
    #[error("UDP port {port} on {address} is in use by {holder}: stop it, or give this node another address", port = .address.port(), address = .address.ip(), holder = describe(.holder.as_ref()))]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
        /// Who holds it; `None` when it is gone already or cannot be seen.
        holder: Option<PortHolder>,
    },
    /// Anything else.
    #[error("cannot bind UDP port {port} on {address}: {source}", port = .address.port(), address = .address.ip())]
    Failed {
        /// What was to be bound.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn describe(holder: Option<&PortHolder>) -> String {
    holder.map_or_else(|| "an unknown process".to_owned(), PortHolder::to_string)
}

/// Binds a UDP socket; `shared` lets several nodes of one host hear the same broadcast address.
pub(crate) fn bind(address: SocketAddr, shared: bool) -> Result<Socket, BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::InUse { address, holder: port_holder::port_holder(port_holder::Protocol::Udp, address) }
        }
        _ => BindError::Failed { address, source },
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.set_reuse_address(shared).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    Ok(socket)
}

/// A bound socket for one endpoint.
#[derive(Clone)]
pub(super) struct ClassSocket(Arc<Inner>);

struct Inner {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    limits: SocketLimits,
    counters: Arc<ClassCounters>,
    segmentation: AtomicBool,
    last_error_logged: Mutex<Option<Instant>>,
}

impl ClassSocket {
    /// Binds `address`. Must be called in a tokio runtime.
    pub(super) fn bind(
        address: SocketAddr,
        limits: SocketLimits,
        counters: Arc<ClassCounters>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Failed { address, source };
        let socket = bind(address, false)?;
        socket.set_recv_buffer_size(limits.kernel_bytes).map_err(failed)?;
        socket.set_send_buffer_size(limits.kernel_bytes).map_err(failed)?;
        let state = UdpSocketState::new((&socket).into()).map_err(failed)?;
        let io = UdpSocket::from_std(socket.into()).map_err(failed)?;
        let segmentation = AtomicBool::new(state.max_gso_segments().get() > 1);
        let last_error_logged = Mutex::new(None);
        Ok(Self(Arc::new(Inner { io, state, local: address, limits, counters, segmentation, last_error_logged })))
    }
}

impl AsyncUdpSocket for ClassSocket {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(ClassSender {
            socket: self.0.clone(),
            segment_bytes: AtomicUsize::new(SEGMENT_BYTES_INITIAL),
            coalescer: None,
            writable: None,
        })
    }

    fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inner = &*self.0;
        let count = buffers.len().min(inner.limits.receive_buffers);
        loop {
            ready!(inner.io.poll_recv_ready(context))?;
            let received = inner
                .io
                .try_io(Interest::READABLE, || inner.state.recv((&inner.io).into(), &mut buffers[..count], metas));
            match received {
                Ok(messages) => {
                    inner.count_received(&metas[..messages]);
                    return Poll::Ready(Ok(messages));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A pending error of the socket (an interface that went down) is reported once and cleared by the
                // report. The endpoint must outlive it: it goes on after a reset and stops after anything else.
                Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local)
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.0.limits.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.0.state.may_fragment()
    }
}

impl fmt::Debug for ClassSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClassSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Inner {
    fn count_received(&self, metas: &[RecvMeta]) {
        for meta in metas {
            if let Some(class) = ports::class_of_datagram(meta.addr.port(), self.local.port()) {
                self.counters.add_bytes(class, Direction::Received, meta.len as u64);
            }
        }
    }

    /// Most segments of this size in one send.
    fn segments_max(&self, segment_bytes: usize) -> usize {
        if !self.segmentation.load(Relaxed) {
            return 1;
        }
        (SEND_BYTES_MAX / segment_bytes.max(1)).clamp(1, KERNEL_SEGMENTS_MAX)
    }

    /// Sends all segments, in as many sends as the kernel needs. The only error is `WouldBlock`, and then nothing of
    /// the first send went out; whatever else goes wrong is loss, which QUIC repairs.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let batch_bytes = segment_bytes * self.segments_max(segment_bytes);
        for (position, batch) in transmit.contents.chunks(batch_bytes).enumerate() {
            match self.send_batch(transmit, batch, segment_bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && position == 0 => return Err(error),
                Err(_) => return Ok(()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn send_batch(&self, transmit: &Transmit<'_>, batch: &[u8], segment_bytes: usize) -> io::Result<()> {
        let destination = transmit.destination;
        let segment = (batch.len() > segment_bytes).then_some(segment_bytes);
        let traffic_class = datagram::traffic_class(self.local.port(), destination.port(), transmit.ecn);
        let sent = self.io.try_io(Interest::WRITABLE, || {
            datagram::send(&SockRef::from(&self.io), destination, batch, segment, traffic_class)
        });
        match sent {
            Ok(()) => {
                if let Some(class) = ports::class_of_datagram(self.local.port(), destination.port()) {
                    self.counters.add_bytes(class, Direction::Sent, batch.len() as u64);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // Expected for probes of the path's largest datagram.
            Err(error) if datagram::is_too_large(&error) => Ok(()),
            Err(error) if segment.is_some() && datagram::is_unsupported(&error) => {
                self.segmentation.store(false, Relaxed);
                self.log_error(destination, &error);
                for single in batch.chunks(segment_bytes) {
                    self.send_batch(transmit, single, segment_bytes)?;
                }
                Ok(())
            }
            Err(error) => {
                self.log_error(destination, &error);
                Ok(())
            }
        }
    }

    fn log_error(&self, destination: SocketAddr, error: &io::Error) {
        let now = Instant::now();
        let mut last = self.last_error_logged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.is_none_or(|last| now.saturating_duration_since(last) > SEND_ERROR_LOG_INTERVAL) {
            *last = Some(now);
            tracing::warn!(local = %self.local, %destination, %error, "datagrams cannot be sent");
        }
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// The sending half for one connection or endpoint task.
struct ClassSender {
    socket: Arc<Inner>,
    segment_bytes: AtomicUsize,
    coalescer: Option<Coalescer>,
    writable: Option<Writable>,
}

impl fmt::Debug for ClassSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClassSender").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl ClassSender {
    fn try_send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        if coalesce::joins(transmit.destination) {
            let coalescer = self.coalescer.get_or_insert_with(|| Coalescer::new(&self.socket));
            coalescer.send(transmit)
        } else {
            self.socket.send(transmit)
        }
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &self.socket;
        let writable = self.writable.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let result = ready!(writable.as_mut().poll(context));
        self.writable = None;
        Poll::Ready(result)
    }
}

impl UdpSender for ClassSender {
    fn poll_send(mut self: Pin<&mut Self>, transmit: &Transmit<'_>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(segment_bytes) = transmit.segment_size {
            self.segment_bytes.store(segment_bytes, Relaxed);
        }
        loop {
            match self.try_send(transmit) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(_) => ready!(self.poll_writable(context))?,
            }
        }
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        let segments = self.socket.segments_max(self.segment_bytes.load(Relaxed));
        NonZeroUsize::new(segments).unwrap_or(NonZeroUsize::MIN)
    }
}
