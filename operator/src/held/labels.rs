//! Labels of a node in one text: there are many nodes, and a map with a text for each key and value takes several times
//! the memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Labels, by key. Neither `=` nor the end of a line occurs in a key or a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(Box<str>);

impl Labels {
    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once('='))
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        let ordered: BTreeMap<String, String> = labels.into_iter().collect();
        let mut text = String::with_capacity(ordered.iter().map(|(key, value)| key.len() + value.len() + 2).sum());
        for (key, value) in &ordered {
            text.extend([key.as_str(), "=", value.as_str(), "\n"]);
        }
        Self(text.into_boxed_str())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let labels = Option::<BTreeMap<String, String>>::deserialize(deserializer)?;
        Ok(labels.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_found_again_also_without_a_value() {
        let told = json!({"site": "hub", "node-role.kubernetes.io/control-plane": "", "a": "b"});
        let labels: Labels = serde_json::from_value(told).unwrap();
        assert_eq!(labels.get("site"), Some("hub"));
        assert_eq!(labels.get("node-role.kubernetes.io/control-plane"), Some(""));
        assert_eq!((labels.get("hub"), labels.get("")), (None, None));
        assert_eq!(
            labels.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            ["a", "node-role.kubernetes.io/control-plane", "site"]
        );
        let none: Labels = serde_json::from_value(json!(null)).unwrap();
        assert_eq!((&none, none.iter().count()), (&Labels::default(), 0));
    }
}
