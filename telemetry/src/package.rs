//! Puts spans into the traces of their packages.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use peerdist_core::names::PackageKey;
use peerdist_core::trace::PackageTrace;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::traceparent::context_of;

/// Puts a new span into the trace of its package: below the current span if that is in there, or else below the root
/// and with a link to the current span, which says where it was ordered.
pub fn join_package_trace(span: &Span, package: &PackageKey) {
    // Asked only here, because it begins the current span where anything is traced.
    if !span.is_disabled() {
        join(span, package, Span::current().context());
    }
}

/// The same for the work that another node began, whose `traceparent` came with it.
pub fn join_package_trace_of_sender(span: &Span, package: &PackageKey, traceparent: &str) {
    if !span.is_disabled() {
        join(span, package, context_of(traceparent));
    }
}

fn join(span: &Span, package: &PackageKey, cause: Context) {
    let trace = PackageTrace::of(package);
    let cause_context = cause.span().span_context().clone();
    // An error says that nothing is traced here: then there is nothing to join either.
    if cause_context.trace_id() == TraceId::from_bytes(trace.trace_id) {
        let _ = span.set_parent(cause);
    } else {
        let _ = span.set_parent(root(trace));
        span.add_link(cause_context);
    }
}

fn root(trace: PackageTrace) -> Context {
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id), SpanId::from_bytes(trace.root_span_id));
    let root = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::default());
    Context::new().with_remote_span_context(root)
}
