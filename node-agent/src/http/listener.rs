//! A listener that bounds what strangers can make the endpoints hold: so many connections, so long each. It always takes
//! a new one, or a few idle strangers would keep out the probes by which Kubernetes sees that the process lives; the
//! oldest ones go instead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Most connections at a time: one more closes the oldest.
const CONNECTIONS_MAX: usize = 64;
/// Most connections of one address: one more closes its oldest.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 8;
/// Longest life of a connection: whoever sends or reads too slowly is cut off, whoever polls connects again.
const CONNECTION_LIFETIME_MAX: Duration = Duration::from_secs(60);

/// Hands out connections and closes old ones.
pub(super) struct BoundedListener {
    inner: TcpListener,
    open: Arc<Mutex<Open>>,
}

impl BoundedListener {
    pub(super) fn new(inner: TcpListener) -> Self {
        Self { inner, open: Arc::default() }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let (inner, address) = Listener::accept(&mut self.inner).await;
        let (number, closed) = lock(&self.open).add(address.ip());
        let stream = BoundedStream {
            inner,
            deadline: Box::pin(sleep(CONNECTION_LIFETIME_MAX)),
            closed: Box::pin(closed.cancelled_owned()),
            number,
            open: self.open.clone(),
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

impl Open {
    /// Makes room for one more. Returns its number and what tells that it has to go.
    fn add(&mut self, address: IpAddr) -> (u64, CancellationToken) {
        let same: Vec<u64> =
            self.connections.iter().filter(|(_, (other, _))| *other == address).map(|(&number, _)| number).collect();
        let oldest = if same.len() >= CONNECTIONS_PER_ADDRESS_MAX {
            same.first().copied()
        } else if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.keys().next().copied()
        } else {
            None
        };
        if let Some((_, closed)) = oldest.and_then(|number| self.connections.remove(&number)) {
            closed.cancel();
        }
        let (number, closed) = (self.next, CancellationToken::new());
        self.next += 1;
        self.connections.insert(number, (address, closed.clone()));
        (number, closed)
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A connection that fails once its time is over or its place is needed.
pub(super) struct BoundedStream {
    inner: TcpStream,
    deadline: Pin<Box<Sleep>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    number: u64,
    open: Arc<Mutex<Open>>,
}

impl BoundedStream {
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_over = self.deadline.as_mut().poll(context).is_ready() || self.closed.as_mut().poll(context).is_ready();
        if is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Drop for BoundedStream {
    fn drop(&mut self) {
        lock(&self.open).connections.remove(&self.number);
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn oldest_connection_of_an_address_goes_first_and_then_the_oldest_of_all() {
        let mut open = Open::default();
        let (_, stranger) = open.add(address(1));
        let of_one: Vec<CancellationToken> =
            (0..=CONNECTIONS_PER_ADDRESS_MAX).map(|_| open.add(address(2)).1).collect();
        assert!(of_one[0].is_cancelled() && !of_one[1].is_cancelled() && !stranger.is_cancelled());
        for last in 100..100 + u8::try_from(CONNECTIONS_MAX).unwrap() {
            open.add(address(last));
        }
        assert!(stranger.is_cancelled() && of_one.iter().all(CancellationToken::is_cancelled));
        assert_eq!(open.connections.len(), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = BoundedListener::new(listener);
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_PER_ADDRESS_MAX {
            silent.push((TcpStream::connect(address).await.unwrap(), listener.accept().await.0));
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = listener.accept().await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        let first = &mut silent[0].1;
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
