//! Incoming connections of one port: who may come in, from which port, for how long, and how many at a time.
//! What comes on them goes to `messages` or `streams`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use noq::crypto::rustls::HandshakeData;
use peerdist_core::ports::Role;
use tokio::time::timeout;

use super::certificate::PeerIdentity;
use super::connections::{CLOSE_DONE, CLOSE_REFUSED, presented_facts};
use super::settings::dialling_role;
use super::tls::ALPN_ENROL;

use places::{Bounds, Place, Places};

mod places;

/// Handshakes of one port at a time; more are not answered, and the dialler tries again. A host dials a port from two
/// ports at most, and with one connection at a time: what else it may have is for handshakes that it gave up. A network
/// may be a whole office, which comes back at once after the server was away.
const HANDSHAKES_MAX: Bounds = Bounds { in_all: 512, of_network: 128, of_address: 8 };
/// With so many handshakes running, who dials must first show that its address is real. The places between these bounds
/// and those above cannot be taken in another's name.
const HANDSHAKES_UNVALIDATED_MAX: Bounds = Bounds { in_all: 64, of_network: 64, of_address: 4 };
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections without certificate to one port. One more is closed and comes back later: any of the others may be about
/// to enrol.
const ENROLMENTS_MAX: Bounds = Bounds { in_all: 1024, of_network: 256, of_address: 4 };
/// Connections with a certificate of one address to one port: a new one closes the oldest, which is likely of a process
/// that was killed.
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
    let handshakes = Arc::new(Places::new(HANDSHAKES_MAX));
    let guests = Arc::new(Guests::new());
    while let Some(incoming) = endpoint.accept().await {
        let Some((incoming, place)) = admit(incoming, port, &handshakes) else { continue };
        let (service, guests) = (service.clone(), guests.clone());
        tokio::spawn(async move {
            let handshaken = handshake(incoming, port).await;
            drop(place);
            match handshaken {
                Ok(accepted) => guests.receive(&*service, accepted).await,
                Err(reason) => tracing::debug!(port, reason, "connection refused"),
            }
        });
    }
}

fn admit(incoming: noq::Incoming, port: u16, handshakes: &Arc<Places>) -> Option<(noq::Incoming, Place)> {
    let remote = incoming.remote_address();
    if dialling_role(port, remote.port()).is_none() {
        incoming.ignore();
        return None;
    }
    if !incoming.remote_address_validated() && !handshakes.has_room_within(remote.ip(), HANDSHAKES_UNVALIDATED_MAX) {
        // Fails only when this was asked already.
        let _ = incoming.retry();
        return None;
    }
    match handshakes.take(remote.ip()) {
        Some(place) => Some((incoming, place)),
        None => {
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
    let role = dialling_role(port, remote.port());
    if protocol.as_deref() == Some(ALPN_ENROL) {
        // Clients are the only ones that enrol, and they do it from the port of their small messages.
        let is_client = role == Some(Role::Client);
        return if is_client { Ok((PeerIdentity::Enrolling, Duration::MAX)) } else { Err("only clients enrol") };
    }
    let facts = presented_facts(connection).ok_or("no certificate: enrol first")?;
    if !facts.addresses.contains(&remote.ip()) {
        return Err("the certificate is for another address");
    }
    if facts.identity.role() != role {
        return Err("the certificate is for another role");
    }
    let lifetime = facts.connection_lifetime(SystemTime::now());
    Ok((facts.identity, lifetime))
}

async fn serve(service: &impl Serve, accepted: Accepted) {
    if timeout(accepted.lifetime, service.serve(accepted.clone())).await.is_err() {
        accepted.connection.close(CLOSE_DONE, b"the certificate has run out");
    }
}

/// The connections of one port that were let in.
struct Guests {
    enrolments: Arc<Places>,
    addresses: Addresses,
}

impl Guests {
    fn new() -> Self {
        Self { enrolments: Arc::new(Places::new(ENROLMENTS_MAX)), addresses: Addresses::default() }
    }

    /// Serves a connection for as long as it may stay. One without certificate is a stranger's: it may close none of
    /// those that have one, so it finds a place among its like or goes.
    async fn receive(&self, service: &impl Serve, accepted: Accepted) {
        if accepted.peer == PeerIdentity::Enrolling {
            match self.enrolments.take(accepted.address) {
                Some(_place) => serve(service, accepted).await,
                None => accepted.connection.close(CLOSE_DONE, b"too many nodes enrol from this address or network"),
            }
            return;
        }
        self.addresses.add(&accepted);
        serve(service, accepted.clone()).await;
        self.addresses.remove(&accepted);
    }
}

/// Connections with a certificate by address, oldest first.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes places within the bounds for as long as there are any.
    fn fill(places: &Arc<Places>, address: IpAddr, bounds: Bounds) -> Vec<Place> {
        let mut held = Vec::new();
        while places.has_room_within(address, bounds)
            && let Some(place) = places.take(address)
        {
            held.push(place);
        }
        held
    }

    #[test]
    fn handshakes_in_the_name_of_an_address_leave_places_for_whoever_has_it() {
        let handshakes = Arc::new(Places::new(HANDSHAKES_MAX));
        let victim = IpAddr::from([10, 0, 0, 1]);
        let forged = fill(&handshakes, victim, HANDSHAKES_UNVALIDATED_MAX);
        assert_eq!(forged.len(), HANDSHAKES_UNVALIDATED_MAX.of_address);
        assert_eq!(fill(&handshakes, victim, HANDSHAKES_MAX).len(), HANDSHAKES_MAX.of_address - forged.len());
    }

    #[test]
    fn host_that_fills_the_places_of_its_network_keeps_no_other_out() {
        for bounds in [HANDSHAKES_MAX, ENROLMENTS_MAX] {
            let places = Arc::new(Places::new(bounds));
            let of_network = (1..=1024).map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
            let held: Vec<Place> = of_network.flat_map(|address| fill(&places, address, bounds)).collect();
            assert_eq!(held.len(), bounds.of_network);
            let other = fill(&places, IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, 1]), bounds);
            assert_eq!(other.len(), bounds.of_address);
        }
    }
}
