//! Joins consecutive transmits of a foreground content connection into one segmented send.
//!
//! noq hands over at most ten segments at a time; the kernel takes 64 KiB with the same work. A transmit that is full
//! (so that another one probably follows) waits for its followers; the batch goes out when it is full, when a transmit
//! does not continue it, or when the connection's task has nothing more to add and a helper task gets its turn.
//! Background traffic is never joined: its bursts would be the queue that it must not make.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use noq::udp::{EcnCodepoint, Transmit};
use peerdist_core::ports;
use tokio::sync::Notify;

use super::Inner;

/// Segments that noq puts into one transmit when it has more to send.
const TRANSMIT_SEGMENTS_FULL: usize = 10;

/// Whether sends to this destination are joined.
pub(super) fn joins(destination: SocketAddr) -> bool {
    destination.port() == ports::CLIENT_FOREGROUND_CONTENT
}

/// The batch of one connection.
pub(super) struct Coalescer {
    shared: Arc<Shared>,
}

struct Shared {
    socket: Arc<Inner>,
    batch: Mutex<Batch>,
    flush: Notify,
    closed: AtomicBool,
}

#[derive(Default)]
struct Batch {
    contents: Vec<u8>,
    segment_bytes: usize,
    destination: Option<SocketAddr>,
    ecn: Option<EcnCodepoint>,
}

impl Coalescer {
    pub(super) fn new(socket: &Arc<Inner>) -> Self {
        let shared = Arc::new(Shared {
            socket: socket.clone(),
            batch: Mutex::new(Batch::default()),
            flush: Notify::new(),
            closed: AtomicBool::new(false),
        });
        tokio::spawn(flush_late(shared.clone()));
        Self { shared }
    }

    /// Takes the transmit, or says `WouldBlock` and takes nothing.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = &self.shared.socket;
        let mut batch = self.shared.lock();
        if !batch.is_empty() && !batch.has_room(socket, transmit) {
            batch.flush(socket)?;
        }
        let more_follows = is_full(transmit);
        if batch.is_empty() && !more_follows {
            return socket.send(transmit);
        }
        batch.append(transmit);
        if !more_follows || !batch.has_room(socket, transmit) {
            // What the kernel does not take now stays in the batch, and the helper task sends it later.
            let _ = batch.flush(socket);
        }
        if !batch.is_empty() {
            self.shared.flush.notify_one();
        }
        Ok(())
    }
}

impl Drop for Coalescer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Relaxed);
        self.shared.flush.notify_one();
    }
}

/// Whether another transmit probably follows.
fn is_full(transmit: &Transmit<'_>) -> bool {
    transmit.segment_size.is_some_and(|bytes| transmit.contents.len() == TRANSMIT_SEGMENTS_FULL * bytes)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Whether the transmit continues this batch: the same size of segments (its last may be shorter) to the same
    /// destination, and all together not more than one send takes.
    fn has_room(&self, socket: &Inner, transmit: &Transmit<'_>) -> bool {
        let limit = self.segment_bytes * socket.segments_max(self.segment_bytes);
        let whole = self.contents.len().is_multiple_of(self.segment_bytes.max(1));
        let same_size = match transmit.segment_size {
            Some(bytes) => bytes == self.segment_bytes,
            None => transmit.contents.len() <= self.segment_bytes,
        };
        let same_way = self.destination == Some(transmit.destination) && self.ecn == transmit.ecn;
        whole && same_size && same_way && self.contents.len() + transmit.contents.len() <= limit
    }

    fn append(&mut self, transmit: &Transmit<'_>) {
        if self.contents.is_empty() {
            self.segment_bytes = transmit.segment_size.unwrap_or(transmit.contents.len());
            self.destination = Some(transmit.destination);
            self.ecn = transmit.ecn;
        }
        self.contents.extend_from_slice(transmit.contents);
    }

    fn flush(&mut self, socket: &Inner) -> io::Result<()> {
        if let Some(destination) = self.destination.filter(|_| !self.contents.is_empty()) {
            socket.send(&Transmit {
                destination,
                ecn: self.ecn,
                contents: &self.contents,
                segment_size: Some(self.segment_bytes),
                src_ip: None,
            })?;
        }
        self.contents.clear();
        Ok(())
    }
}

/// Sends what nobody continued. Ends with the connection.
async fn flush_late(shared: Arc<Shared>) {
    loop {
        shared.flush.notified().await;
        // The connection's task comes first: it may have more to add.
        tokio::task::yield_now().await;
        while shared.lock().flush(&shared.socket).is_err() {
            if shared.socket.io.writable().await.is_err() {
                break;
            }
        }
        if shared.closed.load(Relaxed) {
            return;
        }
    }
}
