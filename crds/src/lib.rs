//! The three kinds of group `peerdist.io`, version `v1alpha1`: what people write, as Kubernetes and as the manifest
//! directory see it. A field that no code acts upon is not in here yet.
//!
//! In reading order: [`office`], [`package_distribution`] with [`status`], and [`vesc_endpoint`] are the kinds; the
//! first two turn a spec into the core's validated types. [`names`] are those of objects in a cluster, [`quantity`] is a
//! size in bytes; [`unknown_fields`] finds what the schema does not have, [`readable`] reads objects of other releases one by
//! one. The YAML in `crds/` is generated and compared by a test. Reading files or the Kubernetes API is no part of this
//! crate.
//!
//! Optional fields that a rule speaks about are absent or have a value, never null: `has()` means what it says.

#![allow(unreachable_pub, reason = "kube's KubeSchema repeats every struct inside a function")]
#![allow(
    dead_code,
    reason = "kube's KubeSchema repeats every struct inside a function, with fields that no schema has"
)]
#![allow(clippy::duplicated_attributes, reason = "printer columns repeat types and priorities")]

pub mod names;
pub mod office;
pub mod package_distribution;
pub mod quantity;
pub mod readable;
pub mod status;
pub mod unknown_fields;
pub mod vesc_endpoint;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

pub use self::office::{Office, OfficeSpec, OfficeStatus};
pub use self::package_distribution::{PackageDistribution, PackageDistributionSpec};
pub use self::quantity::{Quantity, WrittenQuantity};
pub use self::status::PackageDistributionStatus;
pub use self::vesc_endpoint::{VescEndpoint, VescEndpointSpec, VescEndpointStatus};

/// Group and version of every kind.
pub const API_VERSION: &str = "peerdist.io/v1alpha1";

/// `status.observedGeneration` of an object that nobody has looked at yet.
pub const UNOBSERVED_GENERATION: i64 = -1;

/// The definitions of all kinds, in the order of their names.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [Office::crd(), PackageDistribution::crd(), VescEndpoint::crd()].map(with_first_status)
}

/// An object that nobody has looked at yet says so: no tool may take it for finished because it has no conditions.
fn with_first_status(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": UNOBSERVED_GENERATION})));
        }
    }
    definition
}

/// A value in a spec that follows the schema and still cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    /// The field, such as `spec.source.uri`.
    pub field: String,
    /// The reason in one word, for conditions, events and metrics.
    pub reason: &'static str,
    /// What was found, what was expected, and what to do.
    pub message: String,
}

impl FieldError {
    /// An error about one field.
    pub fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }
}
