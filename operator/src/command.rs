//! The program: parses the arguments, sets up logs, TLS and threads, does what was asked, and says how it ended.

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, CommandLine};
use crate::{check, cleanup, run, telemetry};

/// The program.
pub fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    if let Err(error) = telemetry::install() {
        eprintln!("peerdist-operator: {error}");
        return ExitCode::FAILURE;
    }
    // An error says that a provider is installed already, which is what was asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(perform(command)),
        Err(source) => {
            eprintln!("peerdist-operator: cannot start threads: {source}");
            ExitCode::FAILURE
        }
    }
}

async fn perform(command: Command) -> ExitCode {
    match command {
        Command::Run(options) => ended(run::run(options).await),
        Command::Check(options) => match check::run(options).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => ended(Err(error)),
        },
        Command::Cleanup(options) => ended(cleanup::run(options).await),
    }
}

fn ended<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}
