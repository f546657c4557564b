//! `peerdist-operator cleanup`, which a hook runs before the installation is deleted: takes away everything that the
//! operator and its pods made. It stops the operators and takes their Lease, so that nothing comes back; removes our
//! finalizers; has the nodes' storage removed by the sets themselves ([`sets`](self)); deletes objects and labels; and takes
//! back what users' objects say of nodes. A node that is away does not hold it: the time is bounded, and what is left on
//! such a node is named.

mod remove;
mod sets;
mod statuses;

use std::time::Duration;

use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use kube::config::InferConfigError;
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::apply::{describe, unless_gone};
use crate::lease::{ElectionError, ElectionOptions, Fence, Standing, elect};
use crate::options::LeaseOptions;
use crate::run::unique;

/// Longest wait for the Lease: the operators end and give it back, or are ended after 30 s, and their time runs out.
const LEASE_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks whether it was given back.
const RELEASE_LOOK: Duration = Duration::from_millis(100);
/// Nodes that are named of those that are left.
const NAMED_MAX: usize = 20;

/// What to clean up, and how patiently.
#[derive(Debug, Clone, Args)]
pub struct CleanupOptions {
    /// Namespace of everything that the operator made
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "peerdist")]
    pub namespace: String,
    /// Deployment of the operator, which is stopped
    #[arg(long, value_name = "NAME", env = "PEERDIST_DEPLOYMENT", default_value = "peerdist-operator")]
    pub deployment: String,
    /// How long nodes may take to remove what they store
    #[arg(long, value_name = "SECONDS", env = "PEERDIST_PATIENCE_SECONDS", default_value_t = 180)]
    pub patience_seconds: u64,
    /// Keep the server's volume with all that is on it
    #[arg(long, env = "PEERDIST_KEEP_CLAIM")]
    pub keep_claim: bool,
    /// The election.
    #[command(flatten)]
    pub lease: LeaseOptions,
}

/// Why not everything was taken away.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Nothing says where the API server is.
    #[error("no Kubernetes API is configured: {0}: expected a service account or KUBECONFIG")]
    Configuration(#[from] InferConfigError),
    /// The API server refused something.
    #[error("cannot {action}: {}", describe(source))]
    Api {
        /// What was to be done.
        action: &'static str,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// Another installation works in this cluster.
    #[error(transparent)]
    Lease(#[from] ElectionError),
    /// An operator goes on although it was to end.
    #[error(
        "the lease {lease} is held by {holder}, which goes on renewing it and would bring back what is taken away: end \
         that operator (a pod on a node whose kubelet is away ends only with its machine), then uninstall again"
    )]
    Held {
        /// Namespace and name of the Lease.
        lease: String,
        /// Who has it.
        holder: String,
    },
}

/// Says what was to be done when the API server refused it.
fn failed(action: &'static str) -> impl FnOnce(kube::Error) -> CleanupError {
    move |source| CleanupError::Api { action, source: Box::new(source) }
}

/// Cleans up the cluster that this process runs in.
///
/// # Errors
/// [`CleanupError`]; doing it again continues.
pub async fn run(options: CleanupOptions) -> Result<(), CleanupError> {
    let client = Client::try_from(Config::infer().await?).map_err(failed("connect to the API server"))?;
    cleanup(client, &options).await
}

/// Cleans up.
///
/// # Errors
/// [`CleanupError`]; doing it again continues.
pub async fn cleanup(client: Client, options: &CleanupOptions) -> Result<(), CleanupError> {
    stop_operators(&client, options).await?;
    let release = CancellationToken::new();
    let release_at_last = release.clone().drop_guard();
    let (told, standing) = watch::channel(Standing::default());
    let election = ElectionOptions {
        namespace: options.lease.lease_namespace.clone(),
        name: options.lease.lease_name.clone(),
        identity: unique("cleanup"),
        installation: options.namespace.clone(),
    };
    let mut elected = tokio::spawn(elect(client.clone(), election, Fence::default(), told, release));
    wait_for_lease(standing, &mut elected, &client, &options.lease, LEASE_PATIENCE).await?;
    let result = take_away(&client, options).await;
    drop(release_at_last);
    // Given back or not: it goes with the installation.
    let _ = timeout(LEASE_PATIENCE, async {
        while !elected.is_finished() {
            sleep(RELEASE_LOOK).await
        }
    })
    .await;
    result
}

/// Until the Lease is ours, which no operator has then. Without one that nobody can read or take it goes on: the
/// Deployment has no pods any more.
async fn wait_for_lease(
    mut standing: watch::Receiver<Standing>,
    elected: &mut JoinHandle<Result<(), ElectionError>>,
    client: &Client,
    options: &LeaseOptions,
    patience: Duration,
) -> Result<(), CleanupError> {
    let led = timeout(patience, standing.wait_for(|standing| *standing == Standing::Leads)).await;
    let led = led.map(|led| led.is_ok());
    let last = *standing.borrow();
    match (led, last) {
        (Ok(true), _) => println!("the operators are stopped"),
        // Nobody tells any more how it stands: the election ended, and says why.
        (Ok(false), _) => {
            if let Ok(ended) = elected.await {
                ended?;
            }
        }
        (Err(_), Standing::Waits) => return Err(held_by_another(client, options).await),
        (Err(_), _) => println!("the Lease could not be taken: it goes on without"),
    }
    Ok(())
}

async fn held_by_another(client: &Client, options: &LeaseOptions) -> CleanupError {
    let LeaseOptions { lease_namespace, lease_name } = options;
    let api: Api<Lease> = Api::namespaced(client.clone(), lease_namespace);
    let holder = api.get(lease_name).await.ok().and_then(|lease| lease.spec?.holder_identity);
    let holder = holder.filter(|holder| !holder.is_empty()).unwrap_or_else(|| "an operator".to_owned());
    CleanupError::Held { lease: format!("{lease_namespace}/{lease_name}"), holder }
}

async fn take_away(client: &Client, options: &CleanupOptions) -> Result<(), CleanupError> {
    let deadline = Instant::now() + Duration::from_secs(options.patience_seconds);
    remove::finalizers(client).await?;
    let progress = sets::empty_storage(client, &options.namespace, options.keep_claim, deadline).await?;
    println!("{}", outcome(&progress));
    remove::objects(client, &options.namespace, options.keep_claim).await?;
    let there = sets::nodes_that_are_there(client).await?;
    remove::pods_elsewhere(client, &options.namespace, &there).await?;
    remove::labels(client).await?;
    println!("objects and labels are removed");
    statuses::take_back(client).await?;
    Ok(())
}

fn outcome(progress: &sets::Progress) -> String {
    let left = progress.left();
    if left == 0 {
        return "every node removed what it stored".to_owned();
    }
    let named: Vec<&str> = progress.unfinished.iter().take(NAMED_MAX).map(String::as_str).collect();
    let among = if named.is_empty() { String::new() } else { format!(", among them {}", named.join(", ")) };
    format!("{left} nodes did not say in time that they removed what they stored{among}")
}

/// Without pods of it nobody brings back what is taken away. A Deployment that is gone is fine.
async fn stop_operators(client: &Client, options: &CleanupOptions) -> Result<(), CleanupError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &options.namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let stopped = unless_gone(api.patch_scale(&options.deployment, &PatchParams::default(), &none).await);
    stopped.map(drop).map_err(failed("stop the operator"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How waiting for the Lease ends at this standing, or after the election ended.
    async fn ends(standing: Option<Standing>) -> Result<(), CleanupError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nobody answers there.
        let mut config = Config::new("http://127.0.0.1:9".parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let lease = LeaseOptions { lease_namespace: "kube-system".to_owned(), lease_name: "a".to_owned() };
        let (told, seen) = watch::channel(standing.unwrap_or_default());
        let kept = standing.map(|_| told);
        let mut elected = tokio::spawn(async { Err(ElectionError::Lost("a".to_owned())) });
        let ended = wait_for_lease(seen, &mut elected, &client, &lease, Duration::from_millis(1)).await;
        drop(kept);
        ended
    }

    #[tokio::test]
    async fn nothing_is_taken_away_while_an_operator_is_seen_to_work() {
        assert!(ends(Some(Standing::Leads)).await.is_ok());
        assert!(ends(Some(Standing::Unknown)).await.is_ok(), "nobody could tell");
        let told = ends(Some(Standing::Waits)).await.unwrap_err().to_string();
        assert!(told.starts_with("the lease kube-system/a is held by an operator"), "{told}");
    }

    #[tokio::test]
    async fn nothing_is_taken_away_after_an_election_that_failed() {
        assert!(matches!(ends(None).await, Err(CleanupError::Lease(ElectionError::Lost(_)))));
    }
}
