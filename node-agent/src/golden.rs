//! Texts compared with the committed files under `tests/golden`; `UPDATE_GENERATED=1` rewrites them.

use std::path::Path;

/// Fails when the text differs from the committed file.
pub(crate) fn check_golden(name: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "{name} is out of date: run the tests with UPDATE_GENERATED=1 and look at the difference\n{rendered}"
    );
}
