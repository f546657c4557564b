//! The kind PackageDistribution: one package at one version, and the offices that should hold it.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{CustomResource, KubeSchema, ResourceExt};
use peerdist_core::distribution::{
    self as core_distribution, Distribution, PackageSource, RETENTION_VERSIONS_DEFAULT, RETENTION_VERSIONS_MAX,
    SourceDigest, SourceUri,
};
use peerdist_core::names::{DistributionKey, NameError, Namespace, PackageName, SecretName, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FieldError;
use crate::status::PackageDistributionStatus;

/// Namespace of an object that names none.
pub const NAMESPACE_DEFAULT: &str = "default";

/// One package at one version, and the offices that should hold it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "peerdist.io",
    version = "v1alpha1",
    kind = "PackageDistribution",
    plural = "packagedistributions",
    namespaced,
    status = "PackageDistributionStatus",
    shortname = "pkgdist",
    shortname = "pd",
    category = "peerdist",
    derive = "PartialEq",
    doc = "One package at one version, and the offices that should hold it.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.percent"),
    printcolumn(name = "Offices", type_ = "integer", json_path = ".status.offices.targeted", priority = 1),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.targeted", priority = 1),
    printcolumn(name = "Priority", type_ = "string", json_path = ".spec.priority", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.version != oldSelf.version || self.source.uri == oldSelf.source.uri")
        .message("spec.source.uri changes only together with spec.version"),
    validation = Rule::new(
        "self.version != oldSelf.version || (has(self.source.digest) == has(oldSelf.source.digest) && (!has(self.source.digest) || self.source.digest == oldSelf.source.digest))"
    ).message("spec.source.digest changes only together with spec.version"),
    validation = Rule::new("self.version != oldSelf.version || self.unpack == oldSelf.unpack")
        .message("spec.unpack changes only together with spec.version"),
    validation = Rule::new("!has(self.source.secretRef) || self.source.uri.matches('^[hH][tT][tT][pP][sS]?://')")
        .message("spec.source.secretRef goes with an http(s):// source only")
)]
pub struct PackageDistributionSpec {
    /// The version that the offices should hold, such as 7.4.1: a letter or digit, then up to 62 more of them or of dot, plus,
    /// minus and underscore. It names one content for ever: another content is another version.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$"))]
    #[x_kube(validation = Rule::new("self != 'current'").message("current is the name of the link to the active version"))]
    pub version: String,
    /// Where the package comes from.
    pub source: Source,
    /// Whether an archive is distributed as its contents. None: it is published as it is, like any other file. Auto: tar,
    /// tar.gz, tar.zst and zip are known by their first bytes, whatever the file is called, and published as what is in
    /// them; xz, bzip2, 7z and rar are refused, and so is a file whose name ends in .tar, .tar.gz, .tgz, .tar.zst or .zip and
    /// that is no such archive; all else stays as it is. Changes only together with version.
    #[serde(default)]
    pub unpack: Unpack,
    /// The offices that should hold the package. Absent: all. Those on the way from the Central Office pass it on without
    /// publishing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OfficeSelector")]
    pub offices: Option<OfficeSelector>,
    /// Which packages go first when several are on the way: High before Normal, Low last.
    #[serde(default)]
    pub priority: Priority,
    /// When the version may move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Schedule")]
    pub schedule: Option<Schedule>,
    /// How the version moves.
    #[serde(default)]
    pub rollout: Rollout,
    /// What stays when a newer version has come.
    #[serde(default)]
    pub retention: Retention,
    /// Why this release cannot read the object, if it cannot. No field of the object, and never written.
    #[serde(skip)]
    pub not_understood: Option<FieldError>,
}

/// Where a package comes from.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The place of a file, or of a directory on the server's own disk: file://, http:// or https://, without user and
    /// password. In a cluster, file:// leads into folders of server.fileRoots of the chart only, of which there is none at
    /// first. Changes only together with version. A manifest directory may also use paths relative to itself (file:path) and
    /// environment variables in file URIs (${NAME}).
    #[schemars(length(min = 1, max = 2048))]
    pub uri: String,
    /// Digest that the fetched file must have, before it is unpacked: sha256: and 64 hex digits, as sha256sum prints them.
    /// Changes only together with version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 71), regex(pattern = r"^sha256:[0-9a-fA-F]{64}$"))]
    pub digest: Option<String>,
    /// Secret of the same namespace with the credentials that an https:// source asks for: username and password, or
    /// token. They are sent to the host of the URI and nowhere else. It may change without a new version, as credentials
    /// do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretReference")]
    pub secret_ref: Option<SecretReference>,
}

/// Names a Secret of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// Whether an archive is distributed as its contents. Auto: an archive (tar, tar.gz, tar.zst, zip) becomes its
/// contents, anything else stays as it is. None: every source stays as it is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "a description of each variant would make the schema a oneOf")]
pub enum Unpack {
    Auto,
    #[default]
    None,
}

/// Which packages go first when several are on the way.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "a description of each variant would make the schema a oneOf")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// Selects offices by their labels.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct OfficeSelector {
    /// Labels that an Office must have in its metadata, with these values. Empty: all offices.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// When a version may move.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Nothing of the version moves before this moment, a date and a time of day with their offset from UTC, such as
    /// 2026-12-01T22:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub not_before: Option<String>,
}

/// How a version moves.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Whether transfers rest: with true nothing moves, and what has arrived stays.
    #[serde(default)]
    pub paused: bool,
}

/// What stays when a newer version has come.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How many versions every node keeps, the current one included: 1 to 100. Older ones are deleted, some time after a newer one took
    /// their place.
    #[serde(default = "default_retention_versions")]
    #[schemars(with = "i32", range(min = 1, max = 100))]
    pub versions: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { versions: default_retention_versions() }
    }
}

fn default_retention_versions() -> u32 {
    RETENTION_VERSIONS_DEFAULT
}

impl From<Unpack> for core_distribution::Unpack {
    fn from(unpack: Unpack) -> Self {
        match unpack {
            Unpack::Auto => Self::Auto,
            Unpack::None => Self::None,
        }
    }
}

impl From<Priority> for core_distribution::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }
}

/// What an object says that cannot be read.
pub(crate) fn not_understood(fault: FieldError) -> PackageDistributionSpec {
    PackageDistributionSpec {
        version: String::new(),
        source: Source { uri: String::new(), digest: None, secret_ref: None },
        unpack: Unpack::default(),
        offices: None,
        priority: Priority::default(),
        schedule: None,
        rollout: Rollout::default(),
        retention: Retention::default(),
        not_understood: Some(fault),
    }
}

/// Namespace and name of the object.
///
/// # Errors
/// Each of the two that is no valid name.
pub fn key(object: &PackageDistribution) -> Result<DistributionKey, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut refused = |field: &str, error: NameError| {
        errors.push(FieldError::new(field, "InvalidName", error.to_string()));
    };
    let namespace = object.namespace().unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
    let namespace = Namespace::new(&namespace).map_err(|error| refused("metadata.namespace", error)).ok();
    let name = PackageName::new(&object.name_any()).map_err(|error| refused("metadata.name", error)).ok();
    match (namespace, name) {
        (Some(namespace), Some(name)) => Ok(DistributionKey { namespace, name }),
        _ => Err(errors),
    }
}

/// Turns a PackageDistribution into the core's validated type. The caller says what its URI means, because a manifest
/// directory knows more than the text.
///
/// # Errors
/// Every field that cannot be used.
pub fn validate(
    object: &PackageDistribution,
    uri: Result<SourceUri, FieldError>,
) -> Result<Distribution, Vec<FieldError>> {
    let spec = &object.spec;
    if let Some(fault) = &spec.not_understood {
        return Err(vec![fault.clone()]);
    }
    let mut errors = Vec::new();
    let key = key(object).map_err(|faults| errors.extend(faults)).ok();
    let version = Version::new(&spec.version)
        .map_err(|error| errors.push(FieldError::new("spec.version", "InvalidVersion", error.to_string())))
        .ok();
    let uri = uri.map_err(|error| errors.push(error)).ok();
    let digest = spec.source.digest.as_deref().and_then(|digest| {
        let refused = |error: core_distribution::SourceError| {
            FieldError::new("spec.source.digest", error.reason(), error.to_string())
        };
        SourceDigest::from_str(digest).map_err(|error| errors.push(refused(error))).ok()
    });
    let secret = spec.source.secret_ref.as_ref().and_then(|reference| {
        let refused =
            |error: NameError| FieldError::new("spec.source.secretRef.name", "InvalidName", error.to_string());
        SecretName::new(&reference.name).map_err(|error| errors.push(refused(error))).ok()
    });
    errors.extend(secret.as_ref().and(uri.as_ref()).and_then(confidentiality_error));
    let not_before = spec.schedule.as_ref().and_then(|schedule| schedule.not_before.as_deref());
    let not_before = not_before.and_then(|text| moment(text).map_err(|error| errors.push(error)).ok());
    errors.extend(retention_error(spec.retention.versions));
    match (key, version, uri) {
        (Some(key), Some(version), Some(uri)) if errors.is_empty() => Ok(Distribution {
            key,
            version,
            source: PackageSource { uri, digest, secret },
            unpack: spec.unpack.into(),
            offices: core_distribution::OfficeSelector {
                match_labels: spec.offices.clone().unwrap_or_default().match_labels,
            },
            priority: spec.priority.into(),
            not_before,
            paused: spec.rollout.paused,
            retention_versions: spec.retention.versions,
            generation: object.metadata.generation.and_then(|generation| u64::try_from(generation).ok()).unwrap_or(1),
        }),
        _ => Err(errors),
    }
}

/// A password that was sent once without TLS is no secret any more, whatever the answer was.
fn confidentiality_error(uri: &SourceUri) -> Option<FieldError> {
    let message = "credentials would be readable on the way: expected an https:// source, or http:// at a loopback \
                   address; change spec.source.uri, or remove spec.source.secretRef";
    (!uri.is_confidential()).then(|| FieldError::new("spec.source.secretRef", "CredentialsNeedTls", message))
}

/// The schema lets through what no calendar has, such as an offset of 99 hours.
fn moment(text: &str) -> Result<Timestamp, FieldError> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        let message = format!(
            "{shown:?} is no moment: expected one such as 2026-12-01T22:00:00Z, before the year 9999 ends; correct it, or \
             pause the rollout"
        );
        FieldError::new("spec.schedule.notBefore", "InvalidTime", message)
    })
}

fn retention_error(versions: u32) -> Option<FieldError> {
    let message =
        format!("{versions} versions cannot be kept: expected 1 to {RETENTION_VERSIONS_MAX}; correct the number");
    (!(1..=RETENTION_VERSIONS_MAX).contains(&versions))
        .then(|| FieldError::new("spec.retention.versions", "OutOfRange", message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(spec: Value) -> PackageDistribution {
        let object = json!({
            "apiVersion": crate::API_VERSION,
            "kind": "PackageDistribution",
            "metadata": {"name": "pos-app"},
            "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn validated(spec: Value) -> Result<Distribution, Vec<FieldError>> {
        let object = object(spec);
        let uri = SourceUri::from_str(&object.spec.source.uri)
            .map_err(|error| FieldError::new("spec.source.uri", error.reason(), error.to_string()));
        validate(&object, uri)
    }

    #[test]
    fn defaults_are_all_offices_normal_priority_and_two_versions() {
        let distribution = validated(json!({"version": "1", "source": {"uri": "file:///x"}})).unwrap();
        assert_eq!(distribution.key.to_string(), "default/pos-app");
        assert!(distribution.offices.match_labels.is_empty());
        assert_eq!(distribution.priority, core_distribution::Priority::Normal);
        assert_eq!(distribution.unpack, core_distribution::Unpack::None);
        assert_eq!((distribution.retention_versions, distribution.paused, distribution.generation), (2, false, 1));
    }

    #[test]
    fn values_arrive_in_the_validated_type() {
        let distribution = validated(json!({
            "version": "7.4.1",
            "source": {"uri": "https://repo.example.com/x.tar.zst", "digest": format!("sha256:{}", "0f".repeat(32))},
            "unpack": "Auto",
            "offices": {"matchLabels": {"region": "eu"}},
            "priority": "High",
            "schedule": {"notBefore": "2026-12-01T22:00:00Z"},
            "rollout": {"paused": true},
            "retention": {"versions": 3},
        }))
        .unwrap();
        assert_eq!(distribution.source.digest, Some(SourceDigest::Sha256([0x0f; 32])));
        assert_eq!(distribution.offices.to_string(), "region=eu");
        assert_eq!(distribution.not_before.unwrap().to_string(), "2026-12-01T22:00:00Z");
        assert!(distribution.paused);
    }

    #[test]
    fn credentials_are_for_sources_that_nobody_else_reads() {
        let with = |uri: &str, name: &str| {
            let source = json!({"uri": uri, "secretRef": {"name": name}});
            let validated = validated(json!({"version": "1", "source": source}));
            let secret = validated.map(|distribution| distribution.source.secret.unwrap().to_string());
            secret.map_err(|errors| errors.into_iter().map(|error| (error.field, error.reason)).collect::<Vec<_>>())
        };
        assert_eq!(with("https://repo.example.com/x", "repo"), Ok("repo".to_owned()));
        assert_eq!(with("http://127.0.0.1:8081/x", "repo"), Ok("repo".to_owned()));
        for uri in ["http://repo.example.com/x", "file:///x"] {
            assert_eq!(
                with(uri, "repo"),
                Err(vec![("spec.source.secretRef".to_owned(), "CredentialsNeedTls")]),
                "{uri}"
            );
        }
        let bad_name = Err(vec![("spec.source.secretRef.name".to_owned(), "InvalidName")]);
        assert_eq!(with("https://repo.example.com/x", "../other"), bad_name);
    }

    #[test]
    fn every_bad_field_is_named() {
        let errors = validated(json!({
            "version": "current",
            "source": {"uri": "s3://bucket/x", "digest": "sha256:12"},
            "schedule": {"notBefore": "9999-12-31T23:59:59Z"},
            "retention": {"versions": 0},
        }))
        .unwrap_err();
        let faults: Vec<(&str, &str)> = errors.iter().map(|error| (error.field.as_str(), error.reason)).collect();
        assert_eq!(
            faults,
            [
                ("spec.version", "InvalidVersion"),
                ("spec.source.uri", "UnsupportedScheme"),
                ("spec.source.digest", "MalformedDigest"),
                ("spec.schedule.notBefore", "InvalidTime"),
                ("spec.retention.versions", "OutOfRange"),
            ]
        );
    }
}
