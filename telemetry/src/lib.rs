//! Logs and traces of operator, server and clients. Logs go to standard error: text on a terminal, JSON elsewhere.
//! Traces go to an OTLP endpoint when `OTEL_EXPORTER_OTLP_ENDPOINT` names one. Metrics are each program's own.
//!
//! [`with_telemetry`] sets both up around the work of a program. [`join_package_trace`] puts a span into the trace of its
//! package, [`current_traceparent`] and [`with_parent`] carry a trace from node to node. [`collector`] is for tests only.

#[cfg(any(test, feature = "collector"))]
pub mod collector;
mod exporter;
mod package;
mod traceparent;

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use exporter::ExporterError;
pub use package::{join_package_trace, join_package_trace_of_sender};
pub use traceparent::{current_traceparent, with_parent};

/// Environment variable that names the endpoint; without it nothing is exported.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Directives of what is logged, in this order of precedence.
const FILTER_VARIABLES: [&str; 2] = ["PEERDIST_LOG", "RUST_LOG"];
/// `text` or `json`, whatever standard error is.
const FORMAT_VARIABLE: &str = "PEERDIST_LOG_FORMAT";
/// Targets of our own crates begin with it: what libraries do is no part of a trace.
const OWN_TARGETS: &str = "peerdist";

/// What a program wants of its logs; the environment has the last word.
#[derive(Debug, Clone, Copy)]
pub struct TelemetryOptions {
    /// Name of the service in traces, for example `peerdist-server`.
    pub service: &'static str,
    /// Directives when the environment gives none, for example `info`.
    pub default_filter: &'static str,
    /// Text even when standard error is no terminal: for commands whose lines people read in a pipe.
    pub prefer_text: bool,
}

/// Telemetry cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The endpoint of traces cannot be used.
    #[error("{ENDPOINT_VARIABLE}: {0}")]
    Exporter(#[from] ExporterError),
    /// A filter is no list of directives.
    #[error("{variable}={value:?}: {source}: expected directives such as info or warn,peerdist_operator=debug")]
    Filter {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What went wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a subscriber already.
    #[error("logs are set up already: {0}")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logs and, with an endpoint, traces for the whole process, and does the work. What is logged decides nothing
/// about what is traced. Traces are sent by the runtime that this is called in.
///
/// # Errors
/// [`TelemetryError`] for a malformed filter or endpoint, or when it was called before: then no work is done.
pub async fn with_telemetry<T, W>(
    options: TelemetryOptions,
    writer: W,
    work: impl Future<Output = T>,
) -> Result<T, TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let traces = traces_from_environment(options.service)?;
    tracing_subscriber::registry()
        .with(log_layer(options, writer).with_filter(filter(options.default_filter)?))
        .with(traces.as_ref().map(trace_layer))
        .try_init()?;
    let outcome = work.await;
    if let Some(traces) = traces {
        send_the_rest(traces).await;
    }
    Ok(outcome)
}

/// Sends the traces that are left.
async fn send_the_rest(traces: SdkTracerProvider) {
    // It waits for an answer of the endpoint, which other threads of the runtime bring.
    let outcome = tokio::task::spawn_blocking(move || traces.shutdown()).await;
    if let Ok(Err(error)) = outcome {
        tracing::warn!(%error, "the last traces could not be sent");
    }
}

fn traces_from_environment(service: &'static str) -> Result<Option<SdkTracerProvider>, ExporterError> {
    match std::env::var(ENDPOINT_VARIABLE) {
        Ok(endpoint) if !endpoint.is_empty() => exporter::tracer_provider(service, &endpoint).map(Some),
        _ => Ok(None),
    }
}

fn filter(default: &str) -> Result<EnvFilter, TelemetryError> {
    for variable in FILTER_VARIABLES {
        if let Ok(value) = std::env::var(variable) {
            return EnvFilter::try_new(&value).map_err(|source| TelemetryError::Filter { variable, value, source });
        }
    }
    Ok(EnvFilter::new(default))
}

fn log_layer<S, W>(options: TelemetryOptions, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let terminal = std::io::stderr().is_terminal();
    let text = match std::env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => false,
        Ok("text") => true,
        _ => terminal || options.prefer_text,
    };
    let layer = fmt::layer().with_writer(writer);
    if text { layer.with_ansi(terminal).with_target(false).boxed() } else { layer.json().flatten_event(true).boxed() }
}

fn trace_layer<S>(traces: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer("peerdist"));
    layer.with_filter(Targets::new().with_target(OWN_TARGETS, LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};
    use peerdist_core::trace::PackageTrace;
    use tracing::Instrument;

    use super::*;
    use crate::collector::collected;

    fn package(version: &str) -> PackageKey {
        let (namespace, name) = (Namespace::new("retail").unwrap(), PackageName::new("pos-app").unwrap());
        PackageKey { distribution: DistributionKey { namespace, name }, version: Version::new(version).unwrap() }
    }

    /// What reaches a collector of the spans that `work` makes, by name.
    async fn exported<const COUNT: usize>(names: [&str; COUNT], work: impl AsyncFnOnce()) -> [Span; COUNT] {
        let spans = collected(work).await;
        assert_eq!(spans.len(), COUNT, "{spans:#?}");
        names.map(|name| spans.iter().find(|span| span.span.name == name).unwrap().span.clone())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn trace_goes_on_at_the_receiver_and_reaches_the_collector() {
        let mut sent = String::new();
        let [ask, answer] = exported(["ask", "answer"], async || {
            sent = tracing::info_span!("ask").in_scope(current_traceparent);
            let answer = tracing::info_span!("answer");
            with_parent(&answer, &sent);
            async {}.instrument(answer).await;
        })
        .await;
        assert_eq!(answer.parent_span_id, ask.span_id);
        assert_eq!(answer.trace_id, ask.trace_id);
        assert!(sent.contains(&hex::encode(&ask.trace_id)) && sent.contains(&hex::encode(&ask.span_id)), "{sent}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_on_a_package_is_in_its_trace_wherever_it_was_ordered() {
        let [other, lone, ordered, nested] = exported(["other", "lone", "ordered", "nested"], async || {
            let lone = tracing::info_span!("lone");
            join_package_trace(&lone, &package("1"));
            drop(lone);
            tracing::info_span!("other").in_scope(|| {
                let ordered = tracing::info_span!("ordered");
                join_package_trace(&ordered, &package("1"));
                ordered.in_scope(|| join_package_trace(&tracing::info_span!("nested"), &package("1")));
            });
        })
        .await;
        let trace = PackageTrace::of(&package("1"));
        for span in [&lone, &ordered, &nested] {
            assert_eq!(span.trace_id, trace.trace_id, "{}", span.name);
        }
        assert_eq!(
            (&lone.parent_span_id[..], &ordered.parent_span_id[..]),
            (&trace.root_span_id[..], &trace.root_span_id[..])
        );
        assert_eq!(nested.parent_span_id, ordered.span_id);
        assert_ne!(other.trace_id, trace.trace_id);
        let [link] = &ordered.links[..] else { panic!("{:?}", ordered.links) };
        assert_eq!((&link.trace_id, &link.span_id), (&other.trace_id, &other.span_id), "where it was ordered");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn trace_of_a_sender_counts_if_it_is_that_of_the_package() {
        let [want, transfer, foreign, untold] = exported(["want", "transfer", "foreign", "untold"], async || {
            let want = tracing::info_span!("want");
            join_package_trace(&want, &package("1"));
            let sent = want.in_scope(current_traceparent);
            join_package_trace_of_sender(&tracing::info_span!("transfer"), &package("1"), &sent);
            join_package_trace_of_sender(&tracing::info_span!("foreign"), &package("2"), &sent);
            join_package_trace_of_sender(&tracing::info_span!("untold"), &package("1"), "garbage");
        })
        .await;
        let [first, second] = ["1", "2"].map(|version| PackageTrace::of(&package(version)));
        assert_eq!((&transfer.trace_id[..], &transfer.parent_span_id), (&first.trace_id[..], &want.span_id));
        assert_eq!(
            (&foreign.trace_id[..], &foreign.parent_span_id[..]),
            (&second.trace_id[..], &second.root_span_id[..])
        );
        assert_eq!((&untold.trace_id[..], &untold.parent_span_id[..]), (&first.trace_id[..], &first.root_span_id[..]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_libraries_do_is_no_part_of_a_trace() {
        let [own] = exported(["own"], async || {
            tracing::info_span!(target: "hyper", "foreign").in_scope(|| tracing::info_span!("own").in_scope(|| ()));
        })
        .await;
        assert!(own.parent_span_id.is_empty());
    }
}
