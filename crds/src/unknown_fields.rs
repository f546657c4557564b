//! Finds fields that a kind's schema does not have, as Kubernetes' strict field validation does. The types themselves
//! let unknown fields pass, so that a server reads objects of the next release.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

/// Unknown fields told of one object; more are cut.
pub const UNKNOWN_FIELDS_MAX: usize = 20;
/// Fields of `metadata` (the API server's ObjectMeta).
const METADATA_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Fields that every object has besides those of its schema.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// A field that the schema does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// Its path, such as `spec.source.url`.
    pub path: String,
    /// The fields that its parent may have.
    pub known: Vec<String>,
}

/// The unknown fields of an object of that kind, in the order in which they stand, at most [`UNKNOWN_FIELDS_MAX`].
/// The status is left out: it is not what people write.
pub fn unknown_fields(definition: &CustomResourceDefinition, object: &Value) -> Vec<UnknownField> {
    let mut found = Vec::new();
    let schema = definition.spec.versions.first().and_then(|version| version.schema.as_ref());
    if let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        find_in_object(schema, object, &mut found);
    }
    found.truncate(UNKNOWN_FIELDS_MAX);
    found
}

fn find_in_object(schema: &JSONSchemaProps, object: &Value, found: &mut Vec<UnknownField>) {
    let Value::Object(fields) = object else { return };
    let properties = schema.properties.iter().flatten();
    let known: Vec<&str> = OBJECT_FIELDS.into_iter().chain(properties.map(|(name, _)| name.as_str())).collect();
    find_in_names(fields.keys(), &known, "", found);
    if let Some(Value::Object(metadata)) = fields.get("metadata") {
        find_in_names(metadata.keys(), &METADATA_FIELDS, "metadata", found);
    }
    if let (Some(spec), Some(spec_schema)) =
        (fields.get("spec"), schema.properties.as_ref().and_then(|properties| properties.get("spec")))
    {
        find(spec_schema, spec, "spec", found);
    }
}

fn find(schema: &JSONSchemaProps, value: &Value, path: &str, found: &mut Vec<UnknownField>) {
    match value {
        Value::Object(fields) => match (&schema.properties, &schema.additional_properties) {
            (Some(properties), _) => {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                find_in_names(fields.keys(), &known, path, found);
                for (name, value) in fields {
                    if let Some(schema) = properties.get(name) {
                        find(schema, value, &format!("{path}.{name}"), found);
                    }
                }
            }
            (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                fields.iter().for_each(|(name, value)| find(schema, value, &format!("{path}.{name}"), found));
            }
            _ => {}
        },
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    find(schema, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}

fn find_in_names<'name>(
    names: impl Iterator<Item = &'name String>,
    known: &[&str],
    parent: &str,
    found: &mut Vec<UnknownField>,
) {
    for name in names.filter(|name| !known.contains(&name.as_str())) {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        found.push(UnknownField { path, known: known.iter().map(|&name| name.to_owned()).collect() });
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use super::*;
    use crate::PackageDistribution;

    #[test]
    fn fields_outside_the_schema_are_found_at_every_level() {
        let object = json!({
            "apiVersion": crate::API_VERSION,
            "kind": "PackageDistribution",
            "metadata": {"name": "x", "label": {}, "annotations": {"any": "thing"}},
            "spec": {
                "version": "1",
                "source": {"uri": "file:///x", "sha": "y"},
                "offices": {"matchLabels": {"any": "label"}, "matchExpressions": []},
                "prio": "High",
            },
            "status": {"anything": 1},
            "specs": {},
        });
        let found = unknown_fields(&PackageDistribution::crd(), &object);
        let mut paths: Vec<&str> = found.iter().map(|field| field.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["metadata.label", "spec.offices.matchExpressions", "spec.prio", "spec.source.sha", "specs"]);
        let source = found.iter().find(|field| field.path == "spec.source.sha").unwrap();
        assert_eq!(source.known, ["digest", "secretRef", "uri"]);
    }
}
