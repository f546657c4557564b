//! The status of an Office: how many nodes it has, and conditions. Written by the operator alone.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an office stands in the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct OfficeStatus {
    /// Generation of the object that the conditions speak about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes belong to the office, and on how many the client runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<OfficeNodeCounts>,
    /// Labels by which packages select the office, as they were when it was judged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ready: every node runs its client, and in the Central Office the server runs. Accepted: the spec can be used.
    /// Stalled: nothing happens before somebody edits the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Counts of the nodes of an office.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct OfficeNodeCounts {
    /// Nodes that should run a client.
    pub desired: i32,
    /// Nodes whose client is of the latest form and available.
    pub available: i32,
}
