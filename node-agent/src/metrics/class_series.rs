//! The two series by class and direction, read from [`ClassCounters`] at the moment of a scrape.

use std::sync::Arc;

use peerdist_core::ports::TransferClass;
use prometheus::{
    Opts,
    core::{Collector, Desc, Describer},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{ClassCounters, Direction};

const LABELS: [&str; 2] = ["class", "direction"];

/// A collector without state of its own: no second bookkeeping next to the packet path.
pub(super) struct ClassSeries {
    counters: Arc<ClassCounters>,
    bytes: Desc,
    messages: Desc,
}

impl ClassSeries {
    pub(super) fn new(counters: Arc<ClassCounters>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            counters,
            bytes: describe("peerdist_transfer_bytes_total", "UDP payload bytes, by transfer class and direction.")?,
            messages: describe(
                "peerdist_transfer_messages_total",
                "Messages, broadcasts, chunks and control signals, by transfer class and direction.",
            )?,
        })
    }
}

impl Collector for ClassSeries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.bytes, &self.messages]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![
            family(&self.bytes, |class, direction| self.counters.bytes(class, direction)),
            family(&self.messages, |class, direction| self.counters.messages(class, direction)),
        ]
    }
}

fn describe(name: &str, help: &str) -> Result<Desc, prometheus::Error> {
    Opts::new(name, help).variable_labels(LABELS.map(str::to_owned).to_vec()).describe()
}

fn family(desc: &Desc, value: impl Fn(TransferClass, Direction) -> u64) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(
        TransferClass::ALL
            .iter()
            .flat_map(|&class| Direction::ALL.map(|direction| (class, direction)))
            .map(|(class, direction)| metric([class.as_str(), direction.as_str()], value(class, direction)))
            .collect(),
    );
    family
}

fn metric(values: [&str; 2], value: u64) -> Metric {
    let labels = LABELS.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
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
