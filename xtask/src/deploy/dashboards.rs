//! The dashboards: every query, and whatever a variable offers to choose from, is one that Prometheus understands, about
//! series that exist; a running Prometheus can be asked all of them.

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
    ("$__rate_interval", "5m"),
    ("$__range", "1h"),
    ("$office", ".*"),
    ("$class", ".*"),
    ("$component", ".*"),
    ("$kind", ".*"),
];

/// How promtool prints a sample without a number, which no panel shows.
const NO_NUMBER: &str = " => NaN @";

/// A query of a panel, or of what a variable offers.
struct Query {
    /// File, and panel or variable.
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

/// Asks a Prometheus every query: none may find nothing.
pub(super) fn ask(root: &Path, promtool: &Path, url: &str) -> Result<()> {
    let queries = queries(root)?;
    let mut empty = Vec::new();
    for Query { place, expression } in &queries {
        let asked = without_threshold(expression);
        let arguments = ["query", "instant", url, &asked].map(str::to_owned);
        let answer = output(root, promtool, &arguments).with_context(|| place.clone())?;
        if !has_number(&answer) {
            empty.push(format!("{place}: {asked}"));
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
        queries.extend(of_variables(&name, &board)?);
        queries.extend(of_panels(&name, &board)?);
    }
    Ok(queries)
}

fn of_panels(file: &str, board: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for panel in list(&board["panels"]) {
        let place = format!("{file}: {}", panel["title"].as_str().unwrap_or("a panel without title"));
        for target in list(&panel["targets"]) {
            let Some(expression) = target["expr"].as_str() else { bail!("{place}: a target without expr") };
            queries.push(Query { place: place.clone(), expression: replaced(expression) });
        }
    }
    Ok(queries)
}

fn of_variables(file: &str, board: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for variable in list(&board["templating"]["list"]).filter(|variable| variable["type"] == "query") {
        let place = format!("{file}: the variable {}", variable["name"].as_str().unwrap_or("without name"));
        let Some(query) = variable["query"]["query"].as_str() else { bail!("{place}: no query.query") };
        let Some(expression) = values_of(&replaced(query)) else {
            bail!("{place}: {query}: expected label_values(SERIES, LABEL)");
        };
        queries.push(Query { place, expression });
    }
    Ok(queries)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The query that finds what `label_values(SERIES, LABEL)` offers: how many series bear each value of the label. Series
/// without it would be counted under no value, so that this sample is taken away.
fn values_of(query: &str) -> Option<String> {
    let (selector, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(',')?;
    let (selector, label) = (selector.trim(), label.trim());
    let is_both = !selector.is_empty() && !label.is_empty() && label.chars().all(series::of_name);
    is_both.then(|| format!("count by ({label}) ({selector}) unless on ({label}) count({selector})"))
}

fn replaced(expression: &str) -> String {
    VARIABLES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// A query that ends with `> 0` shows trouble, and finds none where all is well: then what it counts is asked for.
fn without_threshold(expression: &str) -> String {
    let compared = expression.trim_end_matches(')');
    let closed = &expression[compared.len()..];
    compared.strip_suffix(" > 0").map_or_else(|| expression.to_owned(), |counted| format!("{counted}{closed}"))
}

/// Whether promtool printed a sample with a number. Shares and quantiles of what did not happen have none.
fn has_number(answer: &str) -> bool {
    answer.lines().any(|line| !line.trim().is_empty() && !line.contains(NO_NUMBER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_what_prometheus_understands() {
        let expression = "rate(a{office=~\"$office\"}[$__rate_interval])";
        assert_eq!(replaced(expression), "rate(a{office=~\".*\"}[5m])");
    }

    #[test]
    fn values_of_a_variable_are_counted_where_there_are_any() {
        let board = serde_json::json!({"templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "office", "type": "query", "query": {"query": "label_values(up{a=\"b\", c=\"d\"}, office)"}},
        ]}});
        let queries = of_variables("f", &board).unwrap();
        assert_eq!(queries.len(), 1);
        assert_eq!(queries[0].place, "f: the variable office");
        let expected = "count by (office) (up{a=\"b\", c=\"d\"}) unless on (office) count(up{a=\"b\", c=\"d\"})";
        assert_eq!(queries[0].expression, expected);
    }

    #[test]
    fn variable_without_series_or_label_is_refused() {
        for query in ["label_values(office)", "label_values(up{a=\"b\", c=\"d\"})", "label_values(, a)", "up"] {
            assert_eq!(values_of(query), None, "{query}");
            let variable = serde_json::json!({"name": "a", "type": "query", "query": {"query": query}});
            let board = serde_json::json!({"templating": {"list": [variable]}});
            assert!(of_variables("f", &board).is_err(), "{query}");
        }
    }

    #[test]
    fn only_a_threshold_at_the_end_is_left_out() {
        for (expression, asked) in [
            ("sum(a) > 0", "sum(a)"),
            ("topk(20, sum(a) > 0)", "topk(20, sum(a))"),
            ("sum(a)", "sum(a)"),
            ("(a > 0) / b", "(a > 0) / b"),
            ("a > 0.5", "a > 0.5"),
        ] {
            assert_eq!(without_threshold(expression), asked);
        }
    }

    #[test]
    fn an_answer_without_any_number_is_none() {
        assert!(has_number("{a=\"b\"} => NaN @[1]\n{a=\"c\"} => 0 @[1]\n"));
        assert!(!has_number("{a=\"b\"} => NaN @[1]\n"));
        assert!(!has_number("\n"));
        assert!(!has_number(""));
    }
}
