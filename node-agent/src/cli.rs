//! Command line: one file a command. Parsing and exit codes live here, what a command does lives in its file or
//! in the module it starts.

mod doctor;
mod exit;
mod options;
mod ports;
mod preflight;
mod prepare_storage;
mod progress;
mod remove_storage;
mod reserve_ports;
mod roles;
mod status;
pub(crate) mod text_table;
mod verify;

use clap::{Parser, Subcommand};

pub use exit::ExitStatus;
pub use options::{ClientOptions, LoopbackPrefix, OutputFormat, ServerOptions, UpOptions};
pub use progress::{Console, Progress};

use crate::http::install_tls_provider;

/// Brings packages to every node of every site over the peer-to-peer port specification.
#[derive(Debug, Parser)]
#[command(name = "peerdist", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server and every client in this process on loopback addresses, on objects from a directory
    Up(UpOptions),
    /// Run the server of the Central Office
    Server(ServerOptions),
    /// Run the client of one node
    Client(ClientOptions),
    /// Show packages, offices and nodes: bytes, percent, rate, time left, source and last error
    Status(status::StatusOptions),
    /// Show the port catalogue, as a table or as firewall rules
    Ports(ports::PortsOptions),
    /// Check this host: ports, broadcast, reserved range, disk, clock, MTU
    Doctor(doctor::DoctorOptions),
    /// Hash everything that is held again and name what is wrong
    Verify(verify::VerifyOptions),
    /// Make a storage directory and give it to the agent's user, for an init container
    PrepareStorage(prepare_storage::PrepareStorageOptions),
    /// Check that the ports of a role can be bound, for an init container
    Preflight(preflight::PreflightOptions),
    /// Keep the ports of the catalogue out of the ephemeral range, for an init container
    ReservePorts,
    /// Remove everything that an agent keeps in its storage directory, when peerdist is uninstalled
    RemoveStorage(remove_storage::RemoveStorageOptions),
}

/// Parses the arguments of the process, runs the command and says how it ended.
pub fn run() -> ExitStatus {
    let CommandLine { command } = CommandLine::parse();
    install_tls_provider();
    match command {
        Command::Up(options) => on_runtime(roles::up(options)),
        Command::Server(options) => on_runtime(roles::server(options)),
        Command::Client(options) => on_runtime(roles::client(options)),
        Command::Status(options) => on_runtime(status::run(options)),
        Command::Ports(options) => ports::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::PrepareStorage(options) => prepare_storage::run(&options),
        Command::Preflight(options) => preflight::run(&options),
        Command::ReservePorts => reserve_ports::run(),
        Command::RemoveStorage(options) => on_runtime(remove_storage::run(options)),
    }
}

/// Runs a command that waits for things.
fn on_runtime(command: impl Future<Output = ExitStatus>) -> ExitStatus {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("peerdist: cannot start threads: {error}");
            ExitStatus::Failed
        }
    }
}
