//! Logs and traces. Logs go to standard error: text on a terminal, JSON elsewhere. Traces go to an OTLP endpoint when
//! `OTEL_EXPORTER_OTLP_ENDPOINT` names one. Metrics are in `metrics`.

mod exporter;
mod traceparent;

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use exporter::ExporterError;
pub use traceparent::{current_traceparent, with_parent};

use crate::cli::Console;

/// Names the endpoint; without it nothing is exported.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Directives of what is logged, in this order of precedence.
const FILTER_VARIABLES: [&str; 2] = ["PEERDIST_LOG", "RUST_LOG"];
/// `text` or `json`, whatever standard error is.
const FORMAT_VARIABLE: &str = "PEERDIST_LOG_FORMAT";

/// What a command wants of its logs; the environment has the last word.
#[derive(Debug, Clone, Copy)]
pub struct TelemetryOptions {
    /// Name of the service in traces, for example `peerdist-server`.
    pub service: &'static str,
    /// Directives when the environment gives none, for example `info`.
    pub default_filter: &'static str,
    /// Text even when standard error is no terminal: for commands whose lines people read in a pipe.
    pub prefer_text: bool,
}

/// Keeps traces flowing; [`Telemetry::shutdown`] sends what is left.
#[derive(Debug)]
#[must_use = "traces that were not sent yet are lost unless it is shut down"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Telemetry cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The endpoint of traces cannot be used.
    #[error("{ENDPOINT_VARIABLE}: {0}")]
    Exporter(#[from] ExporterError),
    /// A filter is no list of directives.
    #[error("{variable}={value:?}: {source}: expected directives such as info or peerdist_node_agent=debug")]
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

impl Telemetry {
    /// Sets up logs and, with an endpoint, traces for the whole process. Call it inside the runtime that is to send
    /// the traces.
    ///
    /// # Errors
    /// [`TelemetryError`] for a malformed filter or endpoint, or when it was called before.
    pub fn install(options: TelemetryOptions, console: &Console) -> Result<Self, TelemetryError> {
        let traces = traces_from_environment(options.service)?;
        let registry = tracing_subscriber::registry()
            .with(filter(options.default_filter)?)
            .with(log_layer(options, console.clone()))
            .with(traces.as_ref().map(trace_layer));
        registry.try_init()?;
        Ok(Self { traces })
    }

    /// Sends the traces that are left.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // It waits for an answer of the endpoint, which other threads of the runtime bring.
        let outcome = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        if let Ok(Err(error)) = outcome {
            tracing::warn!(%error, "the last traces could not be sent");
        }
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

fn log_layer<S>(options: TelemetryOptions, console: Console) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = std::io::stderr().is_terminal();
    let text = match std::env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => false,
        Ok("text") => true,
        _ => terminal || options.prefer_text,
    };
    let layer = fmt::layer().with_writer(console);
    if text { layer.with_ansi(terminal).with_target(false).boxed() } else { layer.json().flatten_event(true).boxed() }
}

fn trace_layer<S>(traces: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(traces.tracer("peerdist"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tracing::Instrument;

    use super::*;
    use crate::http::install_tls_provider;

    /// The smallest collector: decodes what is posted and passes the spans on.
    async fn collector() -> (String, mpsc::UnboundedReceiver<Span>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let accept = async |State(sender): State<Arc<mpsc::UnboundedSender<Span>>>, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            scopes.flat_map(|scope| scope.spans).for_each(|span| sender.send(span).unwrap());
        };
        let router = Router::new().route("/v1/traces", post(accept)).with_state(Arc::new(sender));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (endpoint, receiver)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn trace_goes_on_at_the_receiver_and_reaches_the_collector() {
        install_tls_provider();
        let (endpoint, mut spans) = collector().await;
        let traces = exporter::tracer_provider("peerdist-test", &endpoint).unwrap();
        let subscriber = tracing_subscriber::registry().with(trace_layer(&traces));
        let guard = tracing::subscriber::set_default(subscriber);
        let sent = tracing::info_span!("ask").in_scope(current_traceparent);
        let answer = tracing::info_span!("answer");
        with_parent(&answer, &sent);
        async {}.instrument(answer).await;
        drop(guard);
        Telemetry { traces: Some(traces) }.shutdown().await;
        let (first, second) = (spans.recv().await.unwrap(), spans.recv().await.unwrap());
        let (ask, answer) = if first.name == "ask" { (first, second) } else { (second, first) };
        assert_eq!((ask.name.as_str(), answer.name.as_str()), ("ask", "answer"));
        assert_eq!(answer.parent_span_id, ask.span_id);
        assert_eq!(answer.trace_id, ask.trace_id);
        assert!(sent.contains(&hex::encode(&ask.trace_id)) && sent.contains(&hex::encode(&ask.span_id)), "{sent}");
    }
}
