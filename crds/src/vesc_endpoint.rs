//! The kind VescEndpoint: the address of a VMware Enterprise Systems Connector. What it may ask for comes with the
//! role that serves it.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A VMware Enterprise Systems Connector that talks to the server.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "peerdist.io",
    version = "v1alpha1",
    kind = "VescEndpoint",
    plural = "vescendpoints",
    namespaced,
    shortname = "vesc",
    category = "peerdist",
    derive = "PartialEq",
    doc = "A VMware Enterprise Systems Connector that talks to the server.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VescEndpointSpec {
    /// IP address of the connector.
    #[schemars(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub address: String,
}
