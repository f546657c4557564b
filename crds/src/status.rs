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
    /// BLAKE3 digest of the signed manifest, which names the content: blake3: and 64 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Size of the package and what crossed links, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCounts>,
    /// Why the server cannot bring the package in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<IngestFailure>,
    /// How many offices are meant, and how many are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offices: Option<OfficeCounts>,
    /// How many nodes are meant, and how many are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// Bytes held by all targeted nodes, in percent of what they should hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Seconds until all targeted nodes are complete, as far as anyone can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Nodes that are not complete, the failing ones first, then those that hold least.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub slowest: Vec<SlowNode>,
    /// Who still holds the package after the object was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Eviction>,
    /// Ready: every node that could be reached held this version; nodes that came later do not take that back, but a source
    /// that fails does. Accepted: the spec can be used. Ingested: the package is fetched, checked and signed. Distributed:
    /// every node that can be reached holds the package. Paused: spec.rollout.paused is set. Stalled: nothing happens before
    /// somebody edits the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Bytes of a package and bytes that crossed links.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ByteCounts {
    /// Bytes of all files of the package.
    pub total: i64,
    /// Bytes fetched from the source.
    pub origin: i64,
    /// Bytes that offices received from their parents, all offices together.
    pub wan: i64,
    /// Bytes that nodes received from others of their office, all offices together.
    pub lan: i64,
}

/// Why the server cannot bring a package in; it may still be trying.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestFailure {
    /// One word, the same for the same cause.
    pub reason: String,
    /// What was found, what was expected, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Whether somebody has to edit the object: the server does not try again by itself as long as it runs.
    pub needs_edit: bool,
}

/// Counts of offices.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct OfficeCounts {
    /// Offices that spec.offices selects.
    pub targeted: i32,
    /// Selected offices all of whose nodes are complete.
    pub complete: i32,
    /// Offices on the way to selected ones, which pass the package on.
    pub transit: i32,
}

/// Counts of nodes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Nodes in selected offices.
    pub targeted: i32,
    /// Nodes that published the whole package.
    pub complete: i32,
    /// Nodes that an error stops.
    pub failed: i32,
    /// Nodes that are not complete and were not heard for ten minutes.
    pub unreachable: i32,
}

/// Nodes that still hold the package of a deleted object.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Eviction {
    /// Nodes that can be reached and still hold the package.
    pub nodes: i32,
    /// Names of some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub named: Vec<String>,
}

/// A node that holds the others back.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SlowNode {
    /// Name of its office.
    pub office: String,
    /// Name of the node.
    pub node: String,
    /// What it holds of the package, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Where it gets content from: origin (the server), parent (the office above), office (its own office) or local (what it
    /// had already).
    pub source: String,
    /// What keeps it. Empty: nothing does.
    pub message: String,
}
