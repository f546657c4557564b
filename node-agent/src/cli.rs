//! Command line: one file a command. Parsing and exit codes live here, what a command does lives in its file or
//! in the module it starts.

mod exit;
mod options;
mod ports;

use clap::{Parser, Subcommand};

pub use exit::ExitStatus;
pub use options::{ClientOptions, LoopbackPrefix, OutputFormat, ServerOptions, UpOptions};

/// Brings packages to every node of every site over the peer-to-peer port specification.
#[derive(Debug, Parser)]
#[command(name = "peerdist", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the port catalogue, as a table or as firewall rules
    Ports(ports::PortsOptions),
}

/// Parses the arguments of the process, runs the command and says how it ended.
pub fn run() -> ExitStatus {
    let CommandLine { command } = CommandLine::parse();
    match command {
        Command::Ports(options) => ports::run(&options),
    }
}
