//! What a process counted about itself, from its `/metrics` page.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The samples of one page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads the Prometheus text format.
    ///
    /// # Errors
    /// When a line is neither comment nor sample.
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            Ok((series.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
        };
        Ok(Self { samples: lines.map(sample).collect::<Result<_>>()? })
    }

    /// Sum over the series of `name` that bear all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let matches = |series: &str| {
            let (own_name, own_labels) = series.split_once('{').unwrap_or((series, ""));
            own_name == name && wanted.iter().all(|label| own_labels.contains(label.as_str()))
        };
        let values = self.samples.iter().filter(|(series, _)| matches(series)).map(|(_, value)| *value);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole and not negative"
        )]
        let sum = values.sum::<f64>() as u64;
        sum
    }

    /// Chunk payload that arrived from the parent office, duplicates and rejects included.
    pub fn wan_bytes_received(&self) -> u64 {
        self.sum("peerdist_content_payload_received_bytes_total", &[("link", "wan")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_over_the_labels_that_are_not_asked_for() {
        let page =
            "# HELP a b\na_total{class=\"x\",direction=\"sent\"} 2\na_total{class=\"y\",direction=\"sent\"} 3\nb 1\n";
        let metrics = Metrics::parse(page).unwrap();
        assert_eq!(metrics.sum("a_total", &[("direction", "sent")]), 5);
        assert_eq!(metrics.sum("a_total", &[("direction", "sent"), ("class", "y")]), 3);
        assert_eq!(metrics.sum("b", &[]), 1);
        assert_eq!(metrics.sum("c", &[]), 0);
    }
}
