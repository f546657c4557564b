//! Sets of objects that make one state, and sets that are refused with object and field.

use std::ffi::OsString;

use super::*;
use crate::desired::document::split;

const OFFICES: &str = "
apiVersion: peerdist.io/v1alpha1
kind: Office
metadata: {name: central}
spec: {}
---
apiVersion: peerdist.io/v1alpha1
kind: Office
metadata: {name: store, labels: {region: eu}, annotations: {peerdist.io/embedded-nodes: '3'}}
spec: {parent: central}
---
";

fn package(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn office(name: &str, rest: &str) -> String {
    format!("apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {{name: {name}{rest}\n---\n")
}

fn reading(text: &str) -> Reading {
    let documents = split("objects.yaml", text).unwrap();
    read(&documents, Path::new("/objects"), &|_: &str| None::<OsString>)
}

/// Object, field and reason of every error; each must name its file.
fn told(reading: &Reading) -> Vec<(String, String, String)> {
    for error in &reading.errors {
        assert!(error.message.contains("objects.yaml, line ") || error.object.starts_with('/'), "{error}");
    }
    let parts = |error: &ObjectError| (error.object.clone(), error.field.clone(), error.reason.clone());
    reading.errors.iter().map(parts).collect()
}

fn check_unusable(text: &str, object: &str, field: &str, reason: &str) {
    let reading = reading(text);
    assert!(reading.state.is_none(), "{text}");
    assert!(reading.errors.iter().any(|error| error.scope == ErrorScope::Set));
    assert_eq!(told(&reading), [(object.to_owned(), field.to_owned(), reason.to_owned())], "{text}");
}

/// The package of that spec is refused, another one beside it goes on.
fn check_refused(spec: &str, field: &str, reason: &str) {
    let text = format!("{OFFICES}{}{}", package("bad", spec), package("good", "version: '1', source: {uri: 'file:x'}"));
    let reading = reading(&text);
    assert!(reading.errors.iter().all(|error| error.scope == ErrorScope::Object), "{:?}", reading.errors);
    let object = "PackageDistribution default/bad".to_owned();
    assert_eq!(told(&reading), [(object, field.to_owned(), reason.to_owned())], "{spec}");
    let names: Vec<String> = reading.state.unwrap().distributions.keys().map(|key| key.name.to_string()).collect();
    assert_eq!(names, ["good"]);
    assert_eq!(reading.refused.len(), 1);
}

#[test]
fn offices_distributions_and_nodes_become_one_state() {
    let spec = "version: '7', source: {uri: 'file:site'}, offices: {matchLabels: {region: eu}}, priority: High";
    let reading = reading(&format!("{OFFICES}{}", package("app", spec)));
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let state = reading.state.unwrap();
    assert_eq!(state.offices.len(), 2);
    let nodes: Vec<u32> = state.embedded_nodes.values().copied().collect();
    assert_eq!(nodes, [EMBEDDED_NODES_DEFAULT, 3]);
    let distribution = state.distributions.values().next().unwrap();
    assert_eq!(distribution.key.to_string(), "default/app");
    assert_eq!(distribution.source.uri.to_string(), "file:///objects/site");
}

#[test]
fn a_set_that_is_no_tree_is_unusable() {
    check_unusable(&office("b", "}\nspec: {parent: x}"), "Office b", "spec.parent", "UnknownOffice");
    check_unusable(&office("a", "}\nspec: {parent: a}"), "Office a", "spec.parent", "ParentCycle");
    let second = format!("{OFFICES}{}", office("second", "}\nspec: {}"));
    check_unusable(&second, "Office second", "spec.parent", "SecondCentralOffice");
    let twice = format!("{OFFICES}{}", office("store", "}\nspec: {parent: central}"));
    check_unusable(&twice, "Office store", "metadata.name", "DuplicateObject");
    check_unusable(&package("x", "version: '1', source: {uri: 'file:x'}"), "/objects", "", "NoCentralOffice");
}

#[test]
fn what_the_schema_does_not_have_makes_the_set_unusable() {
    let with = |text: String| format!("{OFFICES}{text}");
    let bad = "PackageDistribution default/bad";
    let unknown = with(package("bad", "version: '1', source: {uri: 'file:x', url: y}"));
    check_unusable(&unknown, bad, "spec.source.url", "UnknownField");
    let urgent = with(package("bad", "version: '1', source: {uri: 'file:x'}, priority: Urgent"));
    check_unusable(&urgent, bad, "spec.priority", "InvalidValue");
    check_unusable(&with(package("bad", "version: 7.4, source: {uri: 'file:x'}")), bad, "spec.version", "InvalidValue");
    check_unusable(&with(package("bad", "version: '1'")), bad, "spec.source", "MissingField");
    check_unusable(&office("a", "}"), "Office a", "spec", "MissingField");
    check_unusable(&office("a", "}\nspec: {type: LAN}"), "Office a", "spec.type", "InvalidValue");
    check_unusable(&office("a", ", label: {}}\nspec: {}"), "Office a", "metadata.label", "UnknownField");
    let nodes =
        |count: &str| office("a", &format!(", annotations: {{peerdist.io/embedded-nodes: '{count}'}}}}\nspec: {{}}"));
    for count in ["0", "255", "two", "-1"] {
        let field = "metadata.annotations[peerdist.io/embedded-nodes]";
        check_unusable(&nodes(count), "Office a", field, "OutOfRange");
    }
}

#[test]
fn a_bad_value_of_one_package_leaves_the_others_alone() {
    check_refused("version: '1', source: {uri: 's3://bucket/key'}", "spec.source.uri", "UnsupportedScheme");
    check_refused("version: '1', source: {uri: 'file:${NO_SUCH}/x'}", "spec.source.uri", "UnsetVariable");
    check_refused(
        "version: '1', source: {uri: 'file:x', digest: 'sha256:12'}",
        "spec.source.digest",
        "MalformedDigest",
    );
    check_refused("version: current, source: {uri: 'file:x'}", "spec.version", "InvalidVersion");
    check_refused(
        "version: '1', source: {uri: 'file:x'}, schedule: {notBefore: tonight}",
        "spec.schedule.notBefore",
        "InvalidTime",
    );
    check_refused(
        "version: '1', source: {uri: 'file:x'}, retention: {versions: 0}",
        "spec.retention.versions",
        "OutOfRange",
    );
    check_refused(
        "version: '1', source: {uri: 'file:x'}, offices: {matchLabels: {region: mars}}",
        "spec.offices.matchLabels",
        "NoOfficeSelected",
    );
}

#[test]
fn of_two_packages_of_one_name_none_is_taken() {
    let spec = "version: '1', source: {uri: 'file:x'}";
    let reading = reading(&format!("{OFFICES}{}{}", package("app", spec), package("app", spec)));
    assert_eq!(reading.errors[0].reason, "DuplicateObject");
    assert!(reading.state.unwrap().distributions.is_empty());
}

#[test]
fn an_endpoint_that_nobody_serves_is_said() {
    let endpoint =
        "apiVersion: peerdist.io/v1alpha1\nkind: VescEndpoint\nmetadata: {name: hq}\nspec: {address: 10.0.5.9}\n";
    let reading = reading(&format!("{OFFICES}{endpoint}"));
    assert_eq!(told(&reading), [("VescEndpoint default/hq".into(), String::new(), "KindNotServed".into())]);
    assert!(reading.state.is_some());
}

#[test]
fn secrets_are_part_of_the_state_and_broken_ones_make_the_set_unusable() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: repo}\nstringData: {token: x}\n---\n";
    let asking = package("app", "version: '1', source: {uri: 'https://a/b', secretRef: {name: repo}}");
    let state = reading(&format!("{OFFICES}{secret}{asking}")).state.unwrap();
    let named = state.distributions.values().next().unwrap().source.secret.clone().unwrap();
    assert_eq!(state.secrets.keys().map(|key| key.name.clone()).collect::<Vec<_>>(), [named]);
    let broken = secret.replace("token: x", "token: 7");
    check_unusable(&format!("{OFFICES}{broken}"), "Secret default/repo", "stringData.token", "InvalidValue");
}
