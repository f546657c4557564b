//! Metrics of the operator: one struct with every series. Labels are closed sets, so that every series exists from the
//! start with the value zero.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::conditions::{ACCEPTED, DISTRIBUTED, INGESTED, PAUSED, READY, STALLED};
use crate::watches::Caches;

/// Bounds of the duration of a reconcile in seconds: from one that finds nothing to do to one that waits for the API.
const DURATION_BUCKETS_SECONDS: [f64; 9] = [0.0005, 0.002, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Values of a condition's status.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];
/// Values of the label `error`, besides what never was.
const ERRORS: [&str; 8] =
    ["Cache", "Conflict", "Forbidden", "Invalid", "NotFound", "ServerError", "TooManyRequests", "Unreachable"];

/// What is reconciled; the value of the label `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An Office.
    Office,
    /// A PackageDistribution.
    PackageDistribution,
    /// A VescEndpoint.
    VescEndpoint,
    /// The label of a node.
    Node,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Office, Self::PackageDistribution, Self::VescEndpoint, Self::Node];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Office => "Office",
            Self::PackageDistribution => "PackageDistribution",
            Self::VescEndpoint => "VescEndpoint",
            Self::Node => "Node",
        }
    }

    fn conditions(self) -> &'static [&'static str] {
        match self {
            Self::Office | Self::VescEndpoint => &[READY, ACCEPTED, STALLED],
            Self::PackageDistribution => &[READY, ACCEPTED, INGESTED, DISTRIBUTED, PAUSED, STALLED],
            Self::Node => &[],
        }
    }
}

/// Every series of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
    objects: IntGaugeVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers every series.
    ///
    /// # Errors
    /// [`prometheus::Error`] when two series share a name, which a test of this module rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let durations =
            HistogramOpts::new("peerdist_operator_reconcile_duration_seconds", "How long a reconcile took.")
                .buckets(DURATION_BUCKETS_SECONDS.to_vec());
        let objects = Opts::new("peerdist_operator_objects", "Objects by condition and its status.");
        let leader = Opts::new("peerdist_operator_leader", "1 while this operator holds the lease and writes.");
        let metrics = Self {
            reconciles: counters("peerdist_operator_reconciles_total", "Reconciles that were begun.", &["kind"])?,
            errors: counters(
                "peerdist_operator_reconcile_errors_total",
                "Reconciles that failed.",
                &["kind", "error"],
            )?,
            durations: registered(&registry, HistogramVec::new(durations, &["kind"])?)?,
            objects: registered(&registry, IntGaugeVec::new(objects, &["kind", "condition", "status"])?)?,
            leader: registered(&registry, IntGauge::with_opts(leader)?)?,
            registry,
        };
        metrics.initialise_labels();
        Ok(metrics)
    }

    /// Notes a reconcile and how it ended.
    pub fn reconciled(&self, kind: Kind, seconds: f64, error: Option<&'static str>) {
        self.reconciles.with_label_values(&[kind.as_str()]).inc();
        self.durations.with_label_values(&[kind.as_str()]).observe(seconds);
        if let Some(error) = error {
            self.errors.with_label_values(&[kind.as_str(), error]).inc();
        }
    }

    /// Says whether this operator writes.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Counts objects anew.
    pub fn count_objects(&self, caches: &Caches) {
        let offices = caches.offices.state();
        let conditions = offices.iter().filter_map(|office| office.status.as_ref().map(|status| &status.conditions));
        self.count(Kind::Office, conditions);
        let packages = caches.packages.state();
        let conditions = packages.iter().filter_map(|package| package.status.as_ref().map(|status| &status.conditions));
        self.count(Kind::PackageDistribution, conditions);
        let vescs = caches.vescs.state();
        let conditions = vescs.iter().filter_map(|vesc| vesc.status.as_ref().map(|status| &status.conditions));
        self.count(Kind::VescEndpoint, conditions);
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// [`prometheus::Error`] when a metric cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn count<'objects>(&self, kind: Kind, objects: impl Iterator<Item = &'objects Vec<Condition>> + Clone) {
        for condition in kind.conditions() {
            for status in STATUSES {
                let has = |conditions: &&Vec<Condition>| {
                    conditions.iter().any(|found| found.type_ == *condition && found.status == status)
                };
                let count = i64::try_from(objects.clone().filter(has).count()).unwrap_or(i64::MAX);
                self.objects.with_label_values(&[kind.as_str(), condition, status]).set(count);
            }
        }
    }

    fn initialise_labels(&self) {
        for kind in Kind::ALL {
            self.reconciles.with_label_values(&[kind.as_str()]);
            self.durations.with_label_values(&[kind.as_str()]);
            for error in ERRORS {
                self.errors.with_label_values(&[kind.as_str(), error]);
            }
            self.count(kind, std::iter::empty());
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Finding, merge};

    #[test]
    fn every_series_exists_with_zero_from_the_start() {
        let text = Metrics::new().unwrap().render().unwrap();
        for expected in [
            "peerdist_operator_reconciles_total{kind=\"Office\"} 0",
            "peerdist_operator_reconcile_errors_total{error=\"Conflict\",kind=\"Node\"} 0",
            "peerdist_operator_reconcile_duration_seconds_count{kind=\"VescEndpoint\"} 0",
            "peerdist_operator_objects{condition=\"Ingested\",kind=\"PackageDistribution\",status=\"Unknown\"} 0",
            "peerdist_operator_leader 0",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn objects_are_counted_by_condition() {
        let metrics = Metrics::new().unwrap();
        let ready = merge(&[], &[Finding::yes(READY, "A", "")], Some(1), Default::default());
        let not = merge(&[], &[Finding::no(READY, "B", "")], Some(1), Default::default());
        metrics.count(Kind::Office, [&ready, &ready, &not].into_iter());
        let text = metrics.render().unwrap();
        assert!(text.contains("objects{condition=\"Ready\",kind=\"Office\",status=\"True\"} 2"), "{text}");
        metrics.count(Kind::Office, [&not].into_iter());
        assert!(metrics.render().unwrap().contains("objects{condition=\"Ready\",kind=\"Office\",status=\"True\"} 0"));
    }
}
