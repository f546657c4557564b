//! An OCI image layout: blobs named by their digests, and an index that says which of them is the image, and which are
//! about it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Platform;

/// Media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of what stands where an image has its configuration and something else has none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation with the tag alone, by which an image is found in a layout.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// Annotation with the whole name, under which containerd and podman keep what they import.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// A layout that is being written.
pub(super) struct Layout {
    folder: PathBuf,
    /// What the index lists.
    manifests: Vec<Value>,
}

/// What names a blob.
pub(super) struct Descriptor {
    media_type: String,
    /// Such as `sha256:9f2c...`.
    pub(super) digest: String,
    /// In bytes.
    pub(super) size: u64,
}

impl Descriptor {
    /// As it stands in manifests.
    pub(super) fn value(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

impl Layout {
    /// Begins an empty one; what was there goes.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        let layout = Self { folder: folder.to_path_buf(), manifests: Vec::new() };
        layout.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        Ok(layout)
    }

    /// Adds a blob.
    pub(super) fn add(&mut self, media_type: &str, content: &[u8]) -> Result<Descriptor> {
        let digest = digest(content);
        let path = self.folder.join("blobs").join(digest.replace(':', "/"));
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size: content.len() as u64 })
    }

    /// Lists a manifest as the image.
    pub(super) fn name(&mut self, image: &Descriptor, repository: &str, platform: &Platform<'_>) -> Result<()> {
        let Platform { tag, architecture } = platform;
        let mut named = image.value();
        named["platform"] = json!({"architecture": architecture, "os": "linux"});
        named["annotations"] = json!({TAG_ANNOTATION: tag, NAME_ANNOTATION: format!("{repository}:{tag}")});
        self.list(named)
    }

    /// Adds something that is about a manifest, which registries list as its referrer.
    pub(super) fn attach(&mut self, subject: &Descriptor, media_type: &str, content: &[u8]) -> Result<()> {
        let empty = self.add(EMPTY, b"{}")?;
        let content = self.add(media_type, content)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": media_type,
            "config": empty.value(),
            "layers": [content.value()],
            "subject": subject.value(),
        });
        let mut descriptor = self.add(MANIFEST, &serde_json::to_vec(&manifest)?)?.value();
        descriptor["artifactType"] = json!(media_type);
        self.list(descriptor)
    }

    /// Writes the index anew, with one more.
    fn list(&mut self, descriptor: Value) -> Result<()> {
        self.manifests.push(descriptor);
        self.write("index.json", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}))
    }

    fn write(&self, name: &str, value: &Value) -> Result<()> {
        fs::write(self.folder.join(name), value.to_string()).with_context(|| format!("cannot write {name}"))
    }
}

/// What blobs are named by.
pub(super) fn digest(content: &[u8]) -> String {
    let hexadecimal: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hexadecimal}")
}
