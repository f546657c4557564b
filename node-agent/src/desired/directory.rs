//! The manifest directory: every `*.yaml` and `*.yml` in it, without its folders and hidden files. It is looked at
//! once a second, because that also works on network file systems, in containers, and for files replaced by links.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::desired::document::{self, Document, PACKAGE_KIND, Place, file_error};
use crate::desired::error::{ObjectError, object_of};
use crate::desired::last_good::{self, LastGood};
use crate::desired::objects::{self, Reading};
use crate::desired::revision::{Generations, revise};
use crate::desired::source_uri::Environment;
use crate::desired::{DesiredSource, DesiredState, DesiredUpdate};

/// Largest manifest file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most manifest files of a directory.
pub(super) const FILES_MAX: usize = 10_000;
/// Most bytes of all manifest files together: bounds what one look keeps in memory.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// How often the directory is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the files must rest before they are read again: editors write in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// What tells that a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    modified_seconds: i64,
    modified_nanoseconds: i64,
    size_bytes: u64,
    inode: u64,
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
            size_bytes: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

/// The files by name, or why they cannot be listed.
type Listing = Result<BTreeMap<OsString, FileStamp>, ListError>;

/// Why a directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ListError {
    #[error("the directory cannot be read ({0}): expected a directory of YAML files; create it or correct the path")]
    Unreadable(io::ErrorKind),
    #[error("more than {FILES_MAX} manifest files: expected at most that many; put several objects into one file")]
    TooManyFiles,
    #[error("no manifest in the directory: expected at least one *.yaml or *.yml with an Office; add it")]
    Empty,
}

impl ListError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "DirectoryUnreadable",
            Self::TooManyFiles => "TooManyFiles",
            Self::Empty => "DirectoryEmpty",
        }
    }
}

/// Desired state from a directory of YAML files.
pub struct DirectorySource {
    directory: PathBuf,
    environment: Arc<Environment>,
    /// What was there when the last news was given.
    seen: Option<Seen>,
    /// The last good state.
    state: Option<Arc<DesiredState>>,
    /// Good objects of earlier runs.
    last_good: Option<LastGood>,
}

#[derive(Clone)]
struct Seen {
    listing: Listing,
    /// Digest of names and contents.
    content: blake3::Hash,
}

impl DirectorySource {
    /// A source that reads `directory`; variables in URIs are those of this process.
    pub fn new(directory: &Path) -> Self {
        Self::with_environment(directory, Arc::new(|name: &str| std::env::var_os(name)))
    }

    fn with_environment(directory: &Path, environment: Arc<Environment>) -> Self {
        // A relative path means what it meant at the start, whatever happens later.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Self { directory, environment, seen: None, state: None, last_good: None }
    }

    /// Keeps good objects in a folder, so that one that is bad at the next start stays what it was.
    pub fn keeping_good_objects(mut self, folder: &Path) -> Self {
        self.last_good = Some(LastGood::open(folder));
        self
    }

    async fn list(&self) -> Listing {
        let directory = self.directory.clone();
        spawn_blocking(move || list(&directory)).await.unwrap_or(Err(ListError::Unreadable(io::ErrorKind::Interrupted)))
    }

    /// Waits until the files differ from those seen and rest. At once when nothing was seen.
    async fn changed_listing(&self) -> Listing {
        let Some(seen) = &self.seen else { return self.list().await };
        let mut candidate = seen.listing.clone();
        loop {
            sleep(if candidate == seen.listing { POLL_INTERVAL } else { SETTLE_TIME }).await;
            let listing = self.list().await;
            if listing == candidate && listing != seen.listing {
                return listing;
            }
            candidate = listing;
        }
    }

    async fn read(&self, listing: &Listing) -> (Reading, Vec<Document>, blake3::Hash) {
        let (directory, environment, listing) = (self.directory.clone(), self.environment.clone(), listing.clone());
        let read = spawn_blocking(move || read(&directory, &listing, &*environment)).await;
        read.unwrap_or_else(|error| {
            let message = format!("reading was interrupted ({error}): try again");
            let errors = vec![file_error(&self.directory.display().to_string(), "DirectoryUnreadable", message)];
            (Reading::unusable(errors), Vec::new(), blake3::hash(&[]))
        })
    }

    /// What earlier runs knew of objects that are refused now.
    fn state_before(&self, documents: &[Document], refused: &[String]) -> Option<Arc<DesiredState>> {
        let kept = self.last_good.as_ref()?.of_refused(refused).map(|(object, value)| Document {
            place: Place { file: last_good::FILE_NAME.to_owned(), line: 1 },
            kind: PACKAGE_KIND.to_owned(),
            object: object.clone(),
            value: value.clone(),
        });
        let offices = documents.iter().filter(|document| document.kind == "Office").cloned();
        let documents: Vec<Document> = offices.chain(kept).collect();
        objects::read(&documents, &self.directory, &*self.environment).state.map(Arc::new)
    }
}

impl DesiredSource for DirectorySource {
    async fn next(&mut self) -> DesiredUpdate {
        loop {
            let listing = self.changed_listing().await;
            let (reading, documents, content) = self.read(&listing).await;
            let same = self.seen.as_ref().is_some_and(|seen| seen.content == content);
            self.seen = Some(Seen { listing, content });
            if same {
                continue;
            }
            let refused: Vec<String> = reading.refused.iter().map(object_of).collect();
            let previous = self.state.clone().or_else(|| self.state_before(&documents, &refused));
            let update = revise(previous.as_deref(), reading, Generations::Counted);
            if let (Some(last_good), Some(_)) = (&mut self.last_good, &update.state) {
                let packages = documents.into_iter().filter(|document| document.kind == PACKAGE_KIND);
                last_good.keep(packages.map(|document| (document.object, document.value)), &refused);
            }
            self.state = update.state.clone().or(self.state.take());
            return update;
        }
    }
}

fn list(directory: &Path) -> Listing {
    let unreadable = |error: io::Error| ListError::Unreadable(error.kind());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !is_manifest(&name) {
            continue;
        }
        // Links are followed; a link to nowhere is reported when it is read.
        let stamp = match fs::metadata(directory.join(&name)) {
            Ok(metadata) if metadata.is_dir() => continue,
            Ok(metadata) => FileStamp::from(&metadata),
            Err(_) => FileStamp { modified_seconds: 0, modified_nanoseconds: 0, size_bytes: 0, inode: 0 },
        };
        files.insert(name, stamp);
        if files.len() > FILES_MAX {
            return Err(ListError::TooManyFiles);
        }
    }
    if files.is_empty() { Err(ListError::Empty) } else { Ok(files) }
}

fn is_manifest(name: &OsString) -> bool {
    let extension = Path::new(name).extension();
    let yaml = extension.is_some_and(|extension| extension == "yaml" || extension == "yml");
    yaml && !name.as_encoded_bytes().starts_with(b".")
}

fn read(directory: &Path, listing: &Listing, environment: &Environment) -> (Reading, Vec<Document>, blake3::Hash) {
    let mut content = blake3::Hasher::new();
    let files = match listing {
        Ok(files) => files,
        Err(error) => {
            content.update(error.to_string().as_bytes());
            let error = file_error(&directory.display().to_string(), error.reason(), error.to_string());
            return (Reading::unusable(vec![error]), Vec::new(), content.finalize());
        }
    };
    let (mut documents, mut errors): (Vec<Document>, Vec<ObjectError>) = (Vec::new(), Vec::new());
    let mut bytes_left = DIRECTORY_BYTES_MAX;
    for name in files.keys() {
        content.update(name.as_encoded_bytes()).update(&[0]);
        match read_file(&directory.join(name), &name.to_string_lossy(), &mut bytes_left) {
            Ok((text, found)) => {
                content.update(blake3::hash(text.as_bytes()).as_bytes());
                documents.extend(found.unwrap_or_else(|faults| {
                    errors.extend(faults);
                    Vec::new()
                }));
            }
            Err(error) => {
                content.update(error.message.as_bytes());
                errors.push(error);
            }
        }
    }
    let reading =
        if errors.is_empty() { objects::read(&documents, directory, environment) } else { Reading::unusable(errors) };
    (reading, documents, content.finalize())
}

/// The text of a file and the documents or faults in it.
type FileText = (String, Result<Vec<Document>, Vec<ObjectError>>);

fn read_file(path: &Path, name: &str, bytes_left: &mut u64) -> Result<FileText, ObjectError> {
    let refused = |reason: &str, message: String| file_error(name, reason, message);
    let unreadable = |error: io::Error| refused("FileUnreadable", format!("the file cannot be read: {error}"));
    let mut bytes = Vec::new();
    // Asked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refused("FileUnreadable", "not a regular file: expected YAML text; remove it".to_owned()));
    }
    File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let size_bytes = bytes.len() as u64;
    if size_bytes > FILE_BYTES_MAX {
        let message = format!("more than {FILE_BYTES_MAX} bytes: expected at most that many; split the file");
        return Err(refused("FileTooLarge", message));
    }
    *bytes_left = bytes_left.checked_sub(size_bytes).ok_or_else(|| {
        let message = format!("more than {DIRECTORY_BYTES_MAX} bytes of manifests in all: remove some");
        refused("DirectoryTooLarge", message)
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refused("MalformedYaml", "not readable as YAML: expected UTF-8 text; convert it".to_owned()))?;
    let documents = document::split(name, &text);
    Ok((text, documents))
}

#[cfg(test)]
mod tests;
