//! The YAML in `crds/` is what the types say. `UPDATE_GENERATED=1 cargo test -p peerdist-crds` writes it anew.

use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const HEADER: &str = "# Generated from the types in crds/src: UPDATE_GENERATED=1 cargo test -p peerdist-crds\n";

fn path(definition: &CustomResourceDefinition) -> PathBuf {
    let file = format!("peerdist.io_{}.yaml", definition.spec.names.plural);
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds").join(file)
}

fn yaml(definition: &CustomResourceDefinition) -> String {
    // By way of a JSON value, so that keys are sorted.
    let value: Value = serde_json::to_value(definition).expect("a definition is JSON");
    format!("{HEADER}{}", serde_saphyr::to_string(&value).expect("JSON is YAML"))
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(&definition.spec.versions[0].schema).expect("a schema is JSON")["openAPIV3Schema"].clone()
}

#[test]
fn generated_files_are_up_to_date() {
    for definition in peerdist_crds::definitions() {
        let (path, wanted) = (path(&definition), yaml(&definition));
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &wanted).expect("the folder crds/crds is writable");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} differs from the types: UPDATE_GENERATED=1 cargo test -p peerdist-crds",
            path.display()
        );
    }
}

#[test]
fn generated_files_are_read_back_as_the_definition() {
    for definition in peerdist_crds::definitions() {
        let read: Value = serde_saphyr::from_str(&yaml(&definition)).expect("generated YAML is YAML");
        assert_eq!(read, serde_json::to_value(&definition).expect("a definition is JSON"));
    }
}

#[test]
fn schemas_are_structural() {
    fn check(schema: &Value, path: &str) {
        let Some(object) = schema.as_object() else { return };
        for forbidden in ["$ref", "oneOf", "definitions", "$defs"] {
            assert!(!object.contains_key(forbidden), "{path} has {forbidden}");
        }
        assert_ne!(object.get("additionalProperties"), Some(&Value::Bool(false)), "{path}");
        let typed = object.contains_key("type") || object.contains_key("x-kubernetes-int-or-string");
        assert!(typed, "{path} has no type");
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        if let Some(items) = object.get("items") {
            check(items, &format!("{path}[]"));
        }
    }
    for definition in peerdist_crds::definitions() {
        check(&schema(&definition), &definition.spec.names.kind);
    }
}

#[test]
fn specs_have_no_null_and_no_format_that_kubernetes_does_not_know() {
    fn check(value: &Value, path: &str) {
        // kube makes every optional quantity nullable; no rule speaks about one.
        if value.get("x-kubernetes-int-or-string").is_none() {
            assert_ne!(value.get("nullable"), Some(&Value::Bool(true)), "{path}");
        }
        let format = value.get("format").and_then(Value::as_str).unwrap_or("int32");
        assert!(["int32", "int64", "date-time"].contains(&format), "{path} has the format {format}");
        for (name, property) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
    }
    for definition in peerdist_crds::definitions() {
        check(&schema(&definition)["properties"]["spec"], &definition.spec.names.kind);
    }
}

#[test]
fn rules_and_defaults_are_in_the_schema() {
    let [office, distribution, _] = peerdist_crds::definitions().map(|definition| schema(&definition));
    let rules = |schema: &Value| -> Vec<String> {
        let list = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|rule| rule["rule"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(
        rules(&office["properties"]["spec"]),
        ["self.type != 'VPN' || has(self.parent)", "!has(self.nodeSelector) || !has(self.subnets)"]
    );
    let subnets = &office["properties"]["spec"]["properties"]["subnets"];
    assert_eq!(rules(subnets), ["self.all(subnet, isCIDR(subnet))"]);
    assert_eq!(subnets["default"], Value::Null, "has(self.subnets) must not be true by default");
    assert_eq!(rules(&office).len(), 1);
    let spec = &distribution["properties"]["spec"];
    assert_eq!(rules(spec).len(), 4);
    assert!(!rules(spec).iter().any(|rule| rule.contains("oldSelf") && rule.contains("secretRef")));
    assert_eq!(rules(&spec["properties"]["version"]), ["self != 'current'"]);
    assert_eq!(spec["properties"]["retention"]["properties"]["versions"]["default"], 2);
    assert_eq!(spec["properties"]["priority"]["default"], "Normal");
    assert_eq!(spec["properties"]["unpack"]["default"], "None");
    assert_eq!(spec["required"], serde_json::json!(["source", "version"]));
}

#[test]
fn every_kind_has_a_status_that_says_when_nobody_has_looked_yet() {
    for definition in peerdist_crds::definitions() {
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        let default = &schema(&definition)["properties"]["status"]["default"];
        assert_eq!(*default, serde_json::json!({"observedGeneration": -1}));
    }
}

#[test]
fn the_first_columns_are_ready_message_and_age() {
    for definition in peerdist_crds::definitions() {
        let columns = definition.spec.versions[0].additional_printer_columns.iter().flatten();
        let names: Vec<&str> = columns.map(|column| column.name.as_str()).take(3).collect();
        assert_eq!(names, ["Ready", "Message", "Age"], "{}", definition.spec.names.kind);
    }
}
