//! Metrics: counters that the data path bumps without locks, and their Prometheus series.

mod class_counters;

pub use class_counters::{ClassCounters, Direction};
