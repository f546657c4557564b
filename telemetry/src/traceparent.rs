//! The W3C trace context that messages and transfers carry from node to node.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const FIELD: &str = "traceparent";

/// The current span as a `traceparent`, for a message that is about to go out. Empty while nothing is traced.
pub fn current_traceparent() -> String {
    let mut fields = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut fields);
    fields.remove(FIELD).unwrap_or_default()
}

/// Makes the span a child of the sender's. A text that is no trace context, or none, leaves the span a root.
pub fn with_parent(span: &Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    // An error says that nothing is traced here: then there is nothing to link either.
    let _ = span.set_parent(context_of(traceparent));
}

/// What a sender said. Whatever is no trace context is none.
pub(crate) fn context_of(traceparent: &str) -> Context {
    if traceparent.is_empty() {
        return Context::new();
    }
    let fields = HashMap::from([(FIELD.to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract(&fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_and_nothing_fails_while_nothing_is_traced() {
        assert_eq!(current_traceparent(), "");
        let span = tracing::info_span!("answer");
        for text in ["", "garbage", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &"0".repeat(10_000)] {
            with_parent(&span, text);
        }
    }
}
