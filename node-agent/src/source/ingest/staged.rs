//! Fills a staging tree from an origin and describes it: directories and single files are copied and described in one
//! pass, archives are unpacked first and described from what was written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use peerdist_core::distribution::{SourceUri, Unpack};
use peerdist_core::manifest::{Entry, EntryKind, ManifestBuilder, RelativePath};
use tokio_util::sync::CancellationToken;

use super::IngestRequest;
use super::content::{Copy, Feeder, describe};
use crate::source::archive::{Format, Unpacking};
use crate::source::digest::DigestCheck;
use crate::source::disk::{DiskAdmission, Quota};
use crate::source::error::SourceError;
use crate::source::file::{CheckedFile, Directory, Fingerprint, Inspection, Origin};
use crate::source::file_roots::FileRule;
use crate::source::http::Partial;
use crate::source::progress::{Phase, Progress};
use crate::source::tree::TreeWriter;
use crate::source::uri;
use crate::source::walk::{Kind, Visit};
use crate::store::{IngestStaging, NodeStore};

/// Bytes read at a time when only a digest is computed.
const READ_BYTES: usize = 1 << 20;

/// What fills a staging tree.
pub(super) struct Stager<'a> {
    pub(super) request: &'a IngestRequest,
    pub(super) files: &'a FileRule,
    pub(super) staging: &'a IngestStaging,
    pub(super) library: &'a Arc<NodeStore>,
    /// The chunk size for a package of so many bytes.
    pub(super) chunk_bytes_average: &'a dyn Fn(u64) -> u32,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
}

/// A described tree.
pub(super) struct Staged {
    pub(super) builder: ManifestBuilder,
    pub(super) chunk_bytes_average: u32,
    /// What its source looked like; `None` for downloads.
    pub(super) inspection: Option<Inspection>,
}

impl Stager<'_> {
    /// From a file or directory.
    pub(super) fn stage_origin(&self) -> Result<Staged, SourceError> {
        let SourceUri::File(path) = &self.request.source.uri else {
            return Err(SourceError::UriInvalid { uri: self.uri(), expected: "expected a file".into() });
        };
        match self.files.open(path)? {
            Origin::Directory(directory) => self.copy_directory(&directory),
            Origin::File(file) => self.stage_file(file),
        }
    }

    /// From a finished download. A single file gets a second name in the tree, no copy.
    pub(super) fn stage_download(&self, download: &Partial) -> Result<Staged, SourceError> {
        let changed =
            || SourceError::SourceChanged { path: download.data().to_owned(), what: "the download is not whole" };
        if !download.is_whole() {
            return Err(changed());
        }
        let file = match Origin::open(download.data())? {
            Origin::File(file) => file,
            Origin::Directory(directory) => {
                return Err(SourceError::SourceChanged {
                    path: directory.path().to_owned(),
                    what: "it is a directory",
                });
            }
        };
        if let Some(format) = self.format_of(&file)? {
            self.unpack(&file, format)?;
        } else {
            let name = uri::file_name(&self.request.source.uri);
            download.link_to(&self.staging.tree().join(OsStr::from_bytes(name.as_bytes())))?;
        }
        let staged = self.describe_tree()?;
        if download.is_whole() { Ok(Staged { inspection: None, ..staged }) } else { Err(changed()) }
    }

    fn stage_file(&self, mut file: CheckedFile) -> Result<Staged, SourceError> {
        let inspection = Some(file.inspect());
        let Some(format) = self.format_of(&file)? else {
            return self.copy_file(file).map(|staged| Staged { inspection, ..staged });
        };
        if self.request.source.digest.is_some() {
            self.check_digest(&mut file)?;
        }
        self.unpack(&file, format)?;
        file.check_unchanged()?;
        self.progress.add_source(file.bytes(), Duration::ZERO);
        self.describe_tree().map(|staged| Staged { inspection, ..staged })
    }

    fn format_of(&self, file: &CheckedFile) -> Result<Option<Format>, SourceError> {
        if self.request.unpack == Unpack::None {
            return Ok(None);
        }
        let format = Format::detect(file.file(), &self.uri())?;
        let name = uri::file_name(&self.request.source.uri);
        match Format::promised_by(name.as_bytes()).filter(|_| format.is_none()) {
            None => Ok(format),
            // Whoever asks for the contents of an archive must not get an error page or an empty file in their place.
            Some(ending) => Err(SourceError::ArchiveInvalid {
                uri: self.uri(),
                detail: format!(
                    "its name ends in {ending}, but its {} bytes are no archive, or one without entries",
                    file.bytes()
                ),
            }),
        }
    }

    /// An archive is not unpacked before it is known to be the expected one.
    fn check_digest(&self, file: &mut CheckedFile) -> Result<(), SourceError> {
        let mut check = DigestCheck::new(self.request.source.digest);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if self.cancel.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            match self.progress.source(|| file.read(&mut buffer), |_| 0)? {
                0 => return check.finish(&self.uri()),
                count => check.update(&buffer[..count]),
            }
        }
    }

    fn unpack(&self, file: &CheckedFile, format: Format) -> Result<(), SourceError> {
        self.progress.enter(Phase::Unpacking, 0);
        let mut tree = TreeWriter::open(self.staging.tree())?;
        let uri = self.uri();
        let mut unpacking = Unpacking {
            uri: &uri,
            tree: &mut tree,
            disk: &mut self.admission()?,
            progress: self.progress,
            cancel: self.cancel,
        };
        unpacking.run(file.file(), format)
    }

    /// Describes a tree that is in place already.
    fn describe_tree(&self) -> Result<Staged, SourceError> {
        let Origin::Directory(directory) = Origin::open(self.staging.tree())? else {
            return Err(SourceError::library(self.staging.tree())(std::io::ErrorKind::NotADirectory.into()));
        };
        let inspection = directory.inspect(self.cancel)?;
        self.describe(inspection, |feeder| {
            directory.walk(self.cancel, &mut |visit| {
                feed_entry(feeder, &visit)?;
                match visit.kind {
                    Kind::File { .. } => feeder.copy(&mut directory.open(&visit)?, None, self.cancel),
                    Kind::Directory | Kind::Link { .. } => Ok(()),
                }
            })?;
            Ok(())
        })
    }

    fn copy_directory(&self, directory: &Directory) -> Result<Staged, SourceError> {
        if self.request.source.digest.is_some() {
            return Err(SourceError::DigestOfDirectory { path: directory.path().to_owned() });
        }
        let inspection = directory.inspect(self.cancel)?;
        let mut disk = self.admission()?;
        disk.expect(inspection.bytes)?;
        let mut tree = TreeWriter::open(self.staging.tree())?;
        self.describe(inspection, |feeder| {
            let mut fingerprint = Fingerprint::default();
            let entries = directory.walk(self.cancel, &mut |visit| {
                fingerprint.add(&visit);
                feed_entry(feeder, &visit)?;
                let path = visit.path.as_bytes();
                match &visit.kind {
                    Kind::Directory => tree.directory(path),
                    Kind::Link { target } => tree.link(path, target.as_bytes()),
                    Kind::File { executable } => {
                        let mut source = directory.open(&visit)?;
                        let copy = Copy { file: tree.file(path, *executable)?, disk: &mut disk, check: None };
                        feeder.copy(&mut source, Some(copy), self.cancel)
                    }
                }
            })?;
            if fingerprint.finish(entries) == inspection {
                return Ok(());
            }
            Err(SourceError::SourceChanged { path: directory.path().to_owned(), what: "files came, went or changed" })
        })
    }

    fn copy_file(&self, mut file: CheckedFile) -> Result<Staged, SourceError> {
        let mut disk = self.admission()?;
        disk.expect(file.bytes())?;
        let name = uri::file_name(&self.request.source.uri);
        let mut tree = TreeWriter::open(self.staging.tree())?;
        let mut check = DigestCheck::new(self.request.source.digest);
        let staged = self.describe(file.inspect(), |feeder| {
            let executable = file.is_executable();
            feeder.entry(Entry::file(name.clone(), file.bytes(), executable))?;
            let target = tree.file(name.as_bytes(), executable)?;
            let copy = Copy { file: target, disk: &mut disk, check: Some(&mut check) };
            feeder.copy(&mut file, Some(copy), self.cancel)
        })?;
        check.finish(&self.uri())?;
        Ok(staged)
    }

    fn describe(
        &self,
        inspection: Inspection,
        feed: impl FnOnce(&mut Feeder<'_>) -> Result<(), SourceError>,
    ) -> Result<Staged, SourceError> {
        self.progress.enter(Phase::Hashing, inspection.bytes);
        let chunk_bytes_average = (self.chunk_bytes_average)(inspection.bytes);
        let builder = describe(chunk_bytes_average, self.staging, self.progress, feed)?;
        Ok(Staged { builder, chunk_bytes_average, inspection: Some(inspection) })
    }

    fn admission(&self) -> Result<DiskAdmission, SourceError> {
        let quota = Quota::Library(Arc::clone(self.library));
        Ok(DiskAdmission::within(self.staging.tree(), quota)?.counted_in(self.staging.bytes()))
    }

    fn uri(&self) -> String {
        uri::shown(&self.request.source.uri)
    }
}

fn feed_entry(feeder: &mut Feeder<'_>, visit: &Visit<'_>) -> Result<(), SourceError> {
    let path: RelativePath = visit.path.clone();
    feeder.entry(match &visit.kind {
        Kind::Directory => Entry::directory(path),
        Kind::File { executable } => Entry::file(path, visit.stamp.bytes, *executable),
        Kind::Link { target } => Entry { path, kind: EntryKind::Symlink { target: target.clone() } },
    })
}
