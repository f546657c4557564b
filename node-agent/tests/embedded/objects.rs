//! The objects of a run as YAML.

/// An Office; without a parent it is the Central Office. `spec` is what else its spec says, as YAML flow.
pub(crate) fn office(name: &str, parent: Option<&str>, nodes: u32, spec: &str) -> String {
    let parent = parent.map(|parent| format!("parent: {parent}, ")).unwrap_or_default();
    format!(
        "---\napiVersion: peerdist.io/v1alpha1\nkind: Office\n\
         metadata: {{name: {name}, labels: {{office: {name}}}, annotations: {{peerdist.io/embedded-nodes: \"{nodes}\"}}}}\n\
         spec: {{{parent}{spec}}}\n"
    )
}

/// A PackageDistribution of namespace `demo`. `spec` is what else its spec says, as YAML flow.
pub(crate) fn package(name: &str, version: &str, uri: &str, spec: &str) -> String {
    let source = if spec.contains("source:") { String::new() } else { format!("source: {{uri: \"{uri}\"}}, ") };
    format!(
        "---\napiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
         metadata: {{name: {name}, namespace: demo}}\nspec: {{version: \"{version}\", {source}{spec}}}\n"
    )
}

/// A Central Office with one node above a store with two.
pub(crate) fn two_offices() -> String {
    office("central", None, 1, "type: Wired") + &office("store", Some("central"), 2, "type: Wired")
}

/// Bytes that no compression makes smaller, the same for the same name.
pub(crate) fn content(name: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut content);
    content
}
