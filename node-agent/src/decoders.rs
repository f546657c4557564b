//! Every decoder of bytes from files and the network that is not the core's, as one function from bytes, so that fuzz
//! targets and property tests feed the same thing. Each says whether the bytes were accepted; none decides anything,
//! and nothing else calls them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use peerdist_core::decoders::Decoder;
use peerdist_core::distribution::SourceUri;
use peerdist_core::wire::SMALL_MESSAGE_BYTES_MAX;
use peerdist_core::wire::proto::{Control, TransferStart};
use tokio_util::sync::CancellationToken;

use crate::desired;
use crate::source::archive::{Format, Unpacking};
use crate::source::disk::DiskAdmission;
use crate::source::tree::TreeWriter;
use crate::source::{self, Progress, SourceError};
use crate::store::journal;
use crate::transport::{JoinToken, decoders};

/// All of them.
pub const ALL: [Decoder; 8] = [
    ("transfer_frames", transfer_frames),
    ("control_frames", control_frames),
    ("join_token", join_token),
    ("objects", objects),
    ("source_uri", source_uri),
    ("http_headers", http_headers),
    ("archive", archive),
    ("journal", journal),
];

/// Largest chunk that is tried.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// What an archive may unpack to.
const UNPACKED_BYTES_MAX: u64 = 4 << 20;

/// What a holder sends: the begin of a transfer of fixed length, and chunks.
pub fn transfer_frames(bytes: &[u8]) -> bool {
    let (start, chunks) = bytes.split_at(bytes.len().min(START_BYTES));
    decoders::are_messages::<TransferStart>(start, SMALL_MESSAGE_BYTES_MAX)
        && decoders::are_chunks(chunks, CHUNK_BYTES_MAX)
}

/// Bytes of a framed begin of a transfer without a trace context.
const START_BYTES: usize = 40;

/// What a receiver sends.
pub fn control_frames(bytes: &[u8]) -> bool {
    decoders::are_messages::<Control>(bytes, SMALL_MESSAGE_BYTES_MAX)
}

/// A join token file.
pub fn join_token(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.trim().parse::<JoinToken>().is_ok())
}

/// A file of objects.
pub fn objects(bytes: &[u8]) -> bool {
    desired::is_usable(bytes)
}

/// The address of a source.
pub fn source_uri(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| SourceUri::parse(text, Some(Path::new("/manifests"))).is_ok())
}

/// `Content-Range` and `ETag` of a response, one a line.
pub fn http_headers(bytes: &[u8]) -> bool {
    let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
    source::http::is_resumable(lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

/// An archive of any format, unpacked into a folder of its own.
pub fn archive(bytes: &[u8]) -> bool {
    let Ok(folder) = Folder::new() else { return false };
    unpack(bytes, &folder.0).is_ok_and(|is_archive| is_archive)
}

/// Rows of the journal: one byte each for the lengths of record and chunk row, these two, and the signed root.
pub fn journal(bytes: &[u8]) -> bool {
    let Some((&[record, held], rest)) = bytes.split_first_chunk() else { return false };
    let Some((record, rest)) = rest.split_at_checked(record.into()) else { return false };
    let Some((held, root)) = rest.split_at_checked(held.into()) else { return false };
    journal::is_package(root, record, held)
}

fn unpack(bytes: &[u8], folder: &Path) -> Result<bool, SourceError> {
    let (path, tree) = (folder.join("archive"), folder.join("tree"));
    let failed = || SourceError::library(folder);
    fs::write(&path, bytes).and_then(|()| fs::create_dir(&tree)).map_err(failed())?;
    let file = File::open(&path).map_err(failed())?;
    let Some(format) = Format::detect(&file, "archive")? else { return Ok(false) };
    let mut unpacking = Unpacking {
        uri: "archive",
        tree: &mut TreeWriter::open(&tree)?,
        disk: &mut DiskAdmission::new(&tree, Some(UNPACKED_BYTES_MAX))?,
        progress: &Progress::default(),
        cancel: &CancellationToken::new(),
    };
    unpacking.run(&file, format).map(|()| true)
}

/// A folder that goes when the value goes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("peerdist-decoder-{}-{number}", std::process::id()));
        fs::create_dir(&path).map(|()| Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "folder of a decoder stays");
        }
    }
}

#[cfg(test)]
mod tests;
