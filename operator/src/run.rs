//! Wires everything: waits for the lease, fills the caches, runs the controllers, and gives the lease back at the end.
//! Who loses the lease ends at once: what it knows may be old.

mod client;
mod controllers;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use self::client::fenced_client;
use self::controllers::Controllers;
use crate::http::{self, Health, Stage};
use crate::lease::{ElectionError, ElectionOptions, Fence, Standing, elect};
use crate::metrics::Metrics;
use crate::options::{LeaseOptions, Options};
use crate::settings::{Settings, SettingsError};
use crate::storage::StoragePrefixes;
use crate::watches::WatchEnded;

/// Longest wait for an answer of the API server to a request that is no watch; a watch is asked to end before.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// What an operator needs to run.
pub struct Operator {
    /// How to reach the API server.
    pub config: Config,
    /// What clients and server get.
    pub settings: Settings,
    /// Where everything of ours lives.
    pub namespace: String,
    /// Folders of the nodes that Offices may use.
    pub storage_prefixes: StoragePrefixes,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// A name that no other operator process has.
    pub identity: String,
    /// Where metrics and health are served.
    pub http: TcpListener,
}

/// Why an operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The API server cannot be reached as configured.
    #[error("cannot connect to the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
    /// Nothing says where the API server is.
    #[error("no Kubernetes API is configured: {0}: expected a service account or KUBECONFIG")]
    Configuration(#[from] kube::config::InferConfigError),
    /// The address of metrics and health cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The lease went away.
    #[error(transparent)]
    Lease(#[from] ElectionError),
    /// A watch ended.
    #[error(transparent)]
    Watch(#[from] WatchEnded),
    /// Two metrics share a name.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task panicked.
    #[error("a task ended unexpectedly: {0}")]
    Task(#[from] JoinError),
    /// A task that should run for ever ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until a signal.
///
/// # Errors
/// [`RunError`].
pub async fn run(options: Options) -> Result<(), RunError> {
    start(options).await?.run(stop_on_signal()).await
}

async fn start(options: Options) -> Result<Operator, RunError> {
    let Options { settings, namespace, storage_prefixes, name, lease, http_address } = options;
    let LeaseOptions { lease_namespace, lease_name } = lease;
    let settings = Settings::read(&settings)?;
    let config = Config::infer().await?;
    let http = TcpListener::bind(&to_listen_on(http_address)[..]).await;
    let http = http.map_err(|source| RunError::Listen { address: http_address, source })?;
    let identity = unique(&name);
    Ok(Operator { config, settings, namespace, storage_prefixes, lease_namespace, lease_name, identity, http })
}

/// What to try, one after the other: the kernel may have no IPv6, and then every address is one of IPv4.
fn to_listen_on(address: SocketAddr) -> Vec<SocketAddr> {
    let is_every = address.ip() == Ipv6Addr::UNSPECIFIED;
    let of_ipv4 = is_every.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
    [address].into_iter().chain(of_ipv4).collect()
}

/// The process before in the same pod had another name: its lease is not ours.
pub(crate) fn unique(name: &str) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{name}-{}-{started:x}", std::process::id())
}

impl Operator {
    /// Takes part until `stop`.
    ///
    /// # Errors
    /// [`RunError`]; also when the lease is lost, so that the process starts anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { mut config, settings, namespace, storage_prefixes, lease_namespace, lease_name, identity, http } =
            self;
        config.read_timeout.get_or_insert(READ_TIMEOUT);
        let fence = Fence::default();
        let (unfenced, fenced) = (Client::try_from(config.clone())?, fenced_client(config, fence.clone())?);
        let metrics = Arc::new(Metrics::new()?);
        let (told, mut standing) = watch::channel(Standing::default());
        let health = Health::new(Arc::clone(&metrics), standing.clone());
        let end_http = CancellationToken::new();
        let _end_http_at_last = end_http.clone().drop_guard();
        tokio::spawn(http::serve(http, health.clone(), end_http));

        let release = CancellationToken::new();
        let _release_at_last = release.clone().drop_guard();
        let options = ElectionOptions {
            namespace: lease_namespace,
            name: lease_name,
            identity: identity.clone(),
            installation: namespace.clone(),
        };
        let mut election = tokio::spawn(elect(unfenced, options, fence, told, release.clone()));

        tracing::info!(%identity, "waits for the lease");
        let leading = tokio::select! {
            () = stop.cancelled() => false,
            led = standing.wait_for(|standing| *standing == Standing::Leads) => led.is_ok(),
        };
        if leading {
            metrics.leads(true);
            health.set(Stage::Reading);
            tracing::info!(%identity, "holds the lease");
            let controllers = Controllers {
                client: fenced,
                settings,
                namespace,
                identity,
                storage_prefixes,
                metrics: Arc::clone(&metrics),
            };
            tokio::select! {
                worked = controllers.run(&health, stop.clone()) => worked?,
                ended = &mut election => return lost(ended, &metrics),
            }
            metrics.leads(false);
        }
        release.cancel();
        finished(election).await
    }
}

fn lost(ended: Result<Result<(), ElectionError>, JoinError>, metrics: &Metrics) -> Result<(), RunError> {
    metrics.leads(false);
    ended??;
    Err(RunError::Ended("the election"))
}

async fn finished(election: JoinHandle<Result<(), ElectionError>>) -> Result<(), RunError> {
    election.await??;
    tracing::info!("gave the lease back");
    Ok(())
}

/// Cancelled by the first interrupt or termination signal.
fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopped.cancel();
    });
    stop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_one_of_ipv4_where_there_is_no_ipv6() {
        let tried = |text: &str| -> Vec<String> {
            to_listen_on(text.parse().unwrap()).iter().map(ToString::to_string).collect()
        };
        assert_eq!(tried("[::]:9763"), ["[::]:9763", "0.0.0.0:9763"]);
        for one in ["0.0.0.0:9763", "127.0.0.1:0", "[::1]:9763"] {
            assert_eq!(tried(one), [one]);
        }
    }
}
