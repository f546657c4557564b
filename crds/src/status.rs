//! The status of a PackageDistribution: totals, the slowest, and conditions. Never a row a node. The server writes
//! counts and `progressGeneration`; conditions and `observedGeneration` belong to the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most entries of `slowest`.
pub const SLOWEST_MAX: usize = 20;

/// How far a distribution is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageDistributionStatus {
    /// Generation of the object that the conditions speak about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Generation of the object that the counts speak about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_generation: Option<i64>,
    /// BLAKE3 digest of the signed manifest, which names the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of the package and bytes that crossed links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCounts>,
    /// Why the server cannot bring the package in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<IngestFailure>,
    /// Counts of offices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offices: Option<OfficeCounts>,
    /// Counts of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// Bytes held by all targeted nodes, in percent of what they should hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Seconds until all targeted nodes are complete, as far as anyone can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// The slowest and the failing nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub slowest: Vec<SlowNode>,
    /// Who still holds the package after the object was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Eviction>,
    /// Ready, Accepted, Ingested, Distributed, Paused, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Bytes of a package and bytes that crossed links.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ByteCounts {
    /// Sum of the sizes of all files.
    pub total: i64,
    /// Fetched from the source.
    pub origin: i64,
    /// Received by offices from their parents.
    pub wan: i64,
    /// Received inside offices.
    pub lan: i64,
}

/// Why the server cannot bring a package in; it may still be trying.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestFailure {
    /// One word.
    pub reason: String,
    /// What was found, what was expected, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Counts of offices.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct OfficeCounts {
    /// Selected.
    pub targeted: i32,
    /// All nodes complete.
    pub complete: i32,
    /// On the way to selected offices.
    pub transit: i32,
}

/// Counts of nodes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// In selected offices.
    pub targeted: i32,
    /// With the whole package published.
    pub complete: i32,
    /// Stopped by an error.
    pub failed: i32,
    /// Unseen for ten minutes.
    pub unreachable: i32,
}

/// Nodes that still hold the package of a deleted object.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Eviction {
    /// How many of those that can be reached.
    pub nodes: i32,
    /// Some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub named: Vec<String>,
}

/// A node that holds the others back.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SlowNode {
    /// Its office.
    pub office: String,
    /// The node.
    pub node: String,
    /// What it holds, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Where it gets content from: origin, parent, office or local.
    pub source: String,
    /// What keeps it.
    pub message: String,
}
