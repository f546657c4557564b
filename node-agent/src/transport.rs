//! QUIC on the ports of the catalogue: every row of the tables, behind one type.
//!
//! In reading order: [`Transport`] binds the ports of a role and offers requests, messages, bulk content and
//! broadcasts. `settings` says which endpoint serves which traffic and how; `messages` and `bulk` (with `streams`) are
//! what the drivers use; `connections` dials, `acceptor` lets in; `tls`, `identity`, `authority`, `certificate` and
//! `join_token` are about who is who; `socket` (with `datagram`, `interface`) is what lies under QUIC; `background`
//! fits the yielding controller in. What messages mean, and when to enrol or renew, is decided by the drivers.
//!
//! Who sends dials from the port that its answers must reach, so that every packet flows along a row of the tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use noq::{ClientConfig, Endpoint, ServerConfig, TokioRuntime};
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::metrics::ClassCounters;

use background::BackgroundFactory;
use connections::{CLOSE_DONE, Dialler};
use interface::Interface;
use messages::{MessageService, Requester};
use settings::{Plan, Side, Traffic};
use socket::ClassSocket;
use streams::{StreamBulk, TransferService};

mod acceptor;
pub mod authority;
mod background;
pub mod broadcast;
pub mod bulk;
pub mod certificate;
mod connections;
mod datagram;
pub(crate) mod decoders;
pub mod enrolment;
mod framing;
pub mod identity;
pub(crate) mod interface;
pub mod join_token;
pub mod messages;
mod private_key;
mod settings;
pub(crate) mod socket;
mod streams;
mod tls;

pub use crate::private_file::FileError;
pub use authority::Authority;
pub use background::QueueDelay;
pub use broadcast::Broadcaster;
pub use bulk::{BulkError, BulkReceive, BulkSend, BulkTransport, ContentClass};
pub use certificate::PeerIdentity;
pub use enrolment::EnrolError;
pub use identity::NodeIdentity;
pub use join_token::JoinToken;
pub use messages::{IncomingMessage, MessageClass, ReplyHandle, RequestError};
pub use socket::BindError;
pub use tls::TlsError;

/// Closing waits this long for peers to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a node waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportSettings {
    /// For a connection.
    pub dial_timeout: Duration,
    /// For the reply to a small message, dialling included.
    pub small_timeout: Duration,
    /// For the reply to a foreground message.
    pub foreground_timeout: Duration,
    /// For the reply to a background message, which may be slow while others use the link.
    pub background_timeout: Duration,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(2),
            small_timeout: Duration::from_secs(3),
            foreground_timeout: Duration::from_secs(30),
            background_timeout: Duration::from_secs(120),
        }
    }
}

/// A transport that could not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An endpoint could not be started on its bound port.
    #[error("cannot start QUIC on port {port}: {source}")]
    Endpoint {
        /// The port.
        port: u16,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// All ports of one role at one address.
pub struct Transport {
    role: Role,
    address: IpAddr,
    identity: Arc<NodeIdentity>,
    requesters: BTreeMap<MessageClass, Requester>,
    messages: Mutex<mpsc::Receiver<IncomingMessage>>,
    bulk: StreamBulk,
    broadcaster: Option<Broadcaster>,
    queue_delay: Arc<QueueDelay>,
    endpoints: Endpoints,
}

impl Transport {
    /// Binds every port of the role. Must be called in a tokio runtime. A client may bind before it is enrolled: until
    /// then it can only enrol.
    ///
    /// # Errors
    /// [`TransportError`]; a port in use is named together with its holder.
    pub fn bind(
        role: Role,
        address: IpAddr,
        identity: Arc<NodeIdentity>,
        settings: TransportSettings,
        counters: Arc<ClassCounters>,
    ) -> Result<Self, TransportError> {
        Self::bind_on(Interface::of(address), role, address, identity, settings, counters)
    }

    fn bind_on(
        interface: Interface,
        role: Role,
        address: IpAddr,
        identity: Arc<NodeIdentity>,
        settings: TransportSettings,
        counters: Arc<ClassCounters>,
    ) -> Result<Self, TransportError> {
        let mut binding = Binding::new(interface, role, address, identity, settings, counters)?;
        for plan in settings::plans(role) {
            match plan.side {
                Side::Dials => binding.dial_from(plan)?,
                Side::Accepts => binding.accept_on(plan)?,
            }
        }
        binding.finish()
    }

    /// The role that this node plays.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The address of every port.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The node's identity.
    pub fn identity(&self) -> &Arc<NodeIdentity> {
        &self.identity
    }

    /// Sends a message to the node at `to` and waits for its reply. A reply that refuses is an error.
    ///
    /// # Errors
    /// [`RequestError`] says whether the peer was not there, too slow, unwilling, or not understood.
    pub async fn request(
        &self,
        to: IpAddr,
        to_role: Role,
        class: MessageClass,
        envelope: proto::Envelope,
    ) -> Result<proto::Reply, RequestError> {
        let no_row =
            || RequestError::Protocol { to, problem: format!("no row for {class:?} messages to a {to_role:?}") };
        let requester = self.requesters.get(&class).ok_or_else(no_row)?;
        let port = class.traffic().accepting_port(to_role).ok_or_else(no_row)?;
        requester.request(SocketAddr::new(to, port), to_role, &envelope).await
    }

    /// The next message; `None` when the node stops. Takes turns when several wait.
    pub async fn next_message(&self) -> Option<IncomingMessage> {
        self.messages.lock().await.recv().await
    }

    /// Bulk content.
    pub fn bulk(&self) -> &dyn BulkTransport {
        &self.bulk
    }

    /// Broadcasts; only clients have them.
    pub fn broadcaster(&self) -> Option<&Broadcaster> {
        self.broadcaster.as_ref()
    }

    /// The queue that background connections saw last.
    pub fn queue_delay(&self) -> &Arc<QueueDelay> {
        &self.queue_delay
    }

    /// Closes every connection and waits a moment for the peers to hear of it.
    pub async fn close(&self) {
        self.endpoints.close();
        let idle = futures_util::future::join_all(self.endpoints.0.iter().map(Endpoint::wait_idle));
        if timeout(CLOSE_TIMEOUT, idle).await.is_err() {
            tracing::debug!("some peers did not hear that this node stops");
        }
    }
}

/// Endpoints whose tasks end, and give their ports back, when this is dropped: also when a later port is taken.
#[derive(Default)]
struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    fn close(&self) {
        for endpoint in &self.0 {
            endpoint.close(CLOSE_DONE, b"this node stops");
        }
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.close();
    }
}

/// The parts of a transport while its ports are bound one after the other.
struct Binding {
    role: Role,
    address: IpAddr,
    identity: Arc<NodeIdentity>,
    settings: TransportSettings,
    counters: Arc<ClassCounters>,
    interface: Interface,
    background: Arc<BackgroundFactory>,
    queue_delay: Arc<QueueDelay>,
    client_tls: Arc<noq::crypto::rustls::QuicClientConfig>,
    memory: Arc<tokio::sync::Semaphore>,
    message_queue: (mpsc::Sender<IncomingMessage>, mpsc::Receiver<IncomingMessage>),
    transfer_queue: (mpsc::Sender<BulkReceive>, mpsc::Receiver<BulkReceive>),
    requesters: BTreeMap<MessageClass, Requester>,
    content_dialler: Option<Dialler>,
    endpoints: Endpoints,
}

impl Binding {
    fn new(
        interface: Interface,
        role: Role,
        address: IpAddr,
        identity: Arc<NodeIdentity>,
        settings: TransportSettings,
        counters: Arc<ClassCounters>,
    ) -> Result<Self, TransportError> {
        let queue_delay = Arc::new(QueueDelay::default());
        Ok(Self {
            role,
            address,
            settings,
            counters,
            interface,
            background: Arc::new(BackgroundFactory::new(queue_delay.clone())),
            queue_delay,
            client_tls: tls::client(&identity)?,
            identity,
            memory: messages::message_memory(),
            message_queue: mpsc::channel(messages::INCOMING_MESSAGES_MAX),
            transfer_queue: mpsc::channel(streams::INCOMING_TRANSFERS_MAX),
            requesters: BTreeMap::new(),
            content_dialler: None,
            endpoints: Endpoints::default(),
        })
    }

    fn dial_from(&mut self, plan: Plan) -> Result<(), TransportError> {
        let endpoint = self.endpoint(plan, None)?;
        if plan.traffic.is_content() {
            let configs = self.client_configs(&[Traffic::ForegroundContent, Traffic::BackgroundContent]);
            self.content_dialler = Some(Dialler::new(endpoint, configs, self.settings.dial_timeout, true));
            return Ok(());
        }
        let (class, time_limit) = match plan.traffic {
            Traffic::ForegroundMessage => (MessageClass::Foreground, self.settings.foreground_timeout),
            Traffic::BackgroundMessage => (MessageClass::Background, self.settings.background_timeout),
            _ => (MessageClass::Small, self.settings.small_timeout),
        };
        let configs = self.client_configs(&[plan.traffic]);
        let requester = Requester {
            dialler: Dialler::new(endpoint, configs, self.settings.dial_timeout, false),
            class,
            vesc: self.role == Role::Vesc,
            time_limit,
            counters: self.counters.clone(),
        };
        self.requesters.insert(class, requester);
        Ok(())
    }

    fn accept_on(&mut self, plan: Plan) -> Result<(), TransportError> {
        let enrolment = plan.port == peerdist_core::ports::SERVER_SMALL;
        let mut config = ServerConfig::with_crypto(tls::server(&self.identity, enrolment)?);
        config.transport_config(Arc::new(plan.traffic.connection(self.interface, &self.background)));
        config.migration(false);
        let endpoint = self.endpoint(plan, Some(config))?;
        let (counters, messages) = (self.counters.clone(), self.message_queue.0.clone());
        let message = |class| Arc::new(MessageService::new(class, counters.clone(), self.memory.clone(), messages));
        let transfers = self.transfer_queue.0.clone();
        let transfer = |class| Arc::new(TransferService::new(class, counters.clone(), transfers));
        let port = plan.port;
        match plan.traffic {
            Traffic::SmallMessage => spawn_acceptor(endpoint, port, message(MessageClass::Small)),
            Traffic::ForegroundMessage => spawn_acceptor(endpoint, port, message(MessageClass::Foreground)),
            Traffic::BackgroundMessage => spawn_acceptor(endpoint, port, message(MessageClass::Background)),
            Traffic::ForegroundContent => spawn_acceptor(endpoint, port, transfer(ContentClass::Foreground)),
            Traffic::BackgroundContent => spawn_acceptor(endpoint, port, transfer(ContentClass::Background)),
        }
        Ok(())
    }

    fn endpoint(&mut self, plan: Plan, config: Option<ServerConfig>) -> Result<Endpoint, TransportError> {
        let local = SocketAddr::new(self.address, plan.port);
        let socket = ClassSocket::bind(local, plan.traffic.socket_limits(), self.counters.clone())?;
        let endpoint_config = plan.traffic.endpoint(self.identity.reset_secret(), self.address, plan.port);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config, config, Box::new(socket), runtime)
            .map_err(|source| TransportError::Endpoint { port: plan.port, source })?;
        self.endpoints.0.push(endpoint.clone());
        Ok(endpoint)
    }

    /// Settings for dialling, by destination port: the same traffic may be taken by servers and clients.
    fn client_configs(&self, traffics: &[Traffic]) -> BTreeMap<u16, ClientConfig> {
        let pairs = traffics.iter().flat_map(|&traffic| {
            let mut config = ClientConfig::new(self.client_tls.clone());
            config.transport_config(Arc::new(traffic.connection(self.interface, &self.background)));
            let ports = [Role::Server, Role::Client].into_iter().filter_map(move |role| traffic.accepting_port(role));
            ports.map(move |port| (port, config.clone()))
        });
        pairs.collect()
    }

    fn finish(self) -> Result<Transport, TransportError> {
        let broadcaster = match self.role {
            Role::Client => {
                let counters = self.counters.clone();
                Some(Broadcaster::bind(self.address, self.interface.broadcast, counters)?)
            }
            Role::Server | Role::Vesc => None,
        };
        let transport = Transport {
            role: self.role,
            address: self.address,
            identity: self.identity,
            requesters: self.requesters,
            messages: Mutex::new(self.message_queue.1),
            bulk: StreamBulk::new(self.content_dialler, self.counters, self.transfer_queue.1),
            broadcaster,
            queue_delay: self.queue_delay,
            endpoints: self.endpoints,
        };
        transport.use_office_key();
        Ok(transport)
    }
}

fn spawn_acceptor(endpoint: Endpoint, port: u16, service: impl acceptor::Serve) {
    tokio::spawn(acceptor::run(endpoint, port, Arc::new(service)));
}

#[cfg(test)]
mod tests;
