//! The program: parses the arguments, sets up TLS, threads, logs and traces, does what was asked, and says how it ended.

use std::process::ExitCode;

use clap::Parser;
use peerdist_telemetry::{TelemetryOptions, with_telemetry};
use tokio::runtime::{Builder, Runtime};

use crate::options::{Command, CommandLine};
use crate::{check, cleanup, run};

/// Of logs and traces.
const TELEMETRY: TelemetryOptions =
    TelemetryOptions { service: "peerdist-operator", default_filter: "info", prefer_text: false };

/// Threads that do the work. It waits for the API server most of the time, and each thread has memory of its own that it
/// does not give back: one a processor, which is the default, is too many on a large machine.
const THREADS: usize = 2;

/// The program.
pub fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    // An error says that a provider is installed already, which is what was asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match runtime() {
        Ok(runtime) => {
            let performed = runtime.block_on(with_telemetry(TELEMETRY, std::io::stderr, perform(command)));
            performed.unwrap_or_else(|error| {
                eprintln!("peerdist-operator: {error}");
                ExitCode::FAILURE
            })
        }
        Err(source) => {
            eprintln!("peerdist-operator: cannot start threads: {source}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()
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
