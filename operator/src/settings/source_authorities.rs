//! Authorities that may vouch for sources besides the public ones, as the settings name them: one key of a ConfigMap beside
//! the operator. Kubelet brings it to the server's pod; the operator itself never reads it.

use serde::Deserialize;

use super::is_object_name;

/// Longest key of a ConfigMap.
const KEY_BYTES_MAX: usize = 253;

/// Where the certificates are.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceAuthorities {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// Its key with certificates as PEM.
    #[serde(default = "usual_key")]
    pub key: String,
}

impl SourceAuthorities {
    /// Checks name and key.
    ///
    /// # Errors
    /// The field, what was found, and what was expected.
    pub(super) fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        let Self { config_map, key } = self;
        if !is_object_name(config_map) {
            let field = "server.sourceAuthorities.configMap";
            return Err((field, format!("{config_map:?}"), "the name of a ConfigMap"));
        }
        if !is_key(key) {
            let field = "server.sourceAuthorities.key";
            return Err((field, format!("{key:?}"), "a key of a ConfigMap such as ca.crt"));
        }
        Ok(())
    }
}

/// What most programs that write such ConfigMaps call it.
fn usual_key() -> String {
    "ca.crt".to_owned()
}

/// As the API server sees it: a key becomes the name of a file.
fn is_key(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(allowed) && key != "." && !key.starts_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorities(config_map: &str, key: &str) -> SourceAuthorities {
        SourceAuthorities { config_map: config_map.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn the_key_is_the_usual_one_unless_another_is_named() {
        let parsed = |text| serde_saphyr::from_str::<SourceAuthorities>(text).unwrap();
        assert_eq!(parsed("configMap: company-roots"), authorities("company-roots", "ca.crt"));
        assert_eq!(parsed("{configMap: a.b, key: ca-bundle.crt}"), authorities("a.b", "ca-bundle.crt"));
    }

    #[test]
    fn what_is_no_name_or_no_key_is_refused_with_its_field() {
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        for (config_map, key, expected) in [
            ("company-roots", "ca.crt", None),
            ("company.roots-2", ".hidden_Key", None),
            ("", "ca.crt", Some("server.sourceAuthorities.configMap")),
            ("Company", "ca.crt", Some("server.sourceAuthorities.configMap")),
            ("a/b", "ca.crt", Some("server.sourceAuthorities.configMap")),
            ("a", "", Some("server.sourceAuthorities.key")),
            ("a", ".", Some("server.sourceAuthorities.key")),
            ("a", "..data", Some("server.sourceAuthorities.key")),
            ("a", "b/c", Some("server.sourceAuthorities.key")),
            ("a", long.as_str(), Some("server.sourceAuthorities.key")),
        ] {
            let refused = authorities(config_map, key).check().err().map(|(field, ..)| field);
            assert_eq!(refused, expected, "{config_map:?} {key:?}");
        }
    }
}
