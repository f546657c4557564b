//! Which nodes of a cluster belong to an office: by their labels or by their addresses. Finding the nodes is the
//! operator's business.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OfficeSpec;
use crate::FieldError;

/// Most labels of a selector.
const MATCH_LABELS_MAX: usize = 32;
/// Most subnets of an office.
const SUBNETS_MAX: usize = 64;
/// Longest name part of a label's key, and longest value.
const LABEL_BYTES_MAX: usize = 63;
/// Longest prefix of a label's key.
const LABEL_PREFIX_BYTES_MAX: usize = 253;

/// Selects nodes by their labels.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels that a node must have, with these values; at least one.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
}

/// The nodes of an office, as rules that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSelection {
    /// Nodes with all of these labels, at least one.
    Labels(BTreeMap<String, String>),
    /// Nodes whose InternalIP lies in one of these subnets, at least one.
    Subnets(Vec<IpNet>),
}

/// Reads the rules of an office. `None`: it has none, as in embedded mode.
///
/// # Errors
/// Every field that cannot be used.
pub fn node_selection(spec: &OfficeSpec) -> Result<Option<NodeSelection>, Vec<FieldError>> {
    match (&spec.node_selector, &spec.subnets) {
        (None, None) => Ok(None),
        (Some(selector), None) => checked_labels(&selector.match_labels).map(NodeSelection::Labels).map(Some),
        (None, Some(subnets)) => parsed_subnets(subnets).map(NodeSelection::Subnets).map(Some),
        (Some(_), Some(_)) => {
            let message = "spec.nodeSelector is there too: expected one of the two; remove the other";
            Err(vec![FieldError::new("spec.subnets", "TwoNodeSelections", message)])
        }
    }
}

fn checked_labels(labels: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Vec<FieldError>> {
    const FIELD: &str = "spec.nodeSelector.matchLabels";
    if labels.is_empty() || labels.len() > MATCH_LABELS_MAX {
        let message = format!("there are {} labels: expected 1 to {MATCH_LABELS_MAX}; correct them", labels.len());
        return Err(vec![FieldError::new(FIELD, "OutOfRange", message)]);
    }
    let bad = labels.iter().filter(|(key, value)| !is_label_key(key) || !is_label_value(value));
    let refused = bad.map(|(key, value)| {
        let shown: String = format!("{key}={value}").chars().take(80).collect();
        let message = format!(
            "{shown:?} is no label that a node can have: expected letters, digits, '-', '_' and '.', at most \
             {LABEL_BYTES_MAX}; correct it"
        );
        FieldError::new(FIELD, "InvalidLabel", message)
    });
    let refused: Vec<FieldError> = refused.collect();
    if refused.is_empty() { Ok(labels.clone()) } else { Err(refused) }
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_label_prefix)
}

fn is_label_prefix(prefix: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let ends = part.as_bytes().first().zip(part.as_bytes().last());
        ends.is_some_and(|(first, last)| inner(*first) && inner(*last))
            && part.bytes().all(|byte| inner(byte) || byte == b'-')
    };
    prefix.len() <= LABEL_PREFIX_BYTES_MAX && prefix.split('.').all(is_part)
}

fn is_label_value(value: &str) -> bool {
    let Some((first, last)) = value.as_bytes().first().zip(value.as_bytes().last()) else { return true };
    value.len() <= LABEL_BYTES_MAX
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn parsed_subnets(texts: &[String]) -> Result<Vec<IpNet>, Vec<FieldError>> {
    if texts.is_empty() || texts.len() > SUBNETS_MAX {
        let message = format!("there are {} subnets: expected 1 to {SUBNETS_MAX}; correct them", texts.len());
        return Err(vec![FieldError::new("spec.subnets", "OutOfRange", message)]);
    }
    let (mut subnets, mut errors) = (Vec::new(), Vec::new());
    for (index, text) in texts.iter().enumerate() {
        match parsed_subnet(text) {
            Ok(subnet) => subnets.push(subnet),
            Err(message) => {
                errors.push(FieldError::new(format!("spec.subnets[{index}]"), "InvalidSubnet", message));
            }
        }
    }
    if errors.is_empty() { Ok(subnets) } else { Err(errors) }
}

fn parsed_subnet(text: &str) -> Result<IpNet, String> {
    let shown: String = text.chars().take(80).collect();
    let subnet: IpNet =
        text.parse().map_err(|_| format!("{shown:?} is no subnet: expected one such as 10.42.0.0/24; correct it"))?;
    if subnet.trunc() != subnet {
        return Err(format!("{shown} has bits beyond its prefix: expected {}; correct it", subnet.trunc()));
    }
    Ok(subnet)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selection(spec: Value) -> Result<Option<NodeSelection>, Vec<(String, &'static str)>> {
        let spec: OfficeSpec = serde_json::from_value(spec).unwrap();
        node_selection(&spec).map_err(|errors| errors.into_iter().map(|error| (error.field, error.reason)).collect())
    }

    #[test]
    fn nodes_are_selected_by_labels_or_by_subnets_or_not_at_all() {
        assert_eq!(selection(json!({})), Ok(None));
        let labels = json!({"nodeSelector": {"matchLabels": {"example.com/site": "hq"}}});
        let expected = BTreeMap::from([("example.com/site".to_owned(), "hq".to_owned())]);
        assert_eq!(selection(labels), Ok(Some(NodeSelection::Labels(expected))));
        let subnets = json!({"subnets": ["10.42.0.0/24", "fd00::/64"]});
        let expected = vec!["10.42.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        assert_eq!(selection(subnets), Ok(Some(NodeSelection::Subnets(expected))));
    }

    #[test]
    fn bad_selections_are_refused_with_field_and_reason() {
        let labels = "spec.nodeSelector.matchLabels";
        for (spec, field, reason) in [
            (json!({"nodeSelector": {"matchLabels": {}}}), labels, "OutOfRange"),
            (json!({"nodeSelector": {"matchLabels": {"a b": "c"}}}), labels, "InvalidLabel"),
            (json!({"nodeSelector": {"matchLabels": {"UPPER.example/a": "c"}}}), labels, "InvalidLabel"),
            (json!({"nodeSelector": {"matchLabels": {"/a": "c"}}}), labels, "InvalidLabel"),
            (json!({"nodeSelector": {"matchLabels": {"a": "-c"}}}), labels, "InvalidLabel"),
            (json!({"nodeSelector": {"matchLabels": {"a": "c".repeat(64)}}}), labels, "InvalidLabel"),
            (json!({"subnets": []}), "spec.subnets", "OutOfRange"),
            (json!({"subnets": ["10.42.0.1/24"]}), "spec.subnets[0]", "InvalidSubnet"),
            (json!({"subnets": ["10.0.0.0/8", "10.42.0.0"]}), "spec.subnets[1]", "InvalidSubnet"),
            (json!({"subnets": ["10.42.0.0/33"]}), "spec.subnets[0]", "InvalidSubnet"),
            (
                json!({"subnets": ["10.0.0.0/8"], "nodeSelector": {"matchLabels": {"a": "b"}}}),
                "spec.subnets",
                "TwoNodeSelections",
            ),
        ] {
            assert_eq!(selection(spec.clone()), Err(vec![(field.to_owned(), reason)]), "{spec}");
        }
    }
}
