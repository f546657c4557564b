//! Export of traces by OTLP over HTTP.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;

/// The endpoint of traces cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "endpoint {endpoint:?}: {source}: expected the base URL of an OTLP/HTTP receiver, for example http://127.0.0.1:4318"
)]
pub struct ExporterError {
    /// The endpoint.
    pub endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

/// Sends spans in batches to `endpoint`/v1/traces, from tasks of the current runtime.
pub(super) fn tracer_provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, ExporterError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|source| ExporterError { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .with_resource(resource)
        .build())
}
