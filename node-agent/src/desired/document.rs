//! From the text of a file to documents: each an object of a known kind with a name, still unvalidated. Files are
//! hostile: size, depth, aliases and number of documents are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use peerdist_crds::unknown_fields::unknown_fields;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::desired::error::{ErrorScope, ObjectError};

/// Most objects of one set.
pub(super) const OBJECTS_MAX: usize = 10_000;
/// Deepest nesting of a document; the deepest field of the schemas lies at 5.
const DEPTH_MAX: usize = 32;
/// Most YAML events that aliases may add to a file.
const ALIAS_EVENTS_MAX: usize = 100_000;

/// Definitions by kind, built once: unknown fields are those that are not in there.
static DEFINITIONS: LazyLock<BTreeMap<String, CustomResourceDefinition>> = LazyLock::new(|| {
    let by_kind = |definition: CustomResourceDefinition| (definition.spec.names.kind.clone(), definition);
    peerdist_crds::definitions().into_iter().map(by_kind).collect()
});

/// Kind of a PackageDistribution.
pub(super) const PACKAGE_KIND: &str = "PackageDistribution";
/// Kind and version of a Secret, the one kind that is not ours.
pub(super) const SECRET_KIND: &str = "Secret";
const SECRET_API_VERSION: &str = "v1";

/// One object as it stands in a file. It may be a Secret, and so is never shown as a whole.
#[derive(Clone)]
pub(super) struct Document {
    /// Where it stands.
    pub(super) place: Place,
    /// `Office`, `PackageDistribution`, `VescEndpoint` or `Secret`.
    pub(super) kind: String,
    /// Kind, namespace and name as people read them.
    pub(super) object: String,
    /// The whole object.
    pub(super) value: Value,
}

impl fmt::Debug for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.object, self.place)
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the file in its directory.
    pub(super) file: String,
    /// Line where the object begins, from 1.
    pub(super) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, line {}", self.file, self.line)
    }
}

impl Document {
    /// An error about the object.
    pub(super) fn error(
        &self,
        scope: ErrorScope,
        field: &str,
        reason: &str,
        message: impl fmt::Display,
    ) -> ObjectError {
        ObjectError {
            object: self.object.clone(),
            field: field.to_owned(),
            reason: reason.to_owned(),
            message: format!("{message} ({})", self.place),
            scope,
        }
    }

    /// There is another object of this name.
    pub(super) fn duplicate_error(&self, scope: ErrorScope) -> ObjectError {
        let message = "the object exists more than once: expected one object a name; remove the others";
        self.error(scope, "metadata.name", "DuplicateObject", message)
    }

    /// The object as its type.
    ///
    /// # Errors
    /// Unknown fields, or the first field whose value does not fit.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Vec<ObjectError>> {
        let unknown = DEFINITIONS.get(&self.kind).map(|kind| unknown_fields(kind, &self.value)).unwrap_or_default();
        if !unknown.is_empty() {
            let refuse = |field: &peerdist_crds::unknown_fields::UnknownField| {
                let message =
                    format!("unknown field: expected one of {}; correct or remove it", field.known.join(", "));
                self.error(ErrorScope::Set, &field.path, "UnknownField", message)
            };
            return Err(unknown.iter().map(refuse).collect());
        }
        serde_path_to_error::deserialize(&self.value)
            .map_err(|error| vec![self.value_error(&error.path().to_string(), &error.inner().to_string())])
    }

    /// The first value that does not fit, in our words.
    fn value_error(&self, path: &str, fault: &str) -> ObjectError {
        let path = path.trim_start_matches('.');
        if let Some(name) = fault.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            let field = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            return self.error(ErrorScope::Set, &field, "MissingField", "missing: expected a value; add it");
        }
        let hint = if fault.ends_with("expected a string") { "; put it in quotes" } else { "" };
        self.error(ErrorScope::Set, path, "InvalidValue", format!("{fault}{hint}"))
    }
}

/// Splits a file into its documents. Empty documents are left out.
///
/// # Errors
/// Text that is no YAML, or documents that are no object of a known kind with a name.
pub(super) fn split(file: &str, text: &str) -> Result<Vec<Document>, Vec<ObjectError>> {
    let values: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options())
        .map_err(|error| vec![file_error(file, "MalformedYaml", format!("not readable as YAML: {error}"))])?;
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for spanned in values.into_iter().filter(|spanned| !spanned.value.is_null()) {
        let place = Place { file: file.to_owned(), line: spanned.referenced.line() };
        match identify(place, spanned.value) {
            Ok(document) => documents.push(document),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

/// An error about a file or the whole directory.
pub(super) fn file_error(file: &str, reason: &str, message: String) -> ObjectError {
    ObjectError {
        object: file.to_owned(),
        field: String::new(),
        reason: reason.to_owned(),
        message,
        scope: ErrorScope::Set,
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_documents: OBJECTS_MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
        with_snippet: false,
    }
}

fn identify(place: Place, value: Value) -> Result<Document, ObjectError> {
    let refused = |field: &str, reason: &str, message: String| {
        let error = file_error(&place.to_string(), reason, message);
        Err(ObjectError { field: field.to_owned(), ..error })
    };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let is_secret = (version, kind) == (SECRET_API_VERSION, SECRET_KIND);
    if version != peerdist_crds::API_VERSION && !is_secret {
        let message = format!("apiVersion {version:?} is not known: expected {}", peerdist_crds::API_VERSION);
        return refused(
            "apiVersion",
            "UnknownApiVersion",
            format!("{message}; correct it or move the object elsewhere"),
        );
    }
    if !DEFINITIONS.contains_key(kind) && !is_secret {
        let kinds: Vec<&str> = DEFINITIONS.keys().map(String::as_str).collect();
        let message = format!("kind {kind:?} is not known: expected {}; correct it", kinds.join(", "));
        return refused("kind", "UnknownKind", message);
    }
    if name.is_empty() {
        let message = format!("{kind} without a name: expected a text in metadata.name; add it");
        return refused("metadata.name", "MissingName", message);
    }
    let object = match text("/metadata/namespace") {
        _ if kind == "Office" => format!("{kind} {name}"),
        "" => format!("{kind} {}/{name}", peerdist_crds::package_distribution::NAMESPACE_DEFAULT),
        namespace => format!("{kind} {namespace}/{name}"),
    };
    let kind = kind.to_owned();
    Ok(Document { place, kind, object, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\n";

    fn refused(text: &str) -> (String, String) {
        let error = split("x.yaml", text).unwrap_err().remove(0);
        assert!(error.to_string().contains("x.yaml"), "{error}");
        (error.field, error.reason)
    }

    #[test]
    fn documents_know_their_place() {
        let text = format!("# nothing yet\n---\n{OFFICE}---\n# empty\n---\n{}", OFFICE.replace("central", "store"));
        let documents = split("x.yaml", &text).unwrap();
        let found: Vec<(&str, u64)> =
            documents.iter().map(|document| (document.object.as_str(), document.place.line)).collect();
        assert_eq!(found, [("Office central", 3), ("Office store", 9)]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(refused("a: [1,").1, "MalformedYaml");
        assert_eq!(refused("a: 1\na: 2").1, "MalformedYaml");
        assert_eq!(refused("- a"), ("apiVersion".into(), "UnknownApiVersion".into()));
        assert_eq!(refused("just text").1, "UnknownApiVersion");
        assert_eq!(refused(&OFFICE.replace("v1alpha1", "v9")).1, "UnknownApiVersion");
        assert_eq!(refused(&OFFICE.replace("Office", "Offices")), ("kind".into(), "UnknownKind".into()));
        assert_eq!(refused(&OFFICE.replace("name", "nam")), ("metadata.name".into(), "MissingName".into()));
        assert_eq!(refused(&OFFICE.replace("central", "7")).0, "metadata.name");
    }

    #[test]
    fn bombs_are_refused() {
        assert_eq!(refused(&"[".repeat(1000)).1, "MalformedYaml");
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", "));
        }
        assert_eq!(refused(&bomb).1, "MalformedYaml");
    }

    #[test]
    fn unknown_fields_and_values_name_their_path() {
        let parse = |spec: &str| {
            let document = split("x.yaml", &format!("{OFFICE}spec: {spec}\n")).unwrap().remove(0);
            let errors = document.parse::<peerdist_crds::Office>().unwrap_err();
            errors.into_iter().map(|error| (error.field, error.reason)).collect::<Vec<_>>()
        };
        let field = |field: &str, reason: &str| (field.to_owned(), reason.to_owned());
        assert_eq!(parse("{typ: Wired}"), [field("spec.typ", "UnknownField")]);
        assert_eq!(parse("{firewall: {}}"), [field("spec.firewall", "UnknownField")]);
        assert_eq!(parse("{type: Wireless}"), [field("spec.type", "InvalidValue")]);
        assert_eq!(parse("{parent: 7}"), [field("spec.parent", "InvalidValue")]);
        assert_eq!(parse("{storage: {limit: [50]}}"), [field("spec.storage.limit", "InvalidValue")]);
    }
}
