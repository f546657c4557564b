//! A pod of ours: where it is, and what keeps it from starting. All pods of a large fleet may wait at the same time.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::Labels;
use crate::names::OFFICE_LABEL;
use crate::preflight::failure_of;
use crate::starting::{Obstacle, StartFailure, obstacle_of};

/// A pod. Its metadata has its names, its version and the time of its end only.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Told")]
pub struct HeldPod {
    /// What counts of its metadata.
    pub metadata: ObjectMeta,
    /// The value of its label of an office.
    pub office: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Address of its node.
    pub host: Option<String>,
    /// What its preflight says against its node.
    pub failure: Option<StartFailure>,
    /// What kubelet says against one of its containers, unless its preflight says more.
    pub obstacle: Option<Obstacle>,
}

stands_for!(HeldPod, Pod);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Labels,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(rename = "hostIP")]
    host: Option<String>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    container_statuses: Option<Vec<ContainerStatus>>,
}

impl From<Told> for HeldPod {
    fn from(told: Told) -> Self {
        let Told { metadata, spec, status } = told;
        let Metadata { name, namespace, resource_version, deletion_timestamp, labels } = metadata;
        let Status { host, init_container_statuses, container_statuses } = status.unwrap_or_default();
        let node = spec.and_then(|spec| spec.node_name);
        let (init_containers, containers) =
            (init_container_statuses.unwrap_or_default(), container_statuses.unwrap_or_default());
        let failure = failure_of(node.as_deref(), &init_containers);
        let obstacle = if failure.is_none() { obstacle_of(&init_containers, &containers) } else { None };
        Self {
            metadata: ObjectMeta { name, namespace, resource_version, deletion_timestamp, ..ObjectMeta::default() },
            office: labels.get(OFFICE_LABEL).map(str::to_owned),
            host,
            failure,
            obstacle,
            node,
        }
    }
}
