//! What the operator gives all clients and the server: images, resources, where the server keeps its library. Read from
//! one YAML file, which a chart renders; what differs between offices stands in the Office.

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Toleration;
use peerdist_crds::Quantity;
use serde::Deserialize;

use crate::names::{ROOT_SECRET, SERVER_IDENTITY};

mod file_roots;
mod source_authorities;

pub use file_roots::FileRoots;
pub(crate) use file_roots::overlap;
pub use source_authorities::SourceAuthorities;

/// Memory is asked for in whole mebibytes, which Kubernetes stores as they are written.
const MEMORY_UNIT_BYTES: u64 = 1 << 20;
/// Longest name of an object.
const OBJECT_NAME_BYTES_MAX: usize = 253;
/// Longest time for which the server takes old versions to be kept.
const RETENTION_SECONDS_MAX: u64 = 365 * 24 * 3_600;
/// Largest share of its disk that the server can leave free.
const KEEP_FREE_PERCENT_MAX: u8 = 90;
/// Most of a settings file that is read.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// The settings file.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Image with the program `peerdist`, for clients and server.
    pub image: String,
    /// Names of Secrets to pull it with.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// Whether the nodes keep our ports out of their ephemeral range. The container that sees to it is privileged.
    #[serde(default)]
    pub reserve_ports: bool,
    /// By which keys the server is the server.
    #[serde(default)]
    pub identity: IdentitySettings,
    /// Where clients and server send traces.
    #[serde(default)]
    pub traces: TracesSettings,
    /// The clients of all offices.
    #[serde(default)]
    pub client: ClientSettings,
    /// The server.
    pub server: ServerSettings,
}

/// Where the root comes from.
#[derive(Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySettings {
    /// Secret of type kubernetes.io/tls that somebody else keeps, such as cert-manager. Without it the operator makes
    /// one.
    #[serde(default)]
    pub root_secret: Option<String>,
}

impl IdentitySettings {
    /// Name of the Secret with the root.
    pub fn root_secret_name(&self) -> &str {
        self.root_secret.as_deref().unwrap_or(ROOT_SECRET)
    }
}

/// Where traces go.
#[derive(Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracesSettings {
    /// Base URL of an OTLP/HTTP receiver. Without it nothing is traced.
    #[serde(default)]
    pub endpoint: Option<String>,
}

/// What every client gets.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientSettings {
    /// What its pod gets.
    pub pod: PodSettings,
    /// How many nodes of an office may be without a client while a new form of it is rolled out.
    pub max_unavailable_percent: u8,
}

/// What the server gets.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerSettings {
    /// What its pod gets.
    #[serde(default)]
    pub pod: PodSettings,
    /// Where it keeps library and metadata.
    pub storage: ServerStorage,
    /// Most bytes of the library and of what arrives for it. Without it, as much as the disk has.
    #[serde(default)]
    pub storage_limit: Option<Quantity>,
    /// Percent of its disk that the library leaves free. Without it, none of a volume, and of a directory of its node what
    /// the server decides.
    #[serde(default)]
    pub keep_free_percent: Option<u8>,
    /// Networks that sources may be fetched from although the server may not otherwise, such as 10.8.0.0/16.
    #[serde(default)]
    pub allowed_sources: Vec<IpNet>,
    /// Networks that sources may not be fetched from: those of pods, services and nodes.
    #[serde(default)]
    pub forbidden_sources: Vec<IpNet>,
    /// Authorities that may vouch for sources besides the public ones. Without it, none.
    #[serde(default)]
    pub source_authorities: Option<SourceAuthorities>,
    /// Folders of its nodes whose files may be sources. Without any, no file may.
    #[serde(default)]
    pub file_roots: FileRoots,
    /// How long a version of a package stays after a newer one took its place. Without it, as long as the server decides.
    #[serde(default)]
    pub retention_seconds: Option<u64>,
}

/// What a pod gets.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodSettings {
    /// Memory, as request and as limit.
    pub memory: Quantity,
    /// Thousandths of a processor that it asks for. It may use more.
    pub cpu_millicores: u32,
    /// Priority class, if any.
    pub priority_class_name: Option<String>,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
}

/// Where the server keeps its data.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ServerStorage {
    /// A directory of its node.
    HostPath(String),
    /// A volume of the cluster.
    #[serde(rename_all = "camelCase")]
    Claim {
        /// How large.
        size: Quantity,
        /// Storage class; the cluster's default when absent.
        #[serde(default)]
        storage_class_name: Option<String>,
    },
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be meant.
    #[error("the settings {} have {bytes} bytes: expected at most {SETTINGS_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is no settings file.
    #[error("the settings are not valid: {0}")]
    Parse(#[from] serde_saphyr::Error),
    /// A value is out of range.
    #[error("{field} in the settings is {value}: expected {expected}; correct it")]
    Value {
        /// The field.
        field: &'static str,
        /// What was found.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl Settings {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > SETTINGS_BYTES_MAX {
            return Err(SettingsError::TooLarge { path: path.to_owned(), bytes });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = serde_saphyr::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let wrong = |field, value: String, expected| Err(SettingsError::Value { field, value, expected });
        if self.image.trim().is_empty() {
            return wrong("image", "empty".to_owned(), "the image with the program peerdist");
        }
        if !(1..=100).contains(&self.client.max_unavailable_percent) {
            let value = self.client.max_unavailable_percent.to_string();
            return wrong("client.maxUnavailablePercent", value, "1 to 100");
        }
        for (field, pod) in [("client.pod.memory", &self.client.pod), ("server.pod.memory", &self.server.pod)] {
            if !is_whole_mebibytes(pod.memory) {
                return wrong(field, pod.memory.to_string(), "whole mebibytes such as 256Mi");
            }
        }
        if let Some(name) = self.identity.root_secret.as_deref().filter(|name| !is_secret_name(name)) {
            return wrong("identity.rootSecret", format!("{name:?}"), "the name of a Secret that somebody else keeps");
        }
        if let Some(endpoint) = self.traces.endpoint.as_deref().filter(|endpoint| !is_web_address(endpoint)) {
            let expected = "the base URL of an OTLP/HTTP receiver such as http://otel-collector.monitoring:4318";
            return wrong("traces.endpoint", format!("{endpoint:?}"), expected);
        }
        if let Some(seconds) = self.server.retention_seconds.filter(|&seconds| seconds > RETENTION_SECONDS_MAX) {
            return wrong("server.retentionSeconds", seconds.to_string(), "at most a year, 31536000");
        }
        if self.server.storage_limit.is_some_and(|limit| limit.value() == 0) {
            return wrong("server.storageLimit", "0".to_owned(), "a number of bytes above 0 such as 100Gi");
        }
        if let Some(percent) = self.server.keep_free_percent.filter(|&percent| percent > KEEP_FREE_PERCENT_MAX) {
            return wrong("server.keepFreePercent", percent.to_string(), "at most 90");
        }
        let authorities = self.server.source_authorities.as_ref().map(SourceAuthorities::check);
        if let Some(Err((field, value, expected))) = authorities {
            return wrong(field, value, expected);
        }
        let folder = match &self.server.storage {
            ServerStorage::HostPath(path) => Some(path.as_str()),
            ServerStorage::Claim { .. } => None,
        };
        if let Err((value, expected)) = self.server.file_roots.check(folder) {
            return wrong("server.fileRoots", value, expected);
        }
        match &self.server.storage {
            ServerStorage::HostPath(path) if !path.starts_with('/') || path.len() < 2 => {
                wrong("server.storage.hostPath", path.clone(), "an absolute path below /")
            }
            ServerStorage::Claim { size, .. } if !is_whole_mebibytes(*size) => {
                wrong("server.storage.claim.size", size.to_string(), "whole mebibytes such as 100Gi")
            }
            _ => Ok(()),
        }
    }
}

/// For people, close to how it is written.
impl fmt::Display for ServerStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostPath(path) => write!(formatter, "hostPath {path}"),
            Self::Claim { size, storage_class_name: None } => write!(formatter, "claim {{size: {size}}}"),
            Self::Claim { size, storage_class_name: Some(class) } => {
                write!(formatter, "claim {{size: {size}, storageClassName: {class}}}")
            }
        }
    }
}

/// Our own Secrets are none that somebody else keeps.
fn is_secret_name(name: &str) -> bool {
    is_object_name(name) && ![ROOT_SECRET, SERVER_IDENTITY].contains(&name)
}

fn is_object_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    (1..=OBJECT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_web_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
}

fn is_whole_mebibytes(quantity: Quantity) -> bool {
    quantity.value() != 0 && quantity.value().is_multiple_of(MEMORY_UNIT_BYTES)
}

fn mebibytes(count: u64) -> Quantity {
    Quantity::new(count * MEMORY_UNIT_BYTES)
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { pod: PodSettings::default(), max_unavailable_percent: 10 }
    }
}

impl Default for PodSettings {
    fn default() -> Self {
        Self { memory: mebibytes(256), cpu_millicores: 100, priority_class_name: None, tolerations: Vec::new() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings of a small cluster.
    pub(crate) fn settings() -> Settings {
        Settings::parse("image: registry.example/peerdist:1\nserver: {storage: {hostPath: /var/lib/peerdist-server}}")
            .unwrap()
    }

    /// Of a cluster where traces are collected.
    pub(crate) fn traced_settings() -> Settings {
        let traces = TracesSettings { endpoint: Some("http://otel:4318".to_owned()) };
        Settings { traces, ..settings() }
    }

    #[test]
    fn a_file_may_be_short_and_may_say_everything() {
        assert_eq!(settings().client.max_unavailable_percent, 10);
        let text = "image: a\nclient:\n  maxUnavailablePercent: 25\n  pod:\n    memory: 1Gi\n    tolerations:\n    - \
                    operator: Exists\nserver:\n  storage:\n    claim: {size: 100Gi, storageClassName: fast}\n";
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.client.pod.memory.to_string(), "1Gi");
        assert_eq!(settings.client.pod.tolerations[0].operator.as_deref(), Some("Exists"));
        assert!(matches!(settings.server.storage, ServerStorage::Claim { .. }));
        assert!(settings.server.file_roots.is_empty());
        assert_eq!(settings.server.source_authorities, None);
        assert_eq!((settings.server.storage_limit, settings.server.keep_free_percent), (None, None));
        let text = "image: a\nserver: {storage: {hostPath: /x}, fileRoots: [/srv/files, /data]}";
        assert_eq!(Settings::parse(text).unwrap().server.file_roots.to_string(), "/srv/files,/data");
    }

    #[test]
    fn what_the_chart_renders_is_read() {
        let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/operator.yaml");
        let documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let rendered = documents.iter().find_map(|document| document["data"]["settings.yaml"].as_str()).unwrap();
        let settings = Settings::parse(rendered).unwrap();
        assert_eq!(settings.traces, TracesSettings::default());
        assert_eq!(settings.client, ClientSettings::default(), "the chart and the program have the same defaults");
        assert_eq!(settings.server.storage, ServerStorage::HostPath("/var/lib/peerdist-server".to_owned()));
        assert_eq!(settings.server.retention_seconds, None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_field() {
        let server = "server: {storage: {hostPath: /x}}";
        for (text, expected) in [
            (format!("image: ''\n{server}"), "image"),
            (format!("image: a\n{server}\nclient: {{maxUnavailablePercent: 0}}"), "client.maxUnavailablePercent"),
            (format!("image: a\n{server}\nclient: {{pod: {{memory: 500M}}}}"), "client.pod.memory"),
            ("image: a\nserver: {storage: {hostPath: x}}".to_owned(), "server.storage.hostPath"),
            ("image: a\nserver: {storage: {claim: {size: 0}}}".to_owned(), "server.storage.claim.size"),
            (
                "image: a\nserver: {storage: {hostPath: /x}, retentionSeconds: 31536001}".to_owned(),
                "server.retentionSeconds",
            ),
            ("image: a\nserver: {storage: {hostPath: /x}, storageLimit: 0}".to_owned(), "server.storageLimit"),
            ("image: a\nserver: {storage: {hostPath: /x}, storageLimit: much}".to_owned(), "such as 50Gi"),
            ("image: a\nserver: {storage: {hostPath: /x}, keepFreePercent: 91}".to_owned(), "server.keepFreePercent"),
            (
                "image: a\nserver: {storage: {hostPath: /x}, sourceAuthorities: {configMap: ''}}".to_owned(),
                "server.sourceAuthorities.configMap",
            ),
            ("image: a\nserver: {storage: {hostPath: /x}, fileRoots: [srv]}".to_owned(), "server.fileRoots"),
            ("image: a\nserver: {storage: {hostPath: /x}, fileRoots: [/x/y]}".to_owned(), "server.fileRoots"),
            (format!("image: a\n{server}\nidentity: {{rootSecret: ''}}"), "identity.rootSecret"),
            (format!("image: a\n{server}\nidentity: {{rootSecret: peerdist-server-identity}}"), "identity.rootSecret"),
            (format!("image: a\n{server}\ntraces: {{endpoint: otel-collector:4318}}"), "traces.endpoint"),
            (format!("image: a\n{server}\ntraces: {{endpoint: 'http://'}}"), "traces.endpoint"),
            (format!("image: a\n{server}\nimages: b"), "images"),
            ("image: a".to_owned(), "server"),
        ] {
            let error = Settings::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
