//! What a source's URI means in a manifest directory, which is trusted: `${NAME}` in a `file:` URI stands for an
//! environment variable, and a relative path starts at the directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use peerdist_core::distribution::{SourceError, SourceUri};
use peerdist_crds::FieldError;

/// Looks up an environment variable.
pub(super) type Environment = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Parses the URI of an object in `directory`, an absolute path.
///
/// # Errors
/// A [`FieldError`] about `spec.source.uri`.
pub(super) fn resolve(text: &str, directory: &Path, environment: &Environment) -> Result<SourceUri, FieldError> {
    let is_file = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"));
    let expanded = if is_file { expand(text, environment) } else { Ok(text.to_owned()) };
    let refused = |reason, message| FieldError::new("spec.source.uri", reason, message);
    let expanded = expanded.map_err(|error| refused(error.reason(), error.to_string()))?;
    SourceUri::parse(&expanded, Some(directory))
        .map_err(|error: SourceError| refused(error.reason(), error.to_string()))
}

/// Why a variable has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ExpandError {
    #[error("the URI has ${{ without a name and }}: expected ${{NAME}}; close it, or write a dollar sign as %24")]
    Malformed,
    #[error("the environment variable {name} is not set: expected a part of the path; {}", advice(name))]
    Unset { name: String },
}

impl ExpandError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "MalformedUri",
            Self::Unset { .. } => "UnsetVariable",
        }
    }
}

fn advice(name: &str) -> &'static str {
    if name.starts_with("CARGO") {
        "start with cargo run, which sets it, or write the path out"
    } else {
        "set it or write the path out"
    }
}

fn expand(text: &str, environment: &Environment) -> Result<String, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(ExpandError::Malformed)?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(ExpandError::Malformed);
        }
        let value = environment(name).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| ExpandError::Unset { name: name.to_owned() })?;
        expanded.push_str(before);
        push_percent_encoded(&mut expanded, &value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Values are paths, not URIs: whatever a URI would take for syntax is encoded.
fn push_percent_encoded(text: &mut String, value: &OsStr) {
    for &byte in value.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~+".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn resolved(text: &str) -> Result<SourceUri, (&'static str, String)> {
        let environment = |name: &str| match name {
            "CARGO" => None,
            "TOOL" => Some(OsString::from("/opt/a b%/bin/tool")),
            "ODD" => Some(OsStr::from_bytes(b"/x/\xff").to_owned()),
            _ => Some(OsString::new()),
        };
        resolve(text, Path::new("/objects"), &environment).map_err(|error| (error.reason, error.message))
    }

    #[test]
    fn variables_and_relative_paths_become_absolute_paths() {
        let file = |path: &[u8]| Ok(SourceUri::File(PathBuf::from(OsStr::from_bytes(path))));
        assert_eq!(resolved("file://${TOOL}/../../lib"), file(b"/opt/a b%/lib"));
        assert_eq!(resolved("file:site"), file(b"/objects/site"));
        assert_eq!(resolved("file:${ODD}"), file(b"/x/\xff"));
        assert_eq!(resolved("file:/a$b"), file(b"/a$b"));
    }

    #[test]
    fn variables_without_value_are_named_with_what_to_do() {
        let (reason, message) = resolved("file://${CARGO}/x").unwrap_err();
        assert_eq!(reason, "UnsetVariable");
        assert!(message.contains("CARGO is not set") && message.contains("cargo run"), "{message}");
        assert_eq!(resolved("file://${EMPTY}/x").unwrap_err().0, "UnsetVariable");
        for text in ["file:${", "file:${}", "file:${A B}", "file:${A"] {
            assert_eq!(resolved(text).unwrap_err().0, "MalformedUri", "{text}");
        }
    }

    #[test]
    fn urls_of_other_machines_expand_nothing() {
        let url = "http://host/${TOOL}";
        assert_eq!(resolved(url), Ok(SourceUri::Http(url.into())));
    }
}
