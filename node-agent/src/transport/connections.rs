//! Outgoing connections of one dialling port: opened on demand, one a destination, dialled once however many ask.
//! Checks who answered; what is then said on the connection is the business of `messages` and `streams`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use noq::{ClientConfig, ConnectionError, TransportErrorCode, VarInt};
use peerdist_core::ports::Role;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::certificate::{CertificateFacts, PeerIdentity};
use super::settings::IDLE;

/// Destinations of one port that are remembered.
const DESTINATIONS_MAX: usize = 16384;
/// Closed connections are forgotten at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Everything went as agreed.
pub(super) const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// The peer is not who it should be.
pub(super) const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
/// TLS alerts are carried as 0x100 plus the alert.
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// A destination that could not be dialled.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum DialError {
    #[error("{to} cannot be reached: {reason}")]
    Unreachable { to: SocketAddr, reason: String },
    #[error("{to} refused the connection or is not who it should be: {reason}")]
    Refused { to: SocketAddr, reason: String },
}

impl DialError {
    pub(super) fn from_connection(to: SocketAddr, error: &ConnectionError) -> Self {
        let reason = error.to_string();
        let refused = match error {
            ConnectionError::TransportError(error) => is_refusal(error.code),
            ConnectionError::ConnectionClosed(close) => is_refusal(close.error_code),
            ConnectionError::ApplicationClosed(close) => close.error_code == CLOSE_REFUSED,
            _ => false,
        };
        if refused { Self::Refused { to, reason } } else { Self::Unreachable { to, reason } }
    }
}

fn is_refusal(code: TransportErrorCode) -> bool {
    CRYPTO_ERRORS.contains(&u64::from(code))
}

/// A connection whose peer is known.
#[derive(Debug, Clone)]
pub(super) struct Established {
    pub(super) connection: noq::Connection,
    pub(super) peer: PeerIdentity,
    /// From then on the peer has to show another certificate.
    ends_at: Instant,
    /// Counts users of content connections: those live while somebody holds it.
    pub(super) uses: Arc<()>,
}

/// Dials from one port.
pub(super) struct Dialler {
    endpoint: noq::Endpoint,
    /// Settings by destination port.
    configs: BTreeMap<u16, ClientConfig>,
    dial_timeout: Duration,
    cache: Mutex<Cache>,
    close_unused: bool,
}

#[derive(Default)]
struct Cache {
    slots: BTreeMap<SocketAddr, Arc<Slot>>,
    swept: Option<Instant>,
}

type Slot = tokio::sync::Mutex<SlotState>;

#[derive(Default)]
struct SlotState {
    established: Option<Established>,
    failure: Option<(Instant, DialError)>,
}

impl Dialler {
    /// `close_unused` is for connections that keep themselves alive: they are closed when nobody used them for a while.
    pub(super) fn new(
        endpoint: noq::Endpoint,
        configs: BTreeMap<u16, ClientConfig>,
        dial_timeout: Duration,
        close_unused: bool,
    ) -> Self {
        Self { endpoint, configs, dial_timeout, cache: Mutex::default(), close_unused }
    }

    /// The open connection to `to`, or a new one. Who waits while another dials shares its result.
    pub(super) async fn connect(&self, to: SocketAddr, role: Role) -> Result<Established, DialError> {
        let asked = Instant::now();
        let slot = self.slot(to);
        let mut state = slot.lock().await;
        if let Some(established) = &state.established
            && established.connection.close_reason().is_none()
            && asked < established.ends_at
        {
            return Ok(established.clone());
        }
        if let Some((failed, error)) = &state.failure
            && *failed >= asked
        {
            return Err(error.clone());
        }
        let result = self.dial(to, role).await;
        match &result {
            Ok(established) => *state = SlotState { established: Some(established.clone()), failure: None },
            Err(error) => *state = SlotState { established: None, failure: Some((Instant::now(), error.clone())) },
        }
        result
    }

    async fn dial(&self, to: SocketAddr, role: Role) -> Result<Established, DialError> {
        let unreachable = |reason: String| DialError::Unreachable { to, reason };
        let config = self.configs.get(&to.port()).ok_or_else(|| unreachable("no row for this port".to_owned()))?;
        let connection = self.dial_with(config.clone(), to).await?;
        let facts = match presented_facts(&connection) {
            Some(facts) if facts.identity.role() == Some(role) => facts,
            other => {
                connection.close(CLOSE_REFUSED, b"another role was expected");
                let reason = format!("expected a {role:?}, found {:?}", other.map(|facts| facts.identity));
                return Err(DialError::Refused { to, reason });
            }
        };
        let ends_at = Instant::now() + facts.connection_lifetime(SystemTime::now());
        let established = Established { connection, peer: facts.identity, ends_at, uses: Arc::new(()) };
        if self.close_unused {
            tokio::spawn(close_when_unused(established.clone()));
        }
        Ok(established)
    }

    /// Dials with settings that are not this port's own (enrolment). The connection is not kept.
    pub(super) async fn dial_with(&self, config: ClientConfig, to: SocketAddr) -> Result<noq::Connection, DialError> {
        let (endpoint, dial_timeout) = (self.endpoint.clone(), self.dial_timeout);
        // The driver of a connection stays in the span that it was opened in, which would not end before the connection
        // does. In a task of its own there is none.
        let dialled = AbortOnDropHandle::new(tokio::spawn(async move {
            let connecting = endpoint.connect_with(config, to, &to.ip().to_string());
            let connecting = connecting.map_err(|error| DialError::Unreachable { to, reason: error.to_string() })?;
            match timeout(dial_timeout, connecting).await {
                Ok(connected) => connected.map_err(|error| DialError::from_connection(to, &error)),
                Err(_) => {
                    let reason = format!("no answer within {} s", dial_timeout.as_secs_f32());
                    Err(DialError::Unreachable { to, reason })
                }
            }
        }));
        dialled.await.map_err(|error| DialError::Unreachable { to, reason: error.to_string() })?
    }

    fn slot(&self, to: SocketAddr) -> Arc<Slot> {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(slot) = cache.slots.get(&to) {
            return slot.clone();
        }
        cache.sweep();
        cache.slots.entry(to).or_default().clone()
    }
}

impl Cache {
    /// Forgets what is closed, and, when still too much is left, the first.
    fn sweep(&mut self) {
        let now = Instant::now();
        let full = self.slots.len() >= DESTINATIONS_MAX;
        if full || self.swept.is_none_or(|swept| now.saturating_duration_since(swept) > SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.slots.retain(|_, slot| is_live(slot));
        }
        if self.slots.len() >= DESTINATIONS_MAX {
            self.slots.pop_first();
        }
    }
}

fn is_live(slot: &Arc<Slot>) -> bool {
    // Somebody who dials holds the lock.
    slot.try_lock().map_or(true, |state| {
        state.established.as_ref().is_some_and(|established| established.connection.close_reason().is_none())
    })
}

/// What the peer's certificate says.
pub(super) fn presented_facts(connection: &noq::Connection) -> Option<CertificateFacts> {
    let presented = presented_certificates(connection)?;
    CertificateFacts::read(presented.first()?).ok()
}

/// The chain that the peer presented.
pub(super) fn presented_certificates(connection: &noq::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|presented| *presented)
}

/// The slot and this task hold one use each; everybody else is a transfer.
async fn close_when_unused(established: Established) {
    const OWN_USES: usize = 2;
    let mut unused_since = Instant::now();
    loop {
        if timeout(IDLE / 6, established.connection.closed()).await.is_ok() {
            return;
        }
        if Arc::strong_count(&established.uses) > OWN_USES {
            unused_since = Instant::now();
        } else if unused_since.elapsed() >= IDLE {
            established.connection.close(CLOSE_DONE, b"unused");
            return;
        }
    }
}
