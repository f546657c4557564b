//! Logs to standard error: text on a terminal, JSON elsewhere. Traces come with the messages that carry them.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Directives of what is logged, in this order of precedence.
const FILTER_VARIABLES: [&str; 2] = ["PEERDIST_LOG", "RUST_LOG"];
/// `text` or `json`, whatever standard error is.
const FORMAT_VARIABLE: &str = "PEERDIST_LOG_FORMAT";

/// Logs cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A filter is no list of directives.
    #[error("{variable}={value:?}: {source}: expected directives such as info or peerdist_operator=debug")]
    Filter {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What went wrong.
        source: ParseError,
    },
    /// There is a subscriber already.
    #[error("logs are set up already: {0}")]
    AlreadySet(#[from] TryInitError),
}

/// Sets up logs for the whole process.
///
/// # Errors
/// [`TelemetryError`] for a malformed filter, or when it was called before.
pub fn install() -> Result<(), TelemetryError> {
    let text = match std::env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => false,
        Ok("text") => true,
        _ => stderr().is_terminal(),
    };
    let layer = fmt::layer().with_writer(stderr);
    let layer = if text { layer.with_target(false).boxed() } else { layer.json().flatten_event(true).boxed() };
    tracing_subscriber::registry().with(filter()?).with(layer).try_init()?;
    Ok(())
}

fn filter() -> Result<EnvFilter, TelemetryError> {
    for variable in FILTER_VARIABLES {
        if let Ok(value) = std::env::var(variable) {
            return EnvFilter::try_new(&value).map_err(|source| TelemetryError::Filter { variable, value, source });
        }
    }
    Ok(EnvFilter::new("info"))
}
