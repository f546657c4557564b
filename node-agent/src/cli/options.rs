//! What people configure, as plain structs: the roles and the embedded mode take these and know nothing of flags.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_crds::Quantity;

use crate::driver::server::RETENTION_SECONDS_DEFAULT;
use crate::source::FileRoot;

/// Longest time for which old versions can be kept beyond their number: a year.
const RETENTION_SECONDS_MAX: u64 = 365 * 24 * 3_600;
/// Largest share of a disk that a library can leave free: it would hold next to nothing with more.
const KEEP_FREE_PERCENT_MAX: i64 = 90;
/// Exit codes in words.
const EXIT_CODES: &str = "Exit codes: 0 all is done, 1 the command failed, 2 the objects or the command line are \
                          unusable and nothing was started, 3 something about one package failed and the others were \
                          distributed, or a run with --once was interrupted before everything was done";

/// `peerdist up`: server and clients in one process on loopback addresses.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
pub struct UpOptions {
    /// Directory with the YAML files of the objects
    #[arg(value_name = "DIR", env = "PEERDIST_MANIFESTS")]
    pub directory: PathBuf,
    /// Directory that keeps everything between runs
    #[arg(long, value_name = "DIR", env = "PEERDIST_STATE", default_value = DEFAULT_STATE)]
    pub state: PathBuf,
    /// End when everything is distributed. Packages that are paused, or that spec.schedule.notBefore keeps back, are
    /// not waited for; an interrupt before the end is no success, and a second run resumes
    #[arg(long, env = "PEERDIST_ONCE", value_parser = BoolishValueParser::new())]
    pub once: bool,
    /// What goes to standard output
    #[arg(long, value_enum, env = "PEERDIST_OUTPUT", default_value_t)]
    pub output: OutputFormat,
    /// Loopback network of this run: the server is 127.N.0.1, node n of office k is 127.N.k.n
    #[arg(long, value_name = "127.N", env = "PEERDIST_PREFIX", default_value_t)]
    pub prefix: LoopbackPrefix,
}

/// `peerdist server`: the peer-to-peer server of the Central Office.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// Directory with the YAML files of the objects
    #[arg(long, value_name = "DIR", env = "PEERDIST_MANIFESTS", required_unless_present = "kubernetes")]
    pub manifests: Option<PathBuf>,
    /// Take the objects from the Kubernetes cluster that this process runs in, or that KUBECONFIG names
    #[arg(
        long,
        env = "PEERDIST_KUBERNETES",
        value_parser = BoolishValueParser::new(),
        conflicts_with = "manifests",
        requires = "authority"
    )]
    pub kubernetes: bool,
    /// Directory with the keys of the authority, as the operator makes them, which is followed; without it the server
    /// makes its own
    #[arg(long, value_name = "DIR", env = "PEERDIST_AUTHORITY", requires = "kubernetes")]
    pub authority: Option<PathBuf>,
    /// Networks that sources may be fetched from although a server in a cluster may not: its own host, its link, and
    /// the forbidden networks
    #[arg(long, value_name = "CIDR", env = "PEERDIST_ALLOWED_SOURCES", value_delimiter = ',', requires = "kubernetes")]
    pub allowed_sources: Vec<IpNet>,
    /// Networks that sources may not be fetched from, such as those of pods, services and nodes
    #[arg(
        long,
        value_name = "CIDR",
        env = "PEERDIST_FORBIDDEN_SOURCES",
        value_delimiter = ',',
        requires = "kubernetes"
    )]
    pub forbidden_sources: Vec<IpNet>,
    /// File with more such networks, one a line, which is followed
    #[arg(long, value_name = "FILE", env = "PEERDIST_FORBIDDEN_SOURCES_FILE", requires = "kubernetes")]
    pub forbidden_sources_file: Option<PathBuf>,
    /// Folders of this machine whose files may be sources (file://) although the objects come from a cluster; without
    /// any, no file may
    #[arg(long, value_name = "DIR", env = "PEERDIST_FILE_ROOTS", value_delimiter = ',', requires = "kubernetes")]
    pub file_roots: Vec<FileRoot>,
    /// Address that the server's ports are bound to
    #[arg(long, value_name = "IP", env = "PEERDIST_ADDRESS")]
    pub address: IpAddr,
    /// Directory of the library, the identity and the metadata
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT")]
    pub root: PathBuf,
    /// File with the join token; written when it is absent. Not used with --kubernetes: a pod has a token of its own
    #[arg(long, value_name = "FILE", env = "PEERDIST_JOIN_TOKEN_FILE")]
    pub join_token_file: PathBuf,
    /// Metadata database; a SQLite file under the root when absent
    #[arg(long, value_name = "URL", env = "PEERDIST_DATABASE")]
    pub database: Option<String>,
    /// How long nodes and library keep a version beyond spec.retention.versions after a newer one took its place, in
    /// seconds
    #[arg(
        long,
        value_name = "SECONDS",
        env = "PEERDIST_RETENTION_SECONDS",
        default_value_t = RETENTION_SECONDS_DEFAULT,
        value_parser = clap::value_parser!(u64).range(..=RETENTION_SECONDS_MAX)
    )]
    pub retention_seconds: u64,
    /// Most bytes of the library and of what arrives for it, downloads and unpacked archives, such as 100Gi; without it, as
    /// much as the disk has
    #[arg(long, value_name = "QUANTITY", env = "PEERDIST_STORAGE_LIMIT", value_parser = storage_limit)]
    pub storage_limit: Option<Quantity>,
    /// Percent of its disk that the library leaves free, limit or not; without it, 15 in a cluster, where kubelet evicts
    /// pods when less is free, and 0 elsewhere
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PEERDIST_KEEP_FREE_PERCENT",
        value_parser = clap::value_parser!(u8).range(..=KEEP_FREE_PERCENT_MAX)
    )]
    pub keep_free_percent: Option<u8>,
}

/// A limit of nothing is meant by nobody: whoever wants none leaves it out.
fn storage_limit(text: &str) -> Result<Quantity, String> {
    let limit = text.parse::<Quantity>().map_err(|error| error.to_string())?;
    if limit.value() > 0 { Ok(limit) } else { Err("expected a number of bytes above 0 such as 100Gi".to_owned()) }
}

/// `peerdist client`: the peer-to-peer client of one node.
#[derive(Debug, Clone, Args)]
pub struct ClientOptions {
    /// Address of the server
    #[arg(long, value_name = "IP", env = "PEERDIST_SERVER", required_unless_present = "server_file")]
    pub server: Option<IpAddr>,
    /// File with the address of a server that may move; waited for when it is absent, and followed
    #[arg(long, value_name = "FILE", env = "PEERDIST_SERVER_FILE", conflicts_with = "server")]
    pub server_file: Option<PathBuf>,
    /// Address that the client's ports are bound to
    #[arg(long, value_name = "IP", env = "PEERDIST_ADDRESS")]
    pub address: IpAddr,
    /// Office of the node
    #[arg(long, value_name = "NAME", env = "PEERDIST_OFFICE")]
    pub office: OfficeName,
    /// Name of the node
    #[arg(long, value_name = "NAME", env = "PEERDIST_NODE")]
    pub node: NodeName,
    /// Directory of the packages, the staging area and the journal
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT")]
    pub root: PathBuf,
    /// File with the join token; waited for when it is absent
    #[arg(long, value_name = "FILE", env = "PEERDIST_JOIN_TOKEN_FILE")]
    pub join_token_file: PathBuf,
    /// File with the SHA-256 of the server's root certificate: the join token is the service-account token of a pod
    #[arg(long, value_name = "FILE", env = "PEERDIST_TRUST_FILE")]
    pub trust_file: Option<PathBuf>,
}

/// What goes to standard output at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object and nothing else.
    Json,
}

/// The loopback network of an embedded run: 127.N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackPrefix(u8);

impl LoopbackPrefix {
    /// The network 127.`second_octet`; 0 and 255 are refused, they hold 127.0.0.1 and the broadcast address.
    ///
    /// # Errors
    /// [`LoopbackPrefixError`] for 0 and 255.
    pub fn new(second_octet: u8) -> Result<Self, LoopbackPrefixError> {
        if matches!(second_octet, 0 | 255) {
            return Err(LoopbackPrefixError(format!("127.{second_octet}")));
        }
        Ok(Self(second_octet))
    }

    /// Address of the server.
    pub fn server(self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, 0, 1)
    }

    /// Address of node `node` (from 1) of the office with index `office` (from 1).
    pub fn node(self, office: u8, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, office, node)
    }
}

impl Default for LoopbackPrefix {
    fn default() -> Self {
        Self(34)
    }
}

impl fmt::Display for LoopbackPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "127.{}", self.0)
    }
}

impl FromStr for LoopbackPrefix {
    type Err = LoopbackPrefixError;
    fn from_str(text: &str) -> Result<Self, LoopbackPrefixError> {
        let refused = || LoopbackPrefixError(text.to_owned());
        let octet = text.strip_prefix("127.").and_then(|octet| octet.parse().ok()).ok_or_else(refused)?;
        Self::new(octet).map_err(|_| refused())
    }
}

/// A text that is no loopback network for an embedded run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix: expected 127.N with N from 1 to 254")]
pub struct LoopbackPrefixError(String);

/// Where `up` keeps its state and `status` looks for it.
pub(super) const DEFAULT_STATE: &str = "./peerdist-state";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_limits_are_quantities_above_nothing() {
        assert_eq!(storage_limit("100Gi").map(Quantity::value), Ok(100 << 30));
        for bad in ["0", "0Gi", "-1", "much", ""] {
            assert!(storage_limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_name_server_and_nodes() {
        let prefix: LoopbackPrefix = "127.40".parse().unwrap();
        assert_eq!(prefix.server().to_string(), "127.40.0.1");
        assert_eq!(prefix.node(2, 3).to_string(), "127.40.2.3");
        for bad in ["127.0", "127.255", "127.256", "10.1", "127", "127.1.2", ""] {
            assert!(bad.parse::<LoopbackPrefix>().is_err(), "{bad}");
        }
    }
}
