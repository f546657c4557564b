//! Archives: recognised by their first bytes, unpacked as a stream into a staging tree. Every name and link is checked
//! before anything is written, the tree is written beneath one folder only ([`TreeWriter`]), and every byte is
//! admitted to the disk first. Formats are in [`tar`] and [`zip`], a compression that needs bounds in [`zstandard`]; what
//! happens to one entry is here.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use peerdist_core::manifest::{ENTRIES_MAX, RelativePath};
use tokio_util::sync::CancellationToken;

use self::zstandard::WindowTooLarge;
use super::disk::DiskAdmission;
use super::entry::{self, EntryRefusal};
use super::error::SourceError;
use super::progress::Progress;
use super::tree::TreeWriter;
use crate::printable::{escape_control_characters, printable};

mod tar;
mod zip;
mod zstandard;

/// Bytes read from an archive at a time.
const READ_BYTES: usize = 1 << 20;
/// One block of a tar archive.
const TAR_BLOCK_BYTES: usize = 512;

/// The archives that are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// tar
    Tar,
    /// tar in gzip
    TarGzip,
    /// tar in Zstandard
    TarZstd,
    /// zip
    Zip,
}

impl Format {
    /// Looks at the begin of a file; `None` when it is no archive and therefore published as it is.
    ///
    /// # Errors
    /// [`SourceError::ArchiveInvalid`] for archives of other formats, [`SourceError::SourceUnreadable`].
    pub fn detect(file: &File, uri: &str) -> Result<Option<Self>, SourceError> {
        let head = first_bytes(At { file, offset: 0 }).map_err(SourceError::unreadable(uri))?;
        if let Some((_, name)) = UNSUPPORTED.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(SourceError::ArchiveInvalid {
                uri: uri.to_owned(),
                detail: format!("{name} is not supported (tar, tar.gz, tar.zst and zip are)"),
            });
        }
        // The begin of what is compressed decides; what cannot be decompressed is damaged.
        let begin = |decoder: io::Result<Box<dyn Read + '_>>| {
            decoder.and_then(first_bytes).map_err(|error| SourceError::ArchiveInvalid {
                uri: uri.to_owned(),
                detail: problem("it is damaged", &error),
            })
        };
        let reader = At { file, offset: 0 };
        Ok(match head.as_slice() {
            [0x1f, 0x8b, ..] => is_tar(&begin(Ok(Box::new(gzip(reader))))?).then_some(Self::TarGzip),
            // A frame, or one to be skipped, as pzstd begins with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let decoder = zstd(reader).map(|decoder| Box::new(decoder) as Box<dyn Read>);
                is_tar(&begin(decoder)?).then_some(Self::TarZstd)
            }
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            block => is_tar(block).then_some(Self::Tar),
        })
    }

    /// The ending by which a name promises an archive, if it has one.
    pub fn promised_by(name: &[u8]) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        ENDINGS.into_iter().find(|ending| name.ends_with(ending.as_bytes()))
    }
}

/// How names of archives that are unpacked end.
const ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"];

/// First bytes of archives that a user would expect to be unpacked, and that are not.
const UNSUPPORTED: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar")];

/// One archive on its way into a staging tree.
pub struct Unpacking<'a> {
    /// The source, for messages.
    pub uri: &'a str,
    /// Where entries go.
    pub tree: &'a mut TreeWriter,
    /// Whether they fit.
    pub disk: &'a mut DiskAdmission,
    /// Counts.
    pub progress: &'a Progress,
    /// Stops soon.
    pub cancel: &'a CancellationToken,
}

impl Unpacking<'_> {
    /// Unpacks the whole archive, read from its begin.
    ///
    /// # Errors
    /// [`SourceError::EntryRefused`] naming the entry, [`SourceError::ArchiveInvalid`], [`SourceError::DiskFull`],
    /// [`SourceError::TooManyEntries`], [`SourceError::LibraryFailed`], [`SourceError::Cancelled`].
    pub fn run(&mut self, file: &File, format: Format) -> Result<(), SourceError> {
        let reader = At { file, offset: 0 };
        match format {
            Format::Tar => tar::unpack(self, BufReader::with_capacity(READ_BYTES, reader)),
            Format::TarGzip => tar::unpack(self, gzip(reader)),
            Format::TarZstd => tar::unpack(self, zstd(reader).map_err(|error| self.invalid(&error))?),
            Format::Zip => zip::unpack(self, file),
        }
    }

    /// Counts a member, also one that becomes no entry: a small archive may have any number of them.
    fn count(&self, members: &mut u64) -> Result<(), SourceError> {
        if self.cancel.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        *members += 1;
        check_count(*members)
    }

    /// Counts one entry and turns its name into a path; the top itself is `None`.
    fn begin(&mut self, name: &[u8], members: &mut u64) -> Result<Option<RelativePath>, SourceError> {
        self.count(members)?;
        self.disk.admit_entry()?;
        self.progress.add_entry();
        entry::archive_path(name).map_err(|refusal| SourceError::entry(name, refusal))
    }

    /// Writes a file of exactly `bytes` bytes.
    fn file(
        &mut self,
        path: &RelativePath,
        executable: bool,
        bytes: u64,
        content: &mut dyn Read,
        buffer: &mut [u8],
    ) -> Result<(), SourceError> {
        self.disk.expect(bytes)?;
        let mut file = self.tree.file(path.as_bytes(), executable)?;
        let mut left = bytes;
        loop {
            if self.cancel.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            let count = self.progress.source(|| read_some(content, buffer), |_| 0);
            let count = count.map_err(|error| self.invalid_entry(path, &error))?;
            if count == 0 {
                break;
            }
            left = left.checked_sub(count as u64).ok_or_else(|| refused(path, EntryRefusal::TooLong))?;
            // Others write to the same disk meanwhile.
            self.disk.admit(count as u64)?;
            self.progress
                .disk(count as u64, || file.write_all(&buffer[..count]))
                .map_err(|error| self.disk.write_failed(count as u64, error))?;
        }
        if left > 0 {
            let cut_short = EntryRefusal::CutShort { announced_bytes: bytes, carried_bytes: bytes - left };
            return Err(refused(path, cut_short));
        }
        Ok(())
    }

    fn link(&mut self, path: &RelativePath, target: Vec<u8>) -> Result<(), SourceError> {
        let target = entry::link_target(path, target).map_err(|refusal| refused(path, refusal))?;
        self.tree.link(path.as_bytes(), target.as_bytes())
    }

    fn directory(&mut self, path: &RelativePath) -> Result<(), SourceError> {
        self.tree.directory(path.as_bytes())
    }

    fn invalid(&self, error: &(dyn Error + 'static)) -> SourceError {
        SourceError::ArchiveInvalid { uri: self.uri.to_owned(), detail: problem("the archive is damaged", error) }
    }

    fn invalid_entry(&self, path: &RelativePath, error: &(dyn Error + 'static)) -> SourceError {
        let damaged = format!("the archive is damaged in entry \"{}\"", printable(path.as_bytes()));
        SourceError::ArchiveInvalid { uri: self.uri.to_owned(), detail: problem(&damaged, error) }
    }
}

/// What is wrong: `damaged`, unless it is whole and asks for more than it gets.
fn problem(damaged: &str, error: &(dyn Error + 'static)) -> String {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match inner.and_then(|inner| inner.downcast_ref::<WindowTooLarge>()) {
        Some(too_large) => too_large.to_string(),
        None => format!("{damaged}: {}", escape_control_characters(&error.to_string())),
    }
}

fn refused(path: &RelativePath, refusal: EntryRefusal) -> SourceError {
    SourceError::entry(path.as_bytes(), refusal)
}

fn check_count(count: u64) -> Result<(), SourceError> {
    let max = u64::from(ENTRIES_MAX);
    if count <= max { Ok(()) } else { Err(SourceError::TooManyEntries { count, max }) }
}

/// Reads a file by position, so that several readers share one descriptor.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

fn gzip<R: Read>(reader: R) -> flate2::bufread::MultiGzDecoder<BufReader<R>> {
    flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, reader))
}

fn zstd<R: Read>(reader: R) -> io::Result<zstandard::Decoder<R>> {
    zstandard::Decoder::new(BufReader::with_capacity(READ_BYTES, reader))
}

fn first_bytes(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(TAR_BLOCK_BYTES);
    reader.take(TAR_BLOCK_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A header block has its own checksum; an empty archive, of zeros only, is not told from a file of zeros.
fn is_tar(block: &[u8]) -> bool {
    let Ok(block): Result<&[u8; TAR_BLOCK_BYTES], _> = block.try_into() else { return false };
    let header = ::tar::Header::from_byte_slice(block);
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
    block[0] != 0 && header.cksum().is_ok_and(|expected| expected == sum)
}

fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
