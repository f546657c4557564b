//! The list of software in an image, as CycloneDX: every crate that is linked into the program, with its licence and
//! digest, by `cargo metadata` and the lock file. What only runs while building is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::step::output;
use crate::{step, tree};

/// What a program is made of.
pub(super) struct SoftwareList {
    /// Version of the program.
    pub(super) version: String,
    /// Its licence.
    pub(super) licence: String,
    /// Where its source is.
    pub(super) repository: String,
    name: String,
    components: Vec<Value>,
}

impl SoftwareList {
    /// Of a package of the workspace, for a target.
    pub(super) fn of(root: &Path, package: &str, target: &str) -> Result<Self> {
        let arguments = ["metadata", "--locked", "--format-version=1", "--filter-platform", target].map(str::to_owned);
        let metadata: Value = serde_json::from_str(&output(root, Path::new(&step::cargo()), &arguments)?)?;
        let digests = digests(&tree::read(&root.join("Cargo.lock"))?);
        Self::from_metadata(&metadata, package, &digests)
    }

    fn from_metadata(metadata: &Value, package: &str, digests: &BTreeMap<String, String>) -> Result<Self> {
        let packages = by_id(&metadata["packages"]);
        let program = packages.values().find(|one| one["name"] == package);
        let program = program.with_context(|| format!("cargo metadata knows no package {package}"))?;
        let mut linked = BTreeSet::new();
        collect(&by_id(&metadata["resolve"]["nodes"]), &packages, text(&program["id"]), &mut linked);
        let components = linked.iter().filter_map(|id| packages.get(id)).map(|one| component(one, digests));
        Ok(Self {
            version: text(&program["version"]).to_owned(),
            licence: text(&program["license"]).to_owned(),
            repository: text(&program["repository"]).to_owned(),
            name: package.to_owned(),
            components: components.collect(),
        })
    }

    /// The whole document. It names no time and no serial number, so that equal lists are equal files.
    pub(super) fn document(&self, title: &str) -> Value {
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": {
                "type": "application", "name": self.name, "version": self.version, "description": title,
                "licenses": [{"expression": self.licence}],
            }},
            "components": self.components,
        })
    }
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    list.as_array().into_iter().flatten().map(|one| (text(&one["id"]), one)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Everything below a package but what only runs while building.
fn collect<'a>(
    nodes: &BTreeMap<&'a str, &'a Value>,
    packages: &BTreeMap<&'a str, &'a Value>,
    id: &'a str,
    linked: &mut BTreeSet<&'a str>,
) {
    let dependencies = nodes.get(id).and_then(|node| node["deps"].as_array());
    for dependency in dependencies.into_iter().flatten() {
        let kinds = dependency["dep_kinds"].as_array();
        let is_normal = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()));
        let below = text(&dependency["pkg"]);
        if is_normal && !packages.get(below).is_some_and(|one| is_macro(one)) && linked.insert(below) {
            collect(nodes, packages, below, linked);
        }
    }
}

fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.flat_map(|target| target["kind"].as_array().into_iter().flatten()).any(|kind| kind == "proc-macro")
}

fn component(package: &Value, digests: &BTreeMap<String, String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": "library", "name": name, "version": version, "purl": format!("pkg:cargo/{name}@{version}"),
    });
    if let Some(licence) = package["license"].as_str() {
        // An old way to write OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(digest) = digests.get(&format!("{name} {version}")) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": digest}]);
    }
    component
}

/// Digests of packages by name and version, out of the lock file, which cargo writes one field a line.
fn digests(lock: &str) -> BTreeMap<String, String> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let digest = |block: &str| {
        let key = format!("{} {}", field(block, "name")?, field(block, "version")?);
        Some((key, field(block, "checksum")?))
    };
    lock.split("[[package]]").filter_map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_runs_while_building_is_left_out() {
        let package = |name: &str, kind: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "targets": [{"kind": [kind]}]});
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("p", "bin"), package("a", "lib"), package("b", "lib"), package("m", "proc-macro"), package("t", "lib")],
            "resolve": {"nodes": [
                {"id": "p", "deps": [dependency("a", Value::Null), dependency("m", Value::Null), dependency("t", json!("dev"))]},
                {"id": "a", "deps": [dependency("b", Value::Null), dependency("t", json!("build"))]},
            ]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"12ab\"\n\n[[package]]\nname = \"b\"\n";
        let list = SoftwareList::from_metadata(&metadata, "p", &digests(lock)).unwrap();
        let document = list.document("title");
        let names: Vec<&str> =
            document["components"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(document["components"][0]["hashes"][0]["content"], "12ab");
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert!(SoftwareList::from_metadata(&metadata, "q", &BTreeMap::new()).is_err());
    }
}
