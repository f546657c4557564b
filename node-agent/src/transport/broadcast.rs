//! Broadcasts of one office on port 34329: sealed with the office key, heard by every client of the subnet.
//!
//! One socket at the node's own address sends; a second one at the broadcast address, shared by all nodes of the host,
//! hears. What is asked and who answers is the driver's business; the datagram is `peerdist_core::broadcast`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};

use peerdist_core::broadcast::{self, OfficeKey, OpenError, ReplayGuard, SealError};
use peerdist_core::names::NodeName;
use peerdist_core::ports::{CLIENT_BROADCAST, TransferClass};
use peerdist_core::wire::{BROADCAST_DATAGRAM_BYTES, proto};
use rand::RngCore;
use tokio::net::UdpSocket;

use crate::metrics::{ClassCounters, Direction, TransferErrorReason};

use super::socket::{self, BindError};

/// A broadcast that was not sent.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// No key yet: the node is not enrolled.
    #[error("broadcast needs the office key: enrol first")]
    NoKey,
    /// No subnet to broadcast in.
    #[error("no interface with a subnet holds {0}: holders are learned from the rendezvous point")]
    NoSubnet(IpAddr),
    /// The message does not fit.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The kernel refused.
    #[error("broadcast to {to} cannot be sent: {source}")]
    Send {
        /// The subnet's broadcast address.
        to: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Sends and hears the broadcasts of one node.
pub struct Broadcaster {
    sending: UdpSocket,
    hearing: Option<UdpSocket>,
    subnet: Option<SocketAddr>,
    address: IpAddr,
    boot_id: u64,
    counter: AtomicU64,
    foreign: AtomicU64,
    key: RwLock<Option<OfficeKey>>,
    replays: Mutex<ReplayGuard>,
    counters: Arc<ClassCounters>,
}

impl Broadcaster {
    pub(super) fn bind(
        address: IpAddr,
        subnet: Option<Ipv4Addr>,
        counters: Arc<ClassCounters>,
    ) -> Result<Self, BindError> {
        let sending = open(SocketAddr::new(address, CLIENT_BROADCAST), false)?;
        let subnet = subnet.map(|subnet| SocketAddr::new(subnet.into(), CLIENT_BROADCAST));
        let hearing = match subnet.map(|subnet| open(subnet, true)) {
            Some(Err(BindError::Failed { address, source })) if source.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(%address, %source, "no broadcast in this subnet: the kernel has no route for it");
                None
            }
            other => other.transpose()?,
        };
        let subnet = subnet.filter(|_| hearing.is_some());
        Ok(Self {
            sending,
            hearing,
            subnet,
            address,
            boot_id: rand::rng().next_u64(),
            counter: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            key: RwLock::new(None),
            replays: Mutex::default(),
            counters,
        })
    }

    /// This run of the node, in every broadcast.
    pub fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// Takes the key that enrolment gave.
    pub fn set_office_key(&self, enrolled: &[u8; 32]) {
        *self.key.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(OfficeKey::new(enrolled));
    }

    /// Datagrams that were not this office's: other offices in the subnet, or noise.
    pub fn foreign_datagrams(&self) -> u64 {
        self.foreign.load(Relaxed)
    }

    /// Broadcasts a request to the subnet. Boot id and counter are filled in here.
    ///
    /// # Errors
    /// [`BroadcastError`] when there is no key or no subnet, or the message does not fit.
    pub async fn send(&self, mut message: proto::Broadcast) -> Result<(), BroadcastError> {
        let key = self.key().ok_or(BroadcastError::NoKey)?;
        let to = self.subnet.ok_or(BroadcastError::NoSubnet(self.address))?;
        message.boot_id = self.boot_id;
        message.counter = self.counter.fetch_add(1, Relaxed) + 1;
        let datagram = broadcast::seal(&key, &message)?;
        self.sending.send_to(&datagram, to).await.map_err(|source| BroadcastError::Send { to, source })?;
        self.counters.add_bytes(TransferClass::Broadcast, Direction::Sent, datagram.len() as u64);
        self.counters.add_message(TransferClass::Broadcast, Direction::Sent);
        Ok(())
    }

    /// The next broadcast of another node of the office, heard for the first time, and where it came from.
    pub async fn next_broadcast(&self) -> (IpAddr, proto::Broadcast) {
        // One byte more than expected, so that a longer datagram is not taken for one of the right size.
        let mut buffer = [0; BROADCAST_DATAGRAM_BYTES + 1];
        loop {
            let Some((length, from)) = self.receive(&mut buffer).await else { continue };
            if from.ip() == self.address && from.port() == CLIENT_BROADCAST {
                continue;
            }
            self.counters.add_bytes(TransferClass::Broadcast, Direction::Received, length as u64);
            if let Some(message) = self.admit(&buffer[..length], from) {
                self.counters.add_message(TransferClass::Broadcast, Direction::Received);
                return (from.ip(), message);
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let received = match &self.hearing {
            Some(hearing) => hearing.recv_from(buffer).await,
            None => self.sending.recv_from(buffer).await,
        };
        // An error of the socket is reported once; there is nothing to repair.
        received.inspect_err(|error| tracing::debug!(%error, "broadcast socket")).ok()
    }

    fn admit(&self, datagram: &[u8], from: SocketAddr) -> Option<proto::Broadcast> {
        let key = self.key()?;
        let message = match broadcast::open(&key, datagram) {
            Ok(message) => message,
            Err(OpenError::NotBroadcast | OpenError::OtherOffice) => {
                self.foreign.fetch_add(1, Relaxed);
                return None;
            }
            Err(error) => {
                self.counters.add_error(TransferClass::Broadcast, TransferErrorReason::Malformed);
                tracing::debug!(%from, %error, "broadcast dropped");
                return None;
            }
        };
        let sender = message.sender.as_ref()?;
        let name = NodeName::new(&sender.name).ok()?;
        // Whoever sends says where it is: a datagram sent on from elsewhere is not answered.
        if sender.address.parse::<IpAddr>().ok()? != from.ip() || message.boot_id == self.boot_id {
            return None;
        }
        let mut replays = self.replays.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        replays.admit(&name, message.boot_id, message.counter).then_some(message)
    }

    fn key(&self) -> Option<OfficeKey> {
        self.key.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

fn open(address: SocketAddr, shared: bool) -> Result<UdpSocket, BindError> {
    let failed = |source| BindError::Failed { address, source };
    let socket = socket::bind(address, shared)?;
    socket.set_broadcast(true).map_err(failed)?;
    UdpSocket::from_std(socket.into()).map_err(failed)
}
