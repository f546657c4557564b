//! What a published package was made from, remembered beside the journal, so that a second run need not read the
//! source again to know that nothing is to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use peerdist_core::digest::Digest;
use peerdist_core::distribution::Unpack;
use peerdist_core::names::PackageKey;
use serde::{Deserialize, Serialize};

use super::IngestRequest;
use crate::source::error::SourceError;
use crate::source::file::Inspection;

/// The source of one published package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    uri: String,
    digest: Option<String>,
    unpack: Unpack,
    /// Of files and directories; of downloads there is none, their address and digest stand for them.
    fingerprint: Option<Digest>,
    /// The manifest root that was published.
    pub(super) package: Digest,
}

impl Record {
    pub(super) fn new(request: &IngestRequest, inspection: Option<Inspection>, package: Digest) -> Self {
        Self {
            uri: request.source.uri.to_string(),
            digest: request.source.digest.map(|digest| digest.to_string()),
            unpack: request.unpack,
            fingerprint: inspection.map(|inspection| inspection.fingerprint),
            package,
        }
    }

    /// Whether the same source, as far as can be told without reading it, would be ingested again.
    pub(super) fn matches(&self, request: &IngestRequest, inspection: Option<Inspection>) -> bool {
        *self == Self::new(request, inspection, self.package)
    }

    /// The same, when the source cannot be looked at any more.
    pub(super) fn matches_but_for_content(&self, request: &IngestRequest) -> bool {
        *self == Self { fingerprint: self.fingerprint, ..Self::new(request, None, self.package) }
    }
}

/// The records of a library.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(super) fn of(library_root: &Path) -> Self {
        Self { folder: library_root.join("journal").join("sources") }
    }

    /// A record that cannot be read is none: the source is read again.
    pub(super) fn load(&self, key: &PackageKey) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(key)).ok()?).ok()
    }

    pub(super) fn save(&self, key: &PackageKey, record: &Record) -> Result<(), SourceError> {
        let path = self.path(key);
        let save = || {
            let new = path.with_extension("new");
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            fs::write(&new, serde_json::to_vec(record).map_err(io::Error::from)?)?;
            fs::File::open(&new)?.sync_data()?;
            fs::rename(&new, &path)
        };
        save().map_err(SourceError::library(&path))
    }

    fn path(&self, key: &PackageKey) -> PathBuf {
        let folder = self.folder.join(key.distribution.namespace.as_str()).join(key.distribution.name.as_str());
        // A version never contains a slash, and this suffix is longer than what `with_extension` replaces.
        folder.join(format!("{}.json", key.version))
    }
}
