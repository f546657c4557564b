//! Which series exist: those that the programs register. A query about another one would be empty for ever, and nobody
//! would notice.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::tree;

/// What all our series begin with.
const PREFIX: &str = "peerdist_";
/// Where they are registered.
const REGISTERED_IN: [&str; 3] =
    ["node-agent/src/metrics.rs", "node-agent/src/metrics/class_series.rs", "operator/src/metrics.rs"];
/// What Prometheus appends to the name of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_count", "_sum"];

/// Names of all series that the programs register.
pub(super) fn registered(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in REGISTERED_IN {
        let text = tree::read(&root.join(file))?;
        let literals = text.split('"').filter(|literal| literal.starts_with(PREFIX));
        names.extend(literals.filter(|literal| literal.chars().all(of_name)).map(str::to_owned));
    }
    Ok(names)
}

/// Names of ours in an expression that are not registered.
pub(super) fn unknown(expression: &str, registered: &BTreeSet<String>) -> Vec<String> {
    let words = expression.split(|letter| !of_name(letter)).filter(|word| word.starts_with(PREFIX));
    words.filter(|word| !is_registered(word, registered)).map(str::to_owned).collect()
}

fn is_registered(name: &str, registered: &BTreeSet<String>) -> bool {
    let base = OF_HISTOGRAMS.iter().find_map(|suffix| name.strip_suffix(suffix));
    registered.contains(name) || base.is_some_and(|base| registered.contains(base))
}

/// Whether a letter can be in the name of a series or label.
pub(super) fn of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_nobody_registers_is_found() {
        let registered = BTreeSet::from(["peerdist_delay_seconds".to_owned(), "peerdist_bytes_total".to_owned()]);
        let expression =
            "rate(peerdist_delay_seconds_bucket{le=\"1\"}[5m]) / peerdist_bytes_total + peerdist_bites_total";
        assert_eq!(unknown(expression, &registered), ["peerdist_bites_total"]);
    }
}
