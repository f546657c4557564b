//! The kind VescEndpoint: the address of a VMware Enterprise Systems Connector. What it may ask for comes with the
//! role that serves it.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FieldError;

/// A VMware Enterprise Systems Connector that talks to the server.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "peerdist.io",
    version = "v1alpha1",
    kind = "VescEndpoint",
    plural = "vescendpoints",
    namespaced,
    status = "VescEndpointStatus",
    shortname = "vesc",
    category = "peerdist",
    derive = "PartialEq",
    doc = "A VMware Enterprise Systems Connector that talks to the server.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address")
)]
#[serde(rename_all = "camelCase")]
pub struct VescEndpointSpec {
    /// IP address of the connector, IPv4 or IPv6, without a port, such as 10.0.5.9.
    #[schemars(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub address: String,
    /// Why this release cannot read the object, if it cannot. No field of the object, and never written.
    #[serde(skip)]
    pub not_understood: Option<FieldError>,
}

/// How an endpoint stands. Written by the operator.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct VescEndpointStatus {
    /// Generation of the object that the conditions speak about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: False in this release, in which nothing talks to a connector yet. Accepted: the spec can be used. Stalled:
    /// nothing happens before somebody edits the spec or installs another release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The address of the connector.
///
/// # Errors
/// An address that no other machine can have.
pub fn validate(object: &VescEndpoint) -> Result<IpAddr, FieldError> {
    if let Some(fault) = &object.spec.not_understood {
        return Err(fault.clone());
    }
    let refused = |reason, message| FieldError::new("spec.address", reason, message);
    let shown: String = object.spec.address.chars().take(80).collect();
    let address: IpAddr = object.spec.address.parse().map_err(|_| {
        refused("InvalidAddress", format!("{shown:?} is no IP address: expected one such as 10.0.5.9; correct it"))
    })?;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        let message = format!("{address} names no other machine: expected the connector's own address; correct it");
        return Err(refused("AddressNotReachable", message));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(address: &str) -> Option<&'static str> {
        let spec = VescEndpointSpec { address: address.to_owned(), not_understood: None };
        validate(&VescEndpoint::new("hq", spec)).err().map(|error| error.reason)
    }

    #[test]
    fn only_addresses_of_other_machines_are_accepted() {
        assert_eq!(reason("10.0.5.9"), None);
        assert_eq!(reason("fd00::9"), None);
        for bad in ["", "10.0.5", "host", "10.0.5.9:34320", "1::2::3"] {
            assert_eq!(reason(bad), Some("InvalidAddress"), "{bad}");
        }
        for bad in ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1"] {
            assert_eq!(reason(bad), Some("AddressNotReachable"), "{bad}");
        }
    }
}
