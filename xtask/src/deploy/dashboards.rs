//! The dashboards: every query is one that Prometheus understands, about series that exist; a running Prometheus can be
//! asked all of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tools::Tools;
use super::{render, series};
use crate::step::output;
use crate::{step, tree};

/// What Grafana puts in place of its variables, as far as it matters here.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "1m"),
    ("$__range", "1h"),
    ("$office", ".*"),
    ("$class", ".*"),
    ("$component", ".*"),
    ("$kind", ".*"),
];

/// A query of a panel.
struct Query {
    /// File and panel.
    place: String,
    /// With the variables replaced.
    expression: String,
}

/// Parses every query, and looks up its series.
pub(super) fn check(root: &Path, tools: &Tools) -> Result<()> {
    let (queries, registered) = (queries(root)?, series::registered(root)?);
    for Query { place, expression } in &queries {
        if let Some(name) = series::unknown(expression, &registered).first() {
            bail!("{place}: no program registers the series {name}");
        }
        if expression.contains('$') {
            bail!("{place}: a variable that nothing replaces is left in {expression}");
        }
    }
    // JSON is YAML: each query becomes a recording rule, which promtool parses.
    let rules = queries.iter().enumerate().map(
        |(index, query)| serde_json::json!({"record": format!("dashboard:query:{index}"), "expr": query.expression}),
    );
    let group = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules.collect::<Vec<_>>()}]});
    let file = tools.folder.join("dashboard-queries.yaml");
    fs::write(&file, group.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    step::run(root, &tools.promtool.to_string_lossy(), &["check", "rules", &file.to_string_lossy()])
}

/// Asks a Prometheus every query. Empty may be only what counts trouble: a query that ends with `> 0`.
pub(super) fn ask(root: &Path, tools: &Tools, url: &str) -> Result<()> {
    let queries = queries(root)?;
    let mut empty = Vec::new();
    for Query { place, expression } in &queries {
        let arguments = ["query", "instant", url, expression].map(str::to_owned);
        let answer = output(root, &tools.promtool, &arguments).with_context(|| place.clone())?;
        let healthy = expression.trim_end_matches(')').ends_with("> 0");
        if answer.trim().is_empty() && !healthy {
            empty.push(format!("{place}: {expression}"));
        }
    }
    if !empty.is_empty() {
        bail!("{} of {} queries found nothing at {url}:\n{}", empty.len(), queries.len(), empty.join("\n"));
    }
    println!("{} queries of the dashboards answered by {url}", queries.len());
    Ok(())
}

fn queries(root: &Path) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for path in tree::files(&root.join(render::CHART).join("files/dashboards"), &["json"])? {
        let name = tree::relative(root, &path).to_string();
        let board: Value = serde_json::from_str(&tree::read(&path)?).with_context(|| name.clone())?;
        for panel in board["panels"].as_array().into_iter().flatten() {
            let place = format!("{name}: {}", panel["title"].as_str().unwrap_or("a panel without title"));
            for target in panel["targets"].as_array().into_iter().flatten() {
                let Some(expression) = target["expr"].as_str() else { bail!("{place}: a target without expr") };
                queries.push(Query { place: place.clone(), expression: replaced(expression) });
            }
        }
    }
    Ok(queries)
}

fn replaced(expression: &str) -> String {
    VARIABLES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_what_prometheus_understands() {
        let expression = "rate(a{office=~\"$office\"}[$__rate_interval])";
        assert_eq!(replaced(expression), "rate(a{office=~\".*\"}[1m])");
    }
}
