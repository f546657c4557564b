//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::storage::StoragePrefixes;

/// Makes a cluster what its Offices say.
#[derive(Debug, Clone, Parser)]
#[command(name = "peerdist-operator", version)]
pub struct Options {
    /// File with the settings of clients and server
    #[arg(long, value_name = "FILE", env = "PEERDIST_SETTINGS")]
    pub settings: PathBuf,
    /// Namespace of everything that it makes
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "peerdist")]
    pub namespace: String,
    /// Folders of the nodes in which Offices may keep packages, with commas between them
    #[arg(long, value_name = "PATHS", env = "PEERDIST_STORAGE_PREFIXES", default_value_t)]
    pub storage_prefixes: StoragePrefixes,
    /// Name under which it takes part in the election; made unique by number and time of the process
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "peerdist-operator")]
    pub name: String,
    /// Namespace of the Lease by which one operator of the whole cluster is elected
    #[arg(long, value_name = "NAME", env = "PEERDIST_LEASE_NAMESPACE", default_value = "kube-system")]
    pub lease_namespace: String,
    /// Name of that Lease
    #[arg(long, value_name = "NAME", env = "PEERDIST_LEASE_NAME", default_value = "peerdist-operator")]
    pub lease_name: String,
    /// Address of metrics and health
    #[arg(long, value_name = "ADDRESS", env = "PEERDIST_HTTP_ADDRESS", default_value = "0.0.0.0:9763")]
    pub http_address: SocketAddr,
}
