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
/// How often is looked whether it still says so: somebody's hand may have changed or removed it.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Sees to it that the ConfigMap says the digest of the root certificate.
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
        let said = timeout(ANSWER_TIMEOUT, api.get_opt(TRUST)).await;
        if matches!(&said, Ok(Ok(Some(map))) if says(map, root_sha256)) {
            sleep(LOOK_INTERVAL).await;
            continue;
        }
        match timeout(ANSWER_TIMEOUT, api.patch(TRUST, &parameters, &Patch::Apply(&body))).await {
            Ok(Ok(_)) => tracing::info!("clients are told whom to trust: ConfigMap {TRUST}"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "clients cannot be told whom to trust: ConfigMap {TRUST} is tried again")
            }
            Err(_) => tracing::warn!("clients cannot be told whom to trust: the API server does not answer"),
        }
        sleep(RETRY).await;
    }
}

fn says(map: &ConfigMap, root_sha256: [u8; 32]) -> bool {
    map.data.as_ref().and_then(|data| data.get(TRUST_KEY)) == Some(&hex::encode(root_sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_root_counts_as_said() {
        let map = |data: serde_json::Value| serde_json::from_value(json!({"data": data})).unwrap();
        assert!(says(&map(json!({TRUST_KEY: "07".repeat(32)})), [7; 32]));
        for other in [json!({TRUST_KEY: "08".repeat(32)}), json!({"other": "07".repeat(32)}), json!({})] {
            assert!(!says(&map(other), [7; 32]));
        }
    }
}
