//! The samples of `deploy/`, with what their comments tell a user to change: nodes, the repository, a moment that has
//! passed. Everything else is applied as it stands.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::sites::Sites;

/// Where they lie.
const FOLDER: &str = "../../deploy/samples";

/// What replaces what in a sample.
pub(crate) struct Samples {
    replaced: Vec<(&'static str, String)>,
}

impl Samples {
    /// For these nodes, this repository and the digest of its archive.
    pub(crate) fn new(sites: &Sites, repository: &str, archive_sha256: &str, image: &str) -> Self {
        let by_label = || "nodeSelector:\n    matchLabels:\n      site: store-0042".to_owned();
        let nodes = sites.subnet().map_or_else(by_label, |subnet| format!("subnets:\n    - {subnet}"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        Self {
            replaced: vec![
                ("subnets:\n    - 10.42.0.0/24", nodes),
                ("https://repo.example.com", repository.to_owned()),
                (".tar.zst", ".tar.gz".to_owned()),
                (empty, archive_sha256.to_owned()),
                ("2026-12-01T02:00:00Z", "2026-01-01T02:00:00Z".to_owned()),
                ("busybox:1.37.0", image.to_owned()),
                ("[sh, -c", "[busybox, sh, -c".to_owned()),
            ],
        }
    }

    /// One of them.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(self.replaced.iter().fold(text, |text, (from, to)| text.replace(from, to)))
    }

    /// Every replacement must find its place: a sample that changed would be applied with what nobody has.
    pub(crate) fn check(&self, names: &[&str]) -> Result<()> {
        let read = |name: &&str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let all = names.iter().map(read).collect::<Result<String>>()?;
        for (from, _) in &self.replaced {
            ensure!(all.contains(from), "no sample has {from:?} any more");
        }
        Ok(())
    }
}
