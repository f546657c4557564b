//! The series by transfer class, read from [`ClassCounters`] at the moment of a scrape.

use std::sync::Arc;

use peerdist_core::ports::TransferClass;
use prometheus::{
    Opts,
    core::{Collector, Desc, Describer},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{ClassCounters, Direction, TransferErrorReason};

const BY_DIRECTION: [&str; 2] = ["class", "direction"];
const BY_REASON: [&str; 2] = ["class", "reason"];

/// A collector without state of its own: no second bookkeeping next to the packet path.
pub(super) struct ClassSeries {
    counters: Arc<ClassCounters>,
    bytes: Desc,
    messages: Desc,
    errors: Desc,
}

impl ClassSeries {
    pub(super) fn new(counters: Arc<ClassCounters>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            counters,
            bytes: describe(
                "peerdist_transfer_bytes_total",
                "UDP payload bytes, by transfer class and direction.",
                BY_DIRECTION,
            )?,
            messages: describe(
                "peerdist_transfer_messages_total",
                "Messages, broadcasts, chunks and control signals, by transfer class and direction.",
                BY_DIRECTION,
            )?,
            errors: describe(
                "peerdist_transfer_errors_total",
                "Transfers and messages that failed, by transfer class and reason.",
                BY_REASON,
            )?,
        })
    }
}

impl Collector for ClassSeries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.bytes, &self.messages, &self.errors]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counters = &self.counters;
        let directions = Direction::ALL.map(|direction| (direction, direction.as_str()));
        let reasons = TransferErrorReason::ALL.map(|reason| (reason, reason.as_str()));
        vec![
            family(&self.bytes, BY_DIRECTION, &directions, |class, direction| counters.bytes(class, direction)),
            family(&self.messages, BY_DIRECTION, &directions, |class, direction| counters.messages(class, direction)),
            family(&self.errors, BY_REASON, &reasons, |class, reason| counters.errors(class, reason)),
        ]
    }
}

fn describe(name: &str, help: &str, labels: [&str; 2]) -> Result<Desc, prometheus::Error> {
    Opts::new(name, help).variable_labels(labels.map(str::to_owned).to_vec()).describe()
}

/// A series for each class and each value of the second label.
fn family<Label: Copy>(
    desc: &Desc,
    names: [&str; 2],
    labels: &[(Label, &str)],
    value: impl Fn(TransferClass, Label) -> u64,
) -> MetricFamily {
    let of_class = |class: TransferClass| labels.iter().map(move |&(label, text)| (class, label, text));
    let series = TransferClass::ALL.iter().copied().flat_map(of_class);
    let metrics = series.map(|(class, label, text)| metric(names, [class.as_str(), text], value(class, label)));
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics.collect());
    family
}

fn metric(names: [&str; 2], values: [&str; 2], value: u64) -> Metric {
    let labels = names.into_iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}
