//! Writes the objects of a scenario as YAML files, the way an operator would.

use std::fmt::Write;
use std::path::Path;

use crate::topology::Topology;

/// Namespace of every package here.
pub const NAMESPACE: &str = "default";

/// The Office objects of a topology, one YAML document each.
pub fn offices(topology: &Topology) -> String {
    let mut yaml = String::new();
    for office in topology.offices() {
        let parent = office.parent.map(|parent| format!(", parent: {}", topology.offices()[parent].name));
        // Writing to a string cannot fail.
        let _ = write!(
            yaml,
            "---\napiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {{name: {}}}\nspec: {{type: {}{}}}\n",
            office.name,
            office.kind.as_str(),
            parent.unwrap_or_default()
        );
    }
    yaml
}

/// A PackageDistribution of a local file or folder to all offices.
pub fn distribution(name: &str, version: &str, source: &Path) -> String {
    format!(
        "apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec: {{version: \"{version}\", source: {{uri: \"file://{}\"}}}}\n",
        source.display()
    )
}
