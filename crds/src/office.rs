//! The kind Office: a group of nodes on one LAN, and its place in the tree. `nodes` says which nodes of a cluster
//! belong to it; what an operator reports is in `status`.

mod nodes;
mod status;

use kube::{CustomResource, KubeSchema, ResourceExt};
use peerdist_core::names::{NameError, OfficeName};
use peerdist_core::office as core_office;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::nodes::{NodeSelection, NodeSelector, node_selection};
pub use self::status::{OfficeNodeCounts, OfficeStatus};
use crate::FieldError;
use crate::quantity::{Quantity, QuantityError, WrittenQuantity};

/// An office: a group of nodes on one LAN. Exactly one office, the Central Office, has no parent.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[kube(
    group = "peerdist.io",
    version = "v1alpha1",
    kind = "Office",
    plural = "offices",
    status = "OfficeStatus",
    shortname = "off",
    category = "peerdist",
    derive = "PartialEq",
    doc = "A group of nodes on one LAN. Exactly one office, the Central Office, has no parent.",
    validation = Rule::new("!has(self.spec.parent) || self.spec.parent != self.metadata.name")
        .message("an office cannot be its own parent"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type", description = "How its nodes talk to each other"),
    printcolumn(name = "Parent", type_ = "string", json_path = ".spec.parent", description = "The office one level up"),
    printcolumn(name = "Limit", type_ = "string", json_path = ".spec.storage.limit", description = "Storage limit of a node"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.desired", description = "Nodes that belong to it"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.nodes.available", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'VPN' || has(self.parent)")
        .message("a VPN office needs a parent: set spec.parent, or use the type Wired or WiFi for the Central Office"),
    validation = Rule::new("!has(self.nodeSelector) || !has(self.subnets)")
        .message("an office has either spec.nodeSelector or spec.subnets: remove one of them")
)]
pub struct OfficeSpec {
    /// Name of the office one level up, from which content comes. Absent for the Central Office, of which there is exactly
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub parent: Option<String>,
    /// How the nodes of the office talk to each other. Wired: they share content, and find each other by broadcast. WiFi:
    /// they share content, without broadcasts. VPN: they share nothing, and each fetches for itself from the parent office;
    /// such an office has a parent, and is nobody's parent.
    #[serde(default, rename = "type")]
    pub office_type: OfficeType,
    /// The labels of its nodes in a Kubernetes cluster, where an office has either this or subnets. Embedded mode counts
    /// nodes by annotation instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NodeSelector")]
    pub node_selector: Option<NodeSelector>,
    /// Subnets such as 10.42.0.0/24: the nodes of a Kubernetes cluster whose InternalIP lies in one of them belong to
    /// the office. Instead of nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Vec<String>",
        length(min = 1, max = 64),
        inner(length(min = 4, max = 43), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))
    )]
    #[x_kube(validation = Rule::new("self.all(subnet, isCIDR(subnet))").message("a subnet is an address and a prefix length, such as 10.42.0.0/24"))]
    pub subnets: Option<Vec<String>>,
    /// Where and how much a node of the office stores.
    #[serde(default)]
    pub storage: Storage,
    /// The link to the parent office.
    #[serde(default)]
    pub uplink: Uplink,
    /// Why this release cannot read the object, if it cannot. No field of the object, and never written.
    #[serde(skip)]
    pub not_understood: Option<FieldError>,
}

/// How the nodes of an office talk to each other. Wired: share content, find each other by broadcast. WiFi: share
/// content, no broadcast. VPN: no sharing, every node fetches from the parent office.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "a description of each variant would make the schema a oneOf")]
pub enum OfficeType {
    #[default]
    Wired,
    WiFi,
    #[serde(rename = "VPN")]
    Vpn,
}

impl From<OfficeType> for core_office::OfficeType {
    fn from(office_type: OfficeType) -> Self {
        match office_type {
            OfficeType::Wired => Self::Wired,
            OfficeType::WiFi => Self::WiFi,
            OfficeType::Vpn => Self::Vpn,
        }
    }
}

/// Where and how much a node stores.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Directory on the node, absolute, in one of the folders that the installation allows (operator.storagePrefixes of the
    /// chart). Embedded mode uses its state directory instead. After a change every node fetches all of its packages anew,
    /// and what it keeps in the old directory stays there until somebody removes it on the node (rm -r, as root, once
    /// nothing mounts packages from it any more).
    #[serde(default = "default_storage_path")]
    #[schemars(length(min = 2, max = 4096), regex(pattern = r"^/.+"))]
    pub path: String,
    /// Most bytes that packages may use on a node, such as 50Gi. Absent: what the disk has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WrittenQuantity")]
    pub limit: Option<WrittenQuantity>,
}

/// What the link to the parent office may be used for.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Uplink {
    /// Most bits a second that content from the parent office may take, above 0, such as 50M for 50 Mbit/s. Absent: what
    /// nobody else wants. In a VPN office, where every node fetches for itself, the ceiling is that of each node. Without
    /// effect in the Central Office.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WrittenQuantity")]
    pub background_max_bits_per_second: Option<WrittenQuantity>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { path: default_storage_path(), limit: None }
    }
}

fn default_storage_path() -> String {
    "/var/lib/peerdist".to_owned()
}

/// An absolute path without slashes that say nothing. `None`: it is not absolute, names `/` itself, or has a part `.` or
/// `..`, behind which it may lead anywhere.
pub fn normal_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()).collect();
    let leads_on = parts.iter().all(|part| !matches!(*part, "." | ".."));
    (leads_on && !parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// Turns an Office into the core's validated type.
///
/// # Errors
/// Every field that cannot be used.
pub fn validate(object: &Office) -> Result<core_office::Office, Vec<FieldError>> {
    if let Some(fault) = &object.spec.not_understood {
        return Err(vec![fault.clone()]);
    }
    let mut errors = Vec::new();
    let named = |error: NameError, field: &str| FieldError::new(field, "InvalidName", error.to_string());
    let name = OfficeName::new(&object.name_any()).map_err(|error| errors.push(named(error, "metadata.name"))).ok();
    let parent = object
        .spec
        .parent
        .as_deref()
        .and_then(|parent| OfficeName::new(parent).map_err(|error| errors.push(named(error, "spec.parent"))).ok());
    if normal_path(&object.spec.storage.path).is_none() {
        let message = format!(
            "storage path {:?} is not valid: expected an absolute path below / without the parts '.' and '..'; write \
             it out",
            object.spec.storage.path
        );
        errors.push(FieldError::new("spec.storage.path", "InvalidPath", message));
    }
    let mut number = |written: &Option<WrittenQuantity>, field: &str| {
        let refused = |error: QuantityError| errors.push(FieldError::new(field, "InvalidQuantity", error.to_string()));
        written.as_ref().and_then(|written| written.read().map_err(refused).ok()).map(Quantity::value)
    };
    let storage_limit_bytes = number(&object.spec.storage.limit, "spec.storage.limit");
    let ceiling = &object.spec.uplink.background_max_bits_per_second;
    let background_bits_per_second_max = number(ceiling, "spec.uplink.backgroundMaxBitsPerSecond");
    if background_bits_per_second_max == Some(0) {
        let message = "a ceiling of 0 is not valid: expected a number of bits a second above 0 such as 50M; \
                       correct it, or remove the field for no ceiling";
        errors.push(FieldError::new("spec.uplink.backgroundMaxBitsPerSecond", "OutOfRange", message.to_owned()));
    }
    match name {
        Some(name) if errors.is_empty() => Ok(core_office::Office {
            name,
            parent,
            office_type: object.spec.office_type.into(),
            labels: object.labels().clone(),
            storage_limit_bytes,
            background_bits_per_second_max,
        }),
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, spec: Value) -> Office {
        let object = json!({
            "apiVersion": crate::API_VERSION,
            "kind": "Office",
            "metadata": {"name": name, "labels": {"region": "eu"}},
            "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_empty_spec_is_a_wired_central_office() {
        let office = validate(&object("central", json!({}))).unwrap();
        assert_eq!((office.parent, office.office_type), (None, core_office::OfficeType::Wired));
        assert_eq!((office.storage_limit_bytes, office.background_bits_per_second_max), (None, None));
    }

    #[test]
    fn values_arrive_in_the_validated_type() {
        let uplink = json!({"backgroundMaxBitsPerSecond": "50M"});
        let spec = json!({"parent": "central", "type": "VPN", "storage": {"limit": "50Gi"}, "uplink": uplink});
        let office = validate(&object("home", spec)).unwrap();
        assert_eq!(office.parent, Some(OfficeName::new("central").unwrap()));
        assert_eq!(office.office_type, core_office::OfficeType::Vpn);
        assert_eq!(office.storage_limit_bytes, Some(50 << 30));
        assert_eq!(office.background_bits_per_second_max, Some(50_000_000));
        assert_eq!(office.labels.get("region").map(String::as_str), Some("eu"));
    }

    #[test]
    fn a_storage_path_is_absolute_and_never_leads_back_up() {
        for path in ["x", "", "/", "//", "/a/..", "/var/lib/../../etc", "/a/./b", "/.."] {
            assert_eq!(normal_path(path), None, "{path}");
            let errors = validate(&object("hub", json!({"storage": {"path": path}}))).unwrap_err();
            assert_eq!(errors[0].field, "spec.storage.path", "{path}");
        }
        assert_eq!(normal_path("//var///lib/peerdist/").as_deref(), Some("/var/lib/peerdist"));
        assert_eq!(normal_path("/a/..b").as_deref(), Some("/a/..b"));
    }

    #[test]
    fn every_bad_field_is_named() {
        let uplink = json!({"backgroundMaxBitsPerSecond": 0});
        let spec = json!({"parent": "A/B", "storage": {"path": "x", "limit": "16Ei"}, "uplink": uplink});
        let errors = validate(&object("Bad", spec)).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let expected = [
            "metadata.name",
            "spec.parent",
            "spec.storage.path",
            "spec.storage.limit",
            "spec.uplink.backgroundMaxBitsPerSecond",
        ];
        assert_eq!(fields, expected);
    }
}
