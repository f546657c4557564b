//! Objects compared with the committed files under `tests/golden`; `UPDATE_GENERATED=1` rewrites them.

use std::path::Path;

use serde_json::Value;

/// Fails when the objects differ from the committed file.
pub(crate) fn check_golden(name: &str, objects: &[&Value]) {
    let documents = objects.iter().map(|object| serde_saphyr::to_string(object).unwrap());
    let rendered = documents.map(|document| format!("---\n{document}")).collect::<String>();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "{name} is out of date: run the tests with UPDATE_GENERATED=1 and look at the difference\n{rendered}"
    );
}
