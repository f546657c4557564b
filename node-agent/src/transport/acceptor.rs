//! Incoming connections of one port: who may come in, from which port, for how long, and how many at a time.
//! What comes on them goes to `messages` or `streams`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use noq::crypto::rustls::HandshakeData;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::certificate::PeerIdentity;
use super::connections::{CLOSE_DONE, CLOSE_REFUSED, presented_facts};
use super::settings::dialling_role;
use super::tls::ALPN_ENROL;

/// Handshakes of one port at a time; more are not answered, and the dialler tries again.
const HANDSHAKES_MAX: usize = 512;
/// With so many handshakes running, who dials must first show that its address is real.
const HANDSHAKES_UNVALIDATED_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of one address to one port: a new one closes the oldest, which is likely of a process that was killed.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 4;

/// A connection that was let in.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) connection: noq::Connection,
    pub(super) peer: PeerIdentity,
    pub(super) address: IpAddr,
    /// It is closed after this: the peer comes back with the certificate that it has then.
    lifetime: Duration,
}

/// What is done with connections that were let in.
pub(super) trait Serve: Send + Sync + 'static {
    /// Serves the connection until it closes.
    fn serve(&self, accepted: Accepted) -> impl Future<Output = ()> + Send;
}

/// Takes connections until the endpoint closes.
pub(super) async fn run(endpoint: noq::Endpoint, port: u16, service: Arc<impl Serve>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let addresses = Arc::new(Addresses::default());
    while let Some(incoming) = endpoint.accept().await {
        let Some((incoming, permit)) = admit(incoming, port, &handshakes) else { continue };
        let (service, addresses) = (service.clone(), addresses.clone());
        tokio::spawn(async move {
            match handshake(incoming, port).await {
                Ok(accepted) => {
                    drop(permit);
                    addresses.add(&accepted);
                    if timeout(accepted.lifetime, service.serve(accepted.clone())).await.is_err() {
                        accepted.connection.close(CLOSE_DONE, b"the certificate has run out");
                    }
                    addresses.remove(&accepted);
                }
                Err(reason) => tracing::debug!(port, reason, "connection refused"),
            }
        });
    }
}

fn admit(
    incoming: noq::Incoming,
    port: u16,
    handshakes: &Arc<Semaphore>,
) -> Option<(noq::Incoming, OwnedSemaphorePermit)> {
    if dialling_role(port, incoming.remote_address().port()).is_none() {
        incoming.ignore();
        return None;
    }
    let running = HANDSHAKES_MAX.saturating_sub(handshakes.available_permits());
    if running >= HANDSHAKES_UNVALIDATED_MAX && !incoming.remote_address_validated() {
        // Fails only when this was asked already.
        let _ = incoming.retry();
        return None;
    }
    match handshakes.clone().try_acquire_owned() {
        Ok(permit) => Some((incoming, permit)),
        Err(_) => {
            incoming.ignore();
            None
        }
    }
}

async fn handshake(incoming: noq::Incoming, port: u16) -> Result<Accepted, String> {
    let remote = incoming.remote_address();
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| format!("{remote} did not finish the handshake"))?
        .map_err(|error| format!("{remote}: {error}"))?;
    match identify(&connection, remote, port) {
        Ok((peer, lifetime)) => Ok(Accepted { connection, peer, address: remote.ip(), lifetime }),
        Err(reason) => {
            connection.close(CLOSE_REFUSED, reason.as_bytes());
            Err(format!("{remote}: {reason}"))
        }
    }
}

/// Who the peer is, if its certificate fits the address and port that it speaks from, and how long it may stay.
fn identify(
    connection: &noq::Connection,
    remote: SocketAddr,
    port: u16,
) -> Result<(PeerIdentity, Duration), &'static str> {
    let protocol = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = protocol.and_then(|data| data.protocol);
    if protocol.as_deref() == Some(ALPN_ENROL) {
        return Ok((PeerIdentity::Enrolling, Duration::MAX));
    }
    let facts = presented_facts(connection).ok_or("no certificate: enrol first")?;
    if !facts.addresses.contains(&remote.ip()) {
        return Err("the certificate is for another address");
    }
    if facts.identity.role() != dialling_role(port, remote.port()) {
        return Err("the certificate is for another role");
    }
    let lifetime = facts.connection_lifetime(SystemTime::now());
    Ok((facts.identity, lifetime))
}

/// Connections by address, oldest first.
#[derive(Default)]
struct Addresses(Mutex<BTreeMap<IpAddr, VecDeque<noq::Connection>>>);

impl Addresses {
    fn add(&self, accepted: &Accepted) {
        let mut addresses = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let connections = addresses.entry(accepted.address).or_default();
        connections.push_back(accepted.connection.clone());
        if connections.len() > CONNECTIONS_PER_ADDRESS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.close(CLOSE_DONE, b"too many connections from this address");
        }
    }

    fn remove(&self, accepted: &Accepted) {
        let mut addresses = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(connections) = addresses.get_mut(&accepted.address) {
            connections.retain(|connection| connection.stable_id() != accepted.connection.stable_id());
            if connections.is_empty() {
                addresses.remove(&accepted.address);
            }
        }
    }
}
