//! Metrics: one struct with every series of a node, and the counters that the data path bumps without locks.
//!
//! Labels are closed enums, so that every combination exists from the start with the value zero: an alert can
//! tell "never happened" from "not measured". Nothing here knows HTTP; `http` serves [`Metrics::render`].

mod class_counters;
mod class_series;
mod labels;

use std::sync::Arc;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

pub use class_counters::{ClassCounters, Direction};
pub use labels::{ChunkRejection, ContentLink, ContentSource, PackageState, TransferErrorReason};

/// Bounds of the queueing delay histogram in seconds: from less than a LAN's round trip to a badly bloated buffer.
const QUEUE_DELAY_BUCKETS_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Every series of one role on one node. Cheap to share behind an [`Arc`]; all methods take `&self`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    class_counters: Arc<ClassCounters>,
    content_bytes: IntCounterVec,
    content_payload_received: IntCounterVec,
    chunks_rejected: IntCounterVec,
    packages: IntGaugeVec,
    background_queue_delay: Histogram,
}

impl Metrics {
    /// Registers every series over the given packet counters.
    ///
    /// # Errors
    /// [`prometheus::Error`] when two series share a name, which a test of this module rules out.
    pub fn new(class_counters: Arc<ClassCounters>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(class_series::ClassSeries::new(Arc::clone(&class_counters))?))?;
        let metrics = Self {
            content_bytes: counters(
                &registry,
                "peerdist_content_bytes_total",
                "Package bytes that were verified and were not here before, by where they came from.",
                &["source"],
            )?,
            content_payload_received: counters(
                &registry,
                "peerdist_content_payload_received_bytes_total",
                "Chunk payload bytes on arrival, duplicates and rejects included, by link.",
                &["link"],
            )?,
            chunks_rejected: counters(
                &registry,
                "peerdist_chunks_rejected_total",
                "Chunks that arrived and were thrown away, by reason.",
                &["reason"],
            )?,
            packages: package_gauges(&registry)?,
            background_queue_delay: queue_delay_histogram(&registry)?,
            class_counters,
            registry,
        };
        metrics.initialise_labels();
        Ok(metrics)
    }

    /// The counters of the packet path, also shown by this struct's series.
    pub fn class_counters(&self) -> &Arc<ClassCounters> {
        &self.class_counters
    }

    /// Verified package bytes from a source.
    pub fn content_bytes(&self, source: ContentSource) -> IntCounter {
        self.content_bytes.with_label_values(&[source.as_str()])
    }

    /// Chunk payload bytes that arrived over a link, whether they were of use or not.
    pub fn content_payload_received(&self, link: ContentLink) -> IntCounter {
        self.content_payload_received.with_label_values(&[link.as_str()])
    }

    /// Chunks thrown away for a reason.
    pub fn chunks_rejected(&self, reason: ChunkRejection) -> IntCounter {
        self.chunks_rejected.with_label_values(&[reason.as_str()])
    }

    /// How many packages are in a state now.
    pub fn packages(&self, state: PackageState) -> IntGauge {
        self.packages.with_label_values(&[state.as_str()])
    }

    /// Queueing delay that the Background Protocol measured on its paths.
    pub fn background_queue_delay_seconds(&self) -> &Histogram {
        &self.background_queue_delay
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// [`prometheus::Error`] when a metric cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn initialise_labels(&self) {
        ContentSource::ALL.iter().for_each(|&source| drop(self.content_bytes(source)));
        ContentLink::ALL.iter().for_each(|&link| drop(self.content_payload_received(link)));
        ChunkRejection::ALL.iter().for_each(|&reason| drop(self.chunks_rejected(reason)));
        PackageState::ALL.iter().for_each(|&state| drop(self.packages(state)));
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn package_gauges(registry: &Registry) -> Result<IntGaugeVec, prometheus::Error> {
    let options = Opts::new("peerdist_packages", "Packages on this node, by state.");
    registered(registry, IntGaugeVec::new(options, &["state"])?)
}

fn queue_delay_histogram(registry: &Registry) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(
        "peerdist_background_queue_delay_seconds",
        "Queueing delay that background transfers measured on their paths.",
    )
    .buckets(QUEUE_DELAY_BUCKETS_SECONDS.to_vec());
    registered(registry, Histogram::with_opts(options)?)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use peerdist_core::ports::TransferClass;

    use super::*;

    #[test]
    fn every_series_exists_with_zero_from_the_start() {
        let text = Metrics::new(Arc::default()).unwrap().render().unwrap();
        for expected in [
            "peerdist_transfer_bytes_total{class=\"small_message\",direction=\"sent\"} 0",
            "peerdist_transfer_messages_total{class=\"vesc_message\",direction=\"received\"} 0",
            "peerdist_transfer_errors_total{class=\"broadcast\",reason=\"malformed\"} 0",
            "peerdist_content_bytes_total{source=\"origin\"} 0",
            "peerdist_content_payload_received_bytes_total{link=\"wan\"} 0",
            "peerdist_chunks_rejected_total{reason=\"digest_mismatch\"} 0",
            "peerdist_packages{state=\"complete\"} 0",
            "peerdist_background_queue_delay_seconds_count 0",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        let class_series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!(class_series("peerdist_transfer_bytes_total"), 16);
        assert_eq!(class_series("peerdist_transfer_messages_total"), 16);
        assert_eq!(class_series("peerdist_transfer_errors_total"), 8 * TransferErrorReason::ALL.len());
    }

    #[test]
    fn packet_counters_show_without_being_copied() {
        let metrics = Metrics::new(Arc::default()).unwrap();
        metrics.class_counters().add_bytes(TransferClass::BackgroundContent, Direction::Received, 1200);
        metrics.class_counters().add_message(TransferClass::BackgroundContent, Direction::Received);
        metrics.class_counters().add_error(TransferClass::Broadcast, TransferErrorReason::Malformed);
        let text = metrics.render().unwrap();
        let labels = "{class=\"background_content\",direction=\"received\"}";
        assert!(text.contains(&format!("peerdist_transfer_bytes_total{labels} 1200")), "{text}");
        assert!(text.contains(&format!("peerdist_transfer_messages_total{labels} 1")), "{text}");
        let labels = "{class=\"broadcast\",reason=\"malformed\"}";
        assert!(text.contains(&format!("peerdist_transfer_errors_total{labels} 1")), "{text}");
    }
}
