//! The client role: one node of an office.
//!
//! [`BoundClient`] binds the ports and enrols; `waiting` answers probes before that, while the address of the server is
//! waited for; `node` is the loop around the core's machine; `receiving` takes in transfers and `signals` steers them,
//! `manifests` brings manifests and makes room on disk, `storing` flushes and publishes, `kept_plan` survives restarts,
//! `following` says whom the node follows, `server_address` follows a server that moves, `renewing` gets the next
//! certificate.

mod arriving;
#[cfg(test)]
mod fixture;
mod following;
mod kept_plan;
pub(super) mod manifests;
mod node;
mod receiving;
mod renewing;
mod server_address;
mod signals;
pub(super) mod storing;
mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use peerdist_authority::certificates::EXPIRED_TOLERANCE;
use peerdist_core::client::BUSY;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::NodeRef;
use peerdist_core::plan::decode_office_type;
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use tokio_util::sync::CancellationToken;

use self::node::Ended;
pub use self::server_address::ServerAddress;
use self::waiting::answering_probes;
use super::address_trouble::{is_address_missing, is_http_address_missing, is_http_port_held, is_port_held};
use super::opening::{CHECK_STORAGE, open_store};
use super::progress::NodeProgress;
use crate::cli::ClientOptions;
use crate::http::{self, CLIENT_HTTP_PORT, HttpService, Readiness};
use crate::metrics::{ClassCounters, Metrics};
use crate::store::{NodeStore, StoreError};
use crate::transport::{
    EnrolError, JoinToken, NodeIdentity, RequestError, Transport, TransportError, TransportSettings,
    identity::IdentityError, join_token::JoinTokenError,
};

/// Pause between two tries to enrol.
const ENROL_RETRY: Duration = Duration::from_secs(1);
/// Readiness: the node has a certificate.
const CHECK_ENROLLED: &str = "enrolled";
/// Readiness: the node has a plan.
pub(super) const CHECK_PLAN: &str = "plan";

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Address of the server.
    pub server: ServerAddress,
    /// Address that the ports are bound to.
    pub address: IpAddr,
    /// Office of the node.
    pub office: OfficeName,
    /// Name of the node.
    pub node: NodeName,
    /// Packages, staging and journal.
    pub root: PathBuf,
    /// File with the join token; waited for when it is absent.
    pub join_token_file: PathBuf,
    /// File with the digest of the server's root certificate, when the join token is that of a pod.
    pub trust_file: Option<PathBuf>,
}

impl ClientSettings {
    /// From the command line; waits for the file that says where the server is, if there is one.
    async fn of(options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions { server, server_file, address, office, node, root, join_token_file, trust_file } = options;
        let server = match (server, server_file) {
            (Some(address), _) => ServerAddress::fixed(address),
            (None, Some(file)) => answering_probes(address, &node, ServerAddress::wait(file)).await?,
            (None, None) => return Err(ClientError::NoServer { node }),
        };
        Ok(Self { server, address, office, node, root, join_token_file, trust_file })
    }
}

/// A client that could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing says where the server is.
    #[error("node {node}: no server: expected --server IP or --server-file FILE")]
    NoServer {
        /// The node.
        node: NodeName,
    },
    /// The root folder.
    #[error("node {node}: {source}")]
    Store {
        /// The node.
        node: NodeName,
        /// What is wrong.
        source: Box<StoreError>,
    },
    /// The identity.
    #[error("node {node}: {source}")]
    Identity {
        /// The node.
        node: NodeName,
        /// What is wrong.
        source: IdentityError,
    },
    /// A port.
    #[error("node {node}: {source}")]
    Transport {
        /// The node.
        node: NodeName,
        /// What is wrong.
        source: TransportError,
    },
    /// The address.
    #[error("node {node}: this host has no address {address}: expected the address of one of its interfaces")]
    NoSuchAddress {
        /// The node.
        node: NodeName,
        /// What was to be bound.
        address: IpAddr,
    },
    /// The server was set up anew while the node ran, or its root changed while the node could not hear of it.
    #[error(
        "node {node}: the token names no root that this node knows: the server was set up anew, or its root changed \
         while this node was away; it enrols anew when it is started again"
    )]
    ServerReplaced {
        /// The node.
        node: NodeName,
    },
    /// The join token.
    #[error("node {node}: {source}")]
    Token {
        /// The node.
        node: NodeName,
        /// What is wrong.
        source: JoinTokenError,
    },
    /// HTTP.
    #[error("node {node}: {source}")]
    Http {
        /// The node.
        node: NodeName,
        /// What is wrong.
        source: http::HttpBindError,
    },
    /// Enrolment was refused for good.
    #[error("node {node}: {message}")]
    Enrolment {
        /// The node.
        node: NodeName,
        /// What the server said.
        message: String,
    },
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A client whose ports are bound.
pub struct BoundClient {
    settings: ClientSettings,
    store: Arc<NodeStore>,
    transport: Arc<Transport>,
    service: HttpService,
    listener: tokio::net::TcpListener,
    progress: NodeProgress,
}

impl BoundClient {
    /// Opens the store and binds every port, so that trouble with either shows before anything starts. Probes are
    /// answered as soon as that: a store may take minutes.
    ///
    /// # Errors
    /// [`ClientError`] names the node, and the holder of a port in use.
    pub async fn bind(settings: ClientSettings) -> Result<Self, ClientError> {
        let node = settings.node.clone();
        let counters = Arc::new(ClassCounters::default());
        let service = HttpService {
            metrics: Arc::new(Metrics::new(counters.clone())?),
            readiness: Readiness::new([CHECK_STORAGE, CHECK_ENROLLED, CHECK_PLAN]),
            api: None,
        };
        let http_address = SocketAddr::new(settings.address, CLIENT_HTTP_PORT);
        let (listener, opened) = open_store(&settings.root, http_address, service.clone())
            .await
            .map_err(|source| ClientError::of_http(&node, settings.address, source))?;
        let store = opened.map_err(|source| ClientError::Store { node: node.clone(), source: Box::new(source) })?;
        let identity = NodeIdentity::open(&settings.root.join("identity"))
            .map_err(|source| ClientError::Identity { node: node.clone(), source })?;
        let transport =
            Transport::bind(Role::Client, settings.address, Arc::new(identity), TransportSettings::default(), counters)
                .map_err(|source| ClientError::of_transport(&node, settings.address, source))?;
        Ok(Self {
            settings,
            store: Arc::new(store),
            transport: Arc::new(transport),
            service,
            listener,
            progress: NodeProgress::default(),
        })
    }

    /// The node's name.
    pub fn node(&self) -> &NodeName {
        &self.settings.node
    }

    /// The node's office.
    pub fn office(&self) -> &OfficeName {
        &self.settings.office
    }

    /// Progress, kept up to date while it runs.
    pub fn progress(&self) -> NodeProgress {
        self.progress.clone()
    }

    /// Its metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.service.metrics.clone()
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// [`ClientError`] when the node cannot enrol.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ClientError> {
        self.settings.say_started();
        let HttpService { metrics, readiness, .. } = self.service.clone();
        let http = tokio::spawn(http::serve(self.listener, self.service, stop.clone()));
        tokio::spawn(self.settings.server.clone().follow(stop.clone()));
        let enrolled = tokio::select! {
            enrolled = enrol(&self.settings, &self.transport) => enrolled?,
            () = stop.cancelled() => {
                tracing::info!(role = "client", node = %self.settings.node, "stopping");
                return Ok(());
            }
        };
        readiness.set(CHECK_ENROLLED, Ok(()));
        let node = node::Node::new(
            self.settings,
            enrolled,
            self.store,
            self.transport.clone(),
            metrics,
            readiness,
            self.progress,
        );
        let name = node.name().clone();
        let ended = node.run(stop.child_token()).await;
        self.transport.close().await;
        http.abort();
        drop(http.await);
        match ended {
            Ended::Stopped => Ok(()),
            Ended::ServerReplaced => Err(ClientError::ServerReplaced { node: name }),
        }
    }
}

/// Runs `peerdist client` until it is told to stop.
///
/// # Errors
/// [`ClientError`] as for [`BoundClient`].
pub async fn run_client(options: ClientOptions, stop: CancellationToken) -> Result<(), ClientError> {
    let binding = async { BoundClient::bind(ClientSettings::of(options).await?).await };
    // To wait for the address and to open the store may both take minutes.
    let Some(bound) = stop.run_until_cancelled(binding).await else { return Ok(()) };
    bound?.run(stop).await
}

/// Gets a certificate unless the node has one for this address, of this server, already.
async fn enrol(settings: &ClientSettings, transport: &Transport) -> Result<proto::EnrolReply, ClientError> {
    let node = settings.node.clone();
    let identity = transport.identity();
    let is_ours = identity.covers(settings.address)
        && is_same_node(transport, settings)
        && !settings.server_is_another(transport);
    let current = identity.enrolment().filter(|enrolment| decode_office_type(enrolment.office_type).is_ok());
    let current = current.filter(|_| is_ours);
    let now = SystemTime::now();
    // Its office still takes it for so long while the server is away.
    let tolerated = current.clone().filter(|_| !identity.is_expired(now - EXPIRED_TOLERANCE));
    let token = || async {
        JoinToken::wait(&settings.join_token_file, settings.trust_file.as_deref())
            .await
            .map_err(|source| ClientError::Token { node: node.clone(), source })
    };
    if let Some(enrolment) = current.filter(|_| !identity.is_expired(now)) {
        return Ok(enrolment);
    }
    let me = proto::Node {
        name: settings.node.to_string(),
        office: settings.office.to_string(),
        address: settings.address.to_string(),
    };
    if let (Some(tolerated), Ok(None) | Err(_)) = (&tolerated, settings.token()) {
        tracing::warn!(%node, "the certificate has run out, and the node goes on in its office with it: no token is there");
        return Ok(tolerated.clone());
    }
    let mut told = None;
    loop {
        // Read anew each time: a server that was set up again has written another token.
        let token = token().await?;
        let enrolled = transport.enrol(settings.server.get(), &token, me.clone()).await;
        if let (Err(EnrolError::Request(error)), Some(tolerated)) = (&enrolled, &tolerated)
            && error.is_silence()
        {
            tracing::warn!(%node, "the certificate has run out, and the node goes on in its office with it: {error}");
            return Ok(tolerated.clone());
        }
        match enrolled {
            Ok(enrolment) => {
                tracing::info!(%node, office = %settings.office, server = %settings.server.get(), "enrolled");
                return Ok(enrolment);
            }
            Err(EnrolError::Request(RequestError::Refused { reason, message, .. }))
                if reason != "certificate"
                    && reason != "unknown-office"
                    && reason != BUSY
                    && settings.trust_file.is_none() =>
            {
                return Err(ClientError::Enrolment { node, message });
            }
            Err(error) => {
                let message = error.to_string();
                let is_busy =
                    matches!(&error, EnrolError::Request(RequestError::Refused { reason, .. }) if reason == BUSY);
                if !is_busy && told.as_ref() != Some(&message) {
                    tracing::warn!(%node, "not enrolled, and tried again: {message}");
                }
                told = Some(message);
                tokio::time::sleep(ENROL_RETRY).await;
            }
        }
    }
}

fn is_same_node(transport: &Transport, settings: &ClientSettings) -> bool {
    let claimed =
        crate::transport::PeerIdentity::Client { office: settings.office.clone(), node: settings.node.clone() };
    transport.identity().identity() == Some(claimed)
}

impl ClientSettings {
    /// Whether the token file is of another server than the one that this node enrolled at: it was set up anew.
    fn server_is_another(&self, transport: &Transport) -> bool {
        // Without a token there is nothing to enrol with, and nothing to tell by.
        let token = self.token().ok().flatten();
        token.is_some_and(|token| !transport.identity().trusts_any(token.pins()))
    }

    /// The token as it is now; `None` when it is not there.
    fn token(&self) -> Result<Option<JoinToken>, JoinTokenError> {
        JoinToken::look(&self.join_token_file, self.trust_file.as_deref())
    }

    /// What says that a pod is one of its office, whatever is known of roots; empty outside of a cluster. Why it cannot be
    /// read is said by [`Self::token`].
    fn pod_secret(&self) -> String {
        let of_pod = self.trust_file.as_ref().and_then(|_| JoinToken::read_secret_of_pod(&self.join_token_file).ok());
        of_pod.flatten().unwrap_or_default()
    }

    fn say_started(&self) {
        let Self { server, address, office, node, root, .. } = self;
        tracing::info!(
            role = "client",
            %node,
            %office,
            %address,
            server = %server.get(),
            root = %root.display(),
            version = env!("CARGO_PKG_VERSION"),
            "started"
        );
    }

    fn me(&self) -> NodeRef {
        NodeRef { name: self.node.clone(), office: self.office.clone(), address: self.address }
    }
}

/// The address cannot be listened on, or similar: for exit codes.
impl ClientError {
    fn of_transport(node: &NodeName, address: IpAddr, source: TransportError) -> Self {
        let node = node.clone();
        if is_address_missing(&source) {
            Self::NoSuchAddress { node, address }
        } else {
            Self::Transport { node, source }
        }
    }

    fn of_http(node: &NodeName, address: IpAddr, source: http::HttpBindError) -> Self {
        let node = node.clone();
        if is_http_address_missing(&source) {
            Self::NoSuchAddress { node, address }
        } else {
            Self::Http { node, source }
        }
    }

    /// Whether a port is held by somebody else.
    pub fn is_port_in_use(&self) -> bool {
        match self {
            Self::Transport { source, .. } => is_port_held(source),
            Self::Http { source, .. } => is_http_port_held(source),
            _ => false,
        }
    }

    /// Whether the address cannot be used: a port of it is held by somebody else, or this host does not have it.
    pub fn is_address_unusable(&self) -> bool {
        self.is_port_in_use() || matches!(self, Self::NoSuchAddress { .. })
    }
}

#[cfg(test)]
mod tests;
