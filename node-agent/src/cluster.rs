//! What the server does with the Kubernetes API: it checks the service-account tokens that clients enrol with
//! (`tokens`), asks who may read its API (`access`), so many tokens at a time (`review_places`), tells in events whom it
//! refused (`refusals`), watches which nodes there are (`nodes`; `watching` says when it tries again), reads the Secrets
//! that sources name (`secrets`), and writes how far packages are (`progress`). The objects of ours that it watches are a
//! source of desired state.

mod access;
mod nodes;
mod progress;
mod refusals;
mod review_places;
mod secrets;
mod tokens;
mod watching;

use std::time::Duration;

use kube::{Client, Config};

pub use self::access::{AccessError, AccessReviewer};
pub use self::nodes::ClusterNodes;
pub use self::progress::{Standing, write_progress};
pub use self::refusals::{RefusalTeller, RefusedEnrolment};
pub use self::review_places::{NoPlace, ReviewPlaces};
pub use self::secrets::SecretReader;
pub use self::tokens::{BoundPod, TokenReviewer};
pub use self::watching::{WatchLog, WatchPauses};

/// Longest wait for an answer of the API server to a request that is no watch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing says where the API server is.
    #[error("no Kubernetes API is configured: {0}: expected the service account of a pod, or KUBECONFIG")]
    Configuration(#[from] kube::config::InferConfigError),
    /// The API server cannot be reached as configured, or refused.
    #[error("the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
}

/// The cluster that this process runs in, or that KUBECONFIG names.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to its API server.
    pub client: Client,
    /// Where everything of ours lives.
    pub namespace: String,
}

impl Cluster {
    /// Finds the cluster. Speaks to nobody yet.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub async fn infer() -> Result<Self, ClusterError> {
        let config = Config::infer().await?;
        let namespace = config.default_namespace.clone();
        Ok(Self { client: Client::try_from(config)?, namespace })
    }
}
