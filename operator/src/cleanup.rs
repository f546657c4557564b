//! `peerdist-operator cleanup`, which a hook runs before the installation is deleted: takes away everything that the
//! operator and its pods made. It stops the operators and takes their Lease, so that nothing comes back; removes our
//! finalizers; has the nodes' storage removed by the sets themselves ([`sets`](self)); deletes objects and labels; and takes
//! back what users' objects say of nodes. A node that is away does not hold it: the time is bounded, and what is left on
//! such a node is named.

mod pages;
mod remove;
mod sets;
mod statuses;

use std::time::Duration;

use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use kube::config::InferConfigError;
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::apply::describe;
use crate::lease::{ElectionError, ElectionOptions, Fence, Standing, elect};
use crate::options::LeaseOptions;

/// Longest wait for the Lease: the operators end and give it back, or their time runs out.
const LEASE_PATIENCE: Duration = Duration::from_secs(45);

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
    let (told, mut standing) = watch::channel(Standing::default());
    let election = ElectionOptions {
        namespace: options.lease.lease_namespace.clone(),
        name: options.lease.lease_name.clone(),
        identity: format!("cleanup-{}", std::process::id()),
        installation: options.namespace.clone(),
    };
    let mut elected = tokio::spawn(elect(client.clone(), election, Fence::default(), told, release));
    let held = tokio::select! {
        led = timeout(LEASE_PATIENCE, standing.wait_for(|standing| *standing == Standing::Leads)) => {
            matches!(led, Ok(Ok(_)))
        }
        ended = &mut elected => match ended {
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(())) | Err(_) => false,
        },
    };
    if held {
        println!("the operators are stopped");
    } else {
        // The Deployment has no pods any more, so that nobody else writes.
        println!("the Lease could not be taken: it goes on without");
    }
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
    match api.patch_scale(&options.deployment, &PatchParams::default(), &none).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed("stop the operator")(error)),
    }
}
