//! `peerdist up`, `server` and `client`: set up logs and signals, and start the roles.

use peerdist_telemetry::{TelemetryOptions, with_telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ClientOptions, Console, ExitStatus, OutputFormat, ServerOptions, UpOptions};
use crate::driver::client::ClientError;
use crate::driver::server::ServerError;
use crate::driver::{run_client, run_server};
use crate::embedded;

/// Runs `peerdist up`.
pub(super) async fn up(options: UpOptions) -> ExitStatus {
    let console = Console::standard_error();
    let telemetry = TelemetryOptions {
        service: "peerdist-up",
        default_filter: "warn",
        prefer_text: options.output == OutputFormat::Text,
    };
    logged(telemetry, &console, embedded::run(options, console.clone(), stop_on_signal())).await
}

/// Runs `peerdist server`.
pub(super) async fn server(options: ServerOptions) -> ExitStatus {
    let console = Console::standard_error();
    let telemetry = TelemetryOptions { service: "peerdist-server", default_filter: "info", prefer_text: false };
    let run = async { ended(run_server(options, stop_on_signal()).await, ServerError::is_address_unusable, &console) };
    logged(telemetry, &console, run).await
}

/// Runs `peerdist client`.
pub(super) async fn client(options: ClientOptions) -> ExitStatus {
    let console = Console::standard_error();
    let telemetry = TelemetryOptions { service: "peerdist-client", default_filter: "info", prefer_text: false };
    let run = async { ended(run_client(options, stop_on_signal()).await, ClientError::is_address_unusable, &console) };
    logged(telemetry, &console, run).await
}

/// A port that somebody else holds, as with `up`, and an address that this host lacks are a command line that cannot be
/// used.
fn ended<E: std::fmt::Display>(
    result: Result<(), E>,
    is_address_unusable: impl Fn(&E) -> bool,
    console: &Console,
) -> ExitStatus {
    let Err(error) = result else { return ExitStatus::Done };
    console.line(&format!("peerdist: {error}"));
    if is_address_unusable(&error) { ExitStatus::Unusable } else { ExitStatus::Failed }
}

async fn logged(options: TelemetryOptions, console: &Console, run: impl Future<Output = ExitStatus>) -> ExitStatus {
    with_telemetry(options, console.clone(), run).await.unwrap_or_else(|error| {
        console.line(&format!("peerdist: {error}"));
        ExitStatus::Failed
    })
}

/// Cancelled by the first interrupt or termination signal.
pub(super) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopped.cancel();
    });
    stop
}
