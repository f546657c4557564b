//! zip: walked by its central directory, one entry in memory at a time. Stored and deflated entries; encrypted ones
//! and those whose two headers disagree are refused.

use std::fs::File;
use std::io::{BufReader, Read};

use peerdist_core::manifest::{PATH_BYTES_MAX, PathFault, RelativePath};
use zip::read::{ZipFile, ZipFileEntry};
use zip::unstable::read::ZipIterable;
use zip::{CompressionMethod, System, ZipReadOptions};

use super::{READ_BYTES, Unpacking, check_count};
use crate::source::entry::EntryRefusal;
use crate::source::error::SourceError;

/// Buffer of the reader: every entry begins with a seek that empties it.
const BUFFER_BYTES: usize = 64 << 10;
/// The bits of a Unix mode that say what kind an entry is.
const KIND_BITS: u32 = 0o170000;

pub(super) fn unpack(unpacking: &mut Unpacking<'_>, file: &File) -> Result<(), SourceError> {
    let file = file.try_clone().map_err(SourceError::unreadable(unpacking.uri))?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let archive = ZipIterable::try_new(reader, Default::default()).map_err(|error| unpacking.invalid(&error))?;
    let mut archive = archive.enforce_header_consistency(true);
    check_count(archive.len() as u64)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut count = 0;
    let files = archive.files().map_err(|error| unpacking.invalid(&error))?;
    while let Some(entry) = files.next() {
        let entry = entry.map_err(|error| unpacking.invalid(&error))?;
        let name = name_of(&entry).map_err(|refusal| SourceError::entry(entry.name_raw(), refusal))?;
        let kind = kind_of(&entry, &name).map_err(|refusal| SourceError::entry(&name, refusal))?;
        let Some(path) = unpacking.begin(&name, &mut count)? else {
            top(&kind).map_err(|refusal| SourceError::entry(&name, refusal))?;
            continue;
        };
        if kind == Kind::Directory {
            unpacking.directory(&path)?;
            continue;
        }
        let opened = entry.with_reader(files.reader_mut(), ZipReadOptions::new());
        let mut opened = opened.map_err(|error| unpacking.invalid_entry(&path, &error))?;
        match kind {
            Kind::Link => {
                let target = link_target(unpacking, &path, &mut opened)?;
                unpacking.link(&path, target)?;
            }
            Kind::Directory | Kind::File { .. } => {
                let executable = kind == Kind::File { executable: true };
                let bytes = opened.size();
                unpacking.file(&path, executable, bytes, &mut opened, &mut buffer)?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File { executable: bool },
    Link,
}

/// Unix writers store the bytes of the name, others a code page that the format names.
fn name_of(entry: &ZipFileEntry<'_>) -> Result<Vec<u8>, EntryRefusal> {
    if entry.system() == System::Unix {
        return Ok(entry.name_raw().to_vec());
    }
    entry.name().map(|name| name.into_owned().into_bytes()).map_err(|_| EntryRefusal::Damaged)
}

fn kind_of(entry: &ZipFileEntry<'_>, name: &[u8]) -> Result<Kind, EntryRefusal> {
    if entry.encrypted() {
        return Err(EntryRefusal::Encrypted);
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(EntryRefusal::Compression);
    }
    let mode = if entry.system() == System::Unix { entry.unix_mode().unwrap_or(0) } else { 0 };
    match mode & KIND_BITS {
        0 | 0o100000 | 0o040000 if name.ends_with(b"/") => Ok(Kind::Directory),
        0o040000 => Ok(Kind::Directory),
        0 | 0o100000 => Ok(Kind::File { executable: mode & 0o111 != 0 }),
        0o120000 => Ok(Kind::Link),
        0o010000 => Err(EntryRefusal::NamedPipe),
        0o140000 => Err(EntryRefusal::Socket),
        0o020000 | 0o060000 => Err(EntryRefusal::Device),
        _ => Err(EntryRefusal::UnknownKind),
    }
}

fn top(kind: &Kind) -> Result<(), EntryRefusal> {
    if *kind == Kind::Directory { Ok(()) } else { Err(EntryRefusal::Name(PathFault::Empty)) }
}

fn link_target<R: Read>(
    unpacking: &Unpacking<'_>,
    path: &RelativePath,
    entry: &mut ZipFile<'_, R>,
) -> Result<Vec<u8>, SourceError> {
    let mut target = Vec::new();
    let read = entry.take(PATH_BYTES_MAX as u64 + 1).read_to_end(&mut target);
    read.map_err(|error| unpacking.invalid_entry(path, &error))?;
    Ok(target)
}
