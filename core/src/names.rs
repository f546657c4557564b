//! Validated names of nodes, offices and packages. Everything that arrives from a file or the network
//! becomes one of these types at the edge, or an error that says what was expected.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of a node, office, namespace or package in bytes (DNS label rules of Kubernetes objects).
pub const NAME_BYTES_MAX: usize = 253;
/// Longest version string in bytes (DESIGN: `[A-Za-z0-9][A-Za-z0-9._+-]{0,62}`).
pub const VERSION_BYTES_MAX: usize = 63;

/// A name that does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: expected {expected}")]
pub struct NameError {
    /// What was being named.
    pub kind: &'static str,
    /// The refused text, cut to a printable length.
    pub value: String,
    /// The rule in words.
    pub expected: &'static str,
}

impl NameError {
    fn new(kind: &'static str, value: &str, expected: &'static str) -> Self {
        Self { kind, value: value.chars().take(80).collect(), expected }
    }
}

fn is_object_name(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= NAME_BYTES_MAX
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1])
        && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'-' || byte == b'.')
        && !text.contains("..")
}

fn is_version(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= VERSION_BYTES_MAX
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
        && text != "current"
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// [`NameError`] with the rule when the text does not follow it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $check(text) { Ok(Self(text.into())) } else { Err(NameError::new($kind, text, $expected)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
    };
}

name_type!(
    /// Name of a node: the Kubernetes node name, or `<office>-<n>` in embedded mode.
    NodeName, "node name", is_object_name,
    "lower-case letters, digits, '-' and '.', at most 253, starting and ending with a letter or digit"
);
name_type!(
    /// Name of an office: the name of its `Office` object.
    OfficeName, "office name", is_object_name,
    "lower-case letters, digits, '-' and '.', at most 253, starting and ending with a letter or digit"
);
name_type!(
    /// Namespace of a package.
    Namespace, "namespace", is_object_name,
    "lower-case letters, digits, '-' and '.', at most 253, starting and ending with a letter or digit"
);
name_type!(
    /// Name of a package: the name of its `PackageDistribution` object.
    PackageName, "package name", is_object_name,
    "lower-case letters, digits, '-' and '.', at most 253, starting and ending with a letter or digit"
);
name_type!(
    /// Name of a `Secret` object in the namespace of a package.
    SecretName, "secret name", is_object_name,
    "lower-case letters, digits, '-' and '.', at most 253, starting and ending with a letter or digit"
);
name_type!(
    /// Version of a package.
    Version, "version", is_version,
    "1 to 63 letters, digits, '.', '_', '+' and '-', starting with a letter or digit, and not the word current"
);

/// The distribution a package belongs to: one `PackageDistribution` object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DistributionKey {
    /// Namespace of the object.
    pub namespace: Namespace,
    /// Name of the object.
    pub name: PackageName,
}

impl fmt::Display for DistributionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// One version of one distribution. Its content is named by the digest of the signed manifest root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageKey {
    /// The distribution.
    pub distribution: DistributionKey,
    /// The version.
    pub version: Version,
}

impl fmt::Display for PackageKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.distribution, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_object_rules() {
        assert!(NodeName::new("store-0042-3").is_ok());
        for bad in ["", "-a", "a-", "A", "a/b", "a..b", "ä", &"a".repeat(254)] {
            assert!(OfficeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_cannot_leave_their_folder() {
        for good in ["7.4.1", "1", "v1+build_2-rc"] {
            assert!(Version::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "current", "-x", &"1".repeat(64)] {
            assert!(Version::new(bad).is_err(), "{bad}");
        }
    }
}
