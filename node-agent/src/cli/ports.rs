//! `peerdist ports`: the catalogue as a table or as firewall rules.

use clap::{Args, ValueEnum};
use peerdist_core::ports::Role;

use super::ExitStatus;
use crate::firewall;

/// Which rows, and how.
#[derive(Debug, Args)]
pub(super) struct PortsOptions {
    /// Only the rows that this role sends or receives
    #[arg(long, value_enum, env = "PEERDIST_PORTS_ROLE")]
    role: Option<RoleName>,
    /// How to render them
    #[arg(long, value_enum, env = "PEERDIST_PORTS_FORMAT", default_value_t)]
    format: PortsFormat,
}

/// A role, as people name it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleName {
    Server,
    Client,
    Vesc,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum PortsFormat {
    #[default]
    Table,
    Nftables,
    Iptables,
    Windows,
    Json,
}

pub(super) fn run(options: &PortsOptions) -> ExitStatus {
    match render(options) {
        Ok(text) => {
            print!("{text}");
            ExitStatus::Done
        }
        Err(error) => {
            eprintln!("peerdist ports: {error}");
            ExitStatus::Failed
        }
    }
}

fn render(options: &PortsOptions) -> Result<String, serde_json::Error> {
    let role = options.role.map(Role::from);
    Ok(match options.format {
        PortsFormat::Table => firewall::render_table(role),
        PortsFormat::Nftables => firewall::render_nftables(role),
        PortsFormat::Iptables => firewall::render_iptables(role),
        PortsFormat::Windows => firewall::render_windows(role),
        PortsFormat::Json => firewall::render_json(role)?,
    })
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Server => Self::Server,
            RoleName::Client => Self::Client,
            RoleName::Vesc => Self::Vesc,
        }
    }
}
