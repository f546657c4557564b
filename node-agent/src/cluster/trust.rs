//! By which root certificate the server is recognised: a ConfigMap that clients mount. Who may write it could make
//! clients trust another server, so the server's role alone allows it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use peerdist_crds::names::{TRUST, TRUST_KEY};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{ANSWER_TIMEOUT, Cluster, FIELD_MANAGER};

/// Pause before the API server is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// Writes the digest of the root certificate, trying until it is there.
pub async fn publish_root(cluster: Cluster, root_sha256: [u8; 32]) {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client, &cluster.namespace);
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": TRUST, "labels": {"app.kubernetes.io/name": "peerdist", "app.kubernetes.io/component": "server"}},
        "data": {TRUST_KEY: hex::encode(root_sha256)},
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    loop {
        match timeout(ANSWER_TIMEOUT, api.patch(TRUST, &parameters, &Patch::Apply(&body))).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "clients cannot be told whom to trust: ConfigMap {TRUST} is tried again")
            }
            Err(_) => tracing::warn!("clients cannot be told whom to trust: the API server does not answer"),
        }
        sleep(RETRY).await;
    }
}
