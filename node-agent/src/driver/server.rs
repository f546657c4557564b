//! The server role: library, plans, enrolment, and the first holder of every package.
//!
//! [`BoundServer`] opens everything and binds the ports; `node` is the loop around the core's machine; `enrolment`
//! issues certificates, `ingest` brings packages in, with `secrets` that sources ask for, and `overview` says how that
//! goes, `library` is what earlier runs brought in, `keys` follows keys that change, `evictions` are deleted objects that
//! nodes still hold, `reviews` are enrolments that wait for a cluster's word, `leaving` says which nodes have left a
//! cluster, `recording` writes the database, `snapshot` says how things stand, `revisions` numbers the plans.

mod enrolment;
mod evictions;
mod ingest;
mod keys;
mod leaving;
mod library;
mod node;
mod overview;
mod places;
mod recording;
mod reviews;
mod revisions;
mod secrets;
mod snapshot;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use peerdist_core::message::Revision;
use peerdist_core::ports::Role;
use peerdist_crds::Quantity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::ServerOptions;
use crate::cluster::{
    AccessReviewer, Cluster, ClusterError, ClusterNodes, RefusalTeller, Standing, TokenReviewer, write_progress,
};
use crate::database::{self, DatabaseError, MetadataStore};
use crate::desired::{ClusterSource, DesiredSource, DirectorySource};
use crate::http::{
    self, ApiFile, ApiFileError, ApiGuard, ApiToken, ApiTokenError, HttpService, Readiness, SERVER_HTTP_PORT, StatusApi,
};
use crate::metrics::{ClassCounters, Metrics};
use crate::private_file::FileError;
use crate::status::StatusSnapshot;
use crate::store::{NodeStore, StoreError, StoreLimits};
use crate::transport::authority::AuthorityError;
use crate::transport::join_token::JoinTokenError;
use crate::transport::{Authority, JoinToken, Transport, TransportError, TransportSettings};

use super::address_trouble::{is_address_missing, is_http_address_missing, is_http_port_held, is_port_held};
use super::opening::{CHECK_STORAGE, open_store};
use crate::source::NetworksFileError;
pub use crate::source::{AddressRule, FileRule, RetryPolicy};
pub use overview::{IngestFailure, IngestOverview};

/// Readiness: the objects were read.
const CHECK_OBJECTS: &str = "objects";
/// File in the server's root with the token of its API.
const API_TOKEN_FILE: &str = "api-token";
/// Percent of its disk that the server of a cluster leaves free unless somebody says otherwise: with less free on the disk
/// of images, which mostly is that of everything else, kubelet evicts pods of its node.
const KEPT_FREE_PERCENT_IN_CLUSTER: u8 = 15;
/// How long nodes keep an old version after it stopped being current, unless somebody says so.
pub const RETENTION_SECONDS_DEFAULT: u64 = 3_600;

/// What a server needs to know.
#[derive(Clone)]
pub struct ServerSettings {
    /// Address that the ports are bound to.
    pub address: IpAddr,
    /// Library, identity and metadata.
    pub root: PathBuf,
    /// Folder with the keys of the authority, which is followed; the server makes its own when absent.
    pub authority: Option<PathBuf>,
    /// File with the join token; written when it is absent. A server of a cluster has none.
    pub join_token_file: PathBuf,
    /// Metadata database; a SQLite file under the root when absent.
    pub database: Option<String>,
    /// How often a source is tried.
    pub retry: RetryPolicy,
    /// From where sources may be fetched.
    pub sources: AddressRule,
    /// Which files of this machine may be sources.
    pub files: FileRule,
    /// How long nodes and library keep an old version after it stopped being current.
    pub retention_seconds: u64,
    /// The cluster that it serves, if any: pods enrol by their tokens, and progress goes to the objects.
    pub cluster: Option<Cluster>,
}

/// A server that could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nothing says where its objects are.
    #[error("server: no objects: expected --manifests DIR or --kubernetes")]
    NoObjects,
    /// The root folder.
    #[error("server: {0}")]
    Store(#[from] StoreError),
    /// The revisions of plans.
    #[error("server: {0}")]
    Revisions(#[from] FileError),
    /// Keys and certificates.
    #[error("server: {0}")]
    Authority(#[from] AuthorityError),
    /// A port.
    #[error("server: {0}")]
    Transport(#[source] TransportError),
    /// The address.
    #[error("server: this host has no address {0}: expected the address of one of its interfaces")]
    NoSuchAddress(IpAddr),
    /// The join token.
    #[error("server: {0}")]
    Token(#[from] JoinTokenError),
    /// HTTP.
    #[error("server: {0}")]
    Http(#[source] http::HttpBindError),
    /// The API's token.
    #[error("server: {0}")]
    ApiToken(#[from] ApiTokenError),
    /// The API's file.
    #[error("server: {0}")]
    ApiFile(#[from] ApiFileError),
    /// The database.
    #[error("server: {0}")]
    Database(#[from] DatabaseError),
    /// The cluster.
    #[error("server: {0}")]
    Cluster(#[from] ClusterError),
    /// Where sources may not be.
    #[error("server: {0}")]
    Networks(#[from] NetworksFileError),
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl ServerError {
    fn of_transport(address: IpAddr, error: TransportError) -> Self {
        if is_address_missing(&error) { Self::NoSuchAddress(address) } else { Self::Transport(error) }
    }

    fn of_http(address: IpAddr, error: http::HttpBindError) -> Self {
        if is_http_address_missing(&error) { Self::NoSuchAddress(address) } else { Self::Http(error) }
    }

    /// Whether a port is held by somebody else.
    pub fn is_port_in_use(&self) -> bool {
        match self {
            Self::Transport(error) => is_port_held(error),
            Self::Http(error) => is_http_port_held(error),
            _ => false,
        }
    }

    /// Whether the address cannot be used: a port of it is held by somebody else, or this host does not have it.
    pub fn is_address_unusable(&self) -> bool {
        self.is_port_in_use() || matches!(self, Self::NoSuchAddress(_))
    }
}

/// A server whose ports are bound.
pub struct BoundServer {
    settings: ServerSettings,
    store: Arc<NodeStore>,
    authority: Arc<Authority>,
    token: Option<JoinToken>,
    transport: Arc<Transport>,
    metrics: Arc<Metrics>,
    database: Arc<dyn MetadataStore>,
    readiness: Readiness,
    listener: tokio::net::TcpListener,
    api: StatusApi,
    snapshots: watch::Sender<Arc<StatusSnapshot>>,
    overview: IngestOverview,
    last_revision: Revision,
}

impl BoundServer {
    /// Opens library, keys and database, binds every port and, outside of a cluster, writes the join token. Probes are
    /// answered while the library is opened, which may take minutes.
    ///
    /// # Errors
    /// [`ServerError`]; a port in use is named with its holder.
    pub async fn bind(settings: ServerSettings) -> Result<Self, ServerError> {
        let counters = Arc::new(ClassCounters::default());
        let metrics = Arc::new(Metrics::new(counters.clone())?);
        let readiness = Readiness::new([CHECK_STORAGE, CHECK_OBJECTS]);
        // The API's token lies in the root, which is not ours before it is open.
        let service = HttpService { metrics: metrics.clone(), readiness: readiness.clone(), api: None };
        let http_address = SocketAddr::new(settings.address, SERVER_HTTP_PORT);
        let (listener, opened) = open_store(&settings.root, http_address, service)
            .await
            .map_err(|error| ServerError::of_http(settings.address, error))?;
        let store = opened?;
        let folder = settings.root.join("identity");
        let authority = match &settings.authority {
            Some(given) => Authority::follow(given, &folder)?,
            None => Authority::open(&folder, SystemTime::now())?,
        };
        let identity = Arc::new(authority.server_identity(settings.address, SystemTime::now())?);
        let transport =
            Transport::bind(Role::Server, settings.address, identity, TransportSettings::default(), counters)
                .map_err(|error| ServerError::of_transport(settings.address, error))?;
        let database = database::open(settings.database.as_deref(), &settings.root).await?;
        let api_token = ApiToken::create(&settings.root.join(API_TOKEN_FILE))?;
        ApiFile { url: format!("http://{http_address}"), token_file: API_TOKEN_FILE.into() }.write(&settings.root)?;
        let file = &settings.join_token_file;
        let token = enrolment::join_token(settings.cluster.as_ref(), file, authority.root_sha256())?;
        let last_revision = revisions::reserve(&settings.root, SystemTime::now())?;
        let guard = ApiGuard { token: api_token, reviewer: settings.cluster.clone().map(AccessReviewer::new) };
        let (snapshots, snapshot) = watch::channel(Arc::new(snapshot::empty()));
        Ok(Self {
            settings,
            store: Arc::new(store),
            authority: Arc::new(authority),
            token,
            transport: Arc::new(transport),
            metrics,
            database,
            readiness,
            listener,
            api: StatusApi { guard, snapshot },
            snapshots,
            overview: IngestOverview::default(),
            last_revision,
        })
    }

    /// Keeps the library, with what arrives for it, below a limit if there is one, and that share of its disk free.
    pub fn limit_storage(&self, limit_bytes: Option<u64>, kept_free_percent: u8) {
        self.store.set_limits(StoreLimits { limit_bytes });
        self.store.keep_free(kept_free_percent);
    }

    /// How things stand, a few times a second.
    pub fn snapshots(&self) -> watch::Receiver<Arc<StatusSnapshot>> {
        self.snapshots.subscribe()
    }

    /// What ingest does and what failed.
    pub fn overview(&self) -> IngestOverview {
        self.overview.clone()
    }

    /// Its metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// The database.
    pub fn database(&self) -> Arc<dyn MetadataStore> {
        self.database.clone()
    }

    /// Runs until `stop`, on objects from `desired`.
    pub async fn run(self, desired: impl DesiredSource + 'static, stop: CancellationToken) {
        self.say_started();
        let service =
            HttpService { metrics: self.metrics.clone(), readiness: self.readiness.clone(), api: Some(self.api) };
        let http = tokio::spawn(http::serve(self.listener, service, stop.clone()));
        let transport = self.transport.clone();
        let cluster = self.settings.cluster.clone();
        let (standings, standing) = watch::channel(Standing::new(self.snapshots.borrow().clone()));
        if let Some(cluster) = &cluster {
            tokio::spawn(write_progress(cluster.clone(), standing, stop.clone()));
        }
        let node = node::Node::new(node::Parts {
            settings: self.settings,
            store: self.store,
            authority: self.authority,
            token: self.token,
            nodes: cluster.as_ref().map(|cluster| ClusterNodes::watch(cluster, stop.clone())),
            refusals: cluster.clone().map(|cluster| (cluster.clone(), RefusalTeller::start(cluster))),
            reviewer: cluster.map(TokenReviewer::new),
            standings,
            transport: self.transport,
            metrics: self.metrics,
            database: self.database,
            readiness: self.readiness,
            snapshots: self.snapshots,
            overview: self.overview,
            last_revision: self.last_revision,
        });
        node.run(desired, stop).await;
        transport.close().await;
        drop(http.await);
    }

    fn say_started(&self) {
        let ServerSettings { address, root, cluster, .. } = &self.settings;
        tracing::info!(
            role = "server",
            %address,
            root = %root.display(),
            kubernetes = cluster.is_some(),
            version = env!("CARGO_PKG_VERSION"),
            "started"
        );
    }
}

/// What the installation forbids, and the API server. Of this host one address is named, in case its tables cannot be read;
/// the rule looks up the others by itself.
fn forbidden_sources(options: &ServerOptions) -> Vec<IpNet> {
    let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
    let hosts = [Some(options.address), api_server].into_iter().flatten().map(IpNet::from);
    options.forbidden_sources.iter().copied().chain(hosts).collect()
}

/// Runs `peerdist server` until it is told to stop.
///
/// # Errors
/// [`ServerError`] when it cannot start.
pub async fn run_server(options: ServerOptions, stop: CancellationToken) -> Result<(), ServerError> {
    let cluster = if options.kubernetes { Some(Cluster::infer().await?) } else { None };
    let (sources, files) = match &cluster {
        Some(_) => {
            let forbidden = forbidden_sources(&options);
            let file = options.forbidden_sources_file.clone();
            let addresses = AddressRule::following(options.allowed_sources.clone(), forbidden, file)?;
            (addresses, FileRule::beneath(options.file_roots.clone()))
        }
        None => (AddressRule::any(), FileRule::any()),
    };
    let root = options.root.clone();
    let binding = BoundServer::bind(ServerSettings {
        address: options.address,
        root: options.root,
        authority: options.authority,
        join_token_file: options.join_token_file,
        database: options.database,
        retry: RetryPolicy::KeepTrying,
        sources,
        files: files.clone(),
        retention_seconds: options.retention_seconds,
        cluster: cluster.clone(),
    });
    // To open a library may take minutes.
    let Some(bound) = stop.run_until_cancelled(binding).await else { return Ok(()) };
    let server = bound?;
    let kept_free_percent = if cluster.is_some() { KEPT_FREE_PERCENT_IN_CLUSTER } else { 0 };
    server.limit_storage(
        options.storage_limit.map(Quantity::value),
        options.keep_free_percent.unwrap_or(kept_free_percent),
    );
    let manifests = options.manifests;
    match (cluster, manifests) {
        (Some(cluster), _) => server.run(ClusterSource::start(&cluster.client, &root, files), stop).await,
        (None, Some(manifests)) => {
            server.run(DirectorySource::new(&manifests).keeping_good_objects(&root), stop).await;
        }
        (None, None) => return Err(ServerError::NoObjects),
    }
    Ok(())
}
