//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::check::CheckOptions;
use crate::cleanup::CleanupOptions;
use crate::storage::StoragePrefixes;

/// Makes a cluster what its Offices say.
#[derive(Debug, Clone, Parser)]
#[command(name = "peerdist-operator", version, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make the cluster what its Offices say, until told to stop
    Run(Options),
    /// Look whether an operator works: a line a check, and the exit code; for `helm test`
    Check(CheckOptions),
    /// Take away everything that the operator and its pods made, before the installation is deleted
    Cleanup(CleanupOptions),
}

/// Where the Lease is by which one operator of the whole cluster is elected.
#[derive(Debug, Clone, Args)]
pub struct LeaseOptions {
    /// Namespace of the Lease by which one operator of the whole cluster is elected
    #[arg(long, value_name = "NAME", env = "PEERDIST_LEASE_NAMESPACE", default_value = "kube-system")]
    pub lease_namespace: String,
    /// Name of that Lease
    #[arg(long, value_name = "NAME", env = "PEERDIST_LEASE_NAME", default_value = "peerdist-operator")]
    pub lease_name: String,
}

/// How to run.
#[derive(Debug, Clone, Args)]
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
    /// The election.
    #[command(flatten)]
    pub lease: LeaseOptions,
    /// Address of metrics and health; by default every one, of IPv6 and IPv4
    #[arg(long, value_name = "ADDRESS", env = "PEERDIST_HTTP_ADDRESS", default_value = "[::]:9763")]
    pub http_address: SocketAddr,
}
