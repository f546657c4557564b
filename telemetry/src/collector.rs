//! The smallest OTLP collector, for tests only: it decodes what is posted and keeps the spans.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;

use crate::{exporter, send_the_rest, trace_layer};

/// The service of [`collected`] spans.
const SERVICE: &str = "peerdist-test";

/// A collector that runs.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    received: mpsc::UnboundedReceiver<CollectedSpan>,
}

/// A span that arrived.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// Name of the service that sent it.
    pub service: String,
    /// The span.
    pub span: Span,
}

/// What reaches a collector of the spans that `work` makes on the current thread. Call it in a runtime of several.
///
/// # Panics
/// When no exporter can be made.
pub async fn collected(work: impl AsyncFnOnce()) -> Vec<CollectedSpan> {
    // An error says that another test did so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut collector = Collector::start().await;
    let traces = exporter::tracer_provider(SERVICE, collector.endpoint()).expect("a collector runs there");
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(trace_layer(&traces)));
    work().await;
    drop(guard);
    send_the_rest(traces).await;
    collector.spans()
}

impl Collector {
    /// Starts one on a port of its own, as a task of this runtime.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let accept = async |State(sender): State<Arc<mpsc::UnboundedSender<CollectedSpan>>>, body: Bytes| {
            let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
            request.resource_spans.into_iter().flat_map(spans_of).for_each(|span| drop(sender.send(span)));
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(accept)).with_state(Arc::new(sender));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, received }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What arrived since it was asked last.
    pub fn spans(&mut self) -> Vec<CollectedSpan> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

impl CollectedSpan {
    /// An attribute that is a text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        text(&self.span.attributes, name)
    }
}

fn spans_of(of_service: ResourceSpans) -> impl Iterator<Item = CollectedSpan> {
    let attributes = of_service.resource.unwrap_or_default().attributes;
    let service = text(&attributes, "service.name").unwrap_or_default().to_owned();
    let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(move |span| CollectedSpan { service: service.clone(), span })
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match &attributes.iter().find(|attribute| attribute.key == name)?.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text),
        _ => None,
    }
}
