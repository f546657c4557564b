//! tar: ustar, GNU long names and pax, read entry by entry. Hard links, devices and sparse files are refused.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use peerdist_core::manifest::PathFault;
use tar::{Archive, Entry, EntryType};

use super::{READ_BYTES, Unpacking, refused};
use crate::source::entry::EntryRefusal;
use crate::source::error::SourceError;

/// Most bytes of headers (long names, pax records, sparse maps) before one entry: they are held in memory.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Most bytes after the end of an archive; writers pad to a record, usually 10 KiB.
const TRAILER_BYTES_MAX: u64 = 64 << 20;

pub(super) fn unpack(unpacking: &mut Unpacking<'_>, reader: impl Read) -> Result<(), SourceError> {
    let allowance = Rc::new(Cell::new(u64::MAX));
    let mut archive = Archive::new(Bounded { reader, left: Rc::clone(&allowance) });
    let mut buffer = vec![0; READ_BYTES];
    let mut count = 0;
    let mut entries = archive.entries().map_err(|error| unpacking.invalid(&error))?;
    loop {
        allowance.set(HEADER_BYTES_MAX);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| unpacking.invalid(&error))?;
        allowance.set(u64::MAX);
        unpack_entry(unpacking, &mut entry, &mut count, &mut buffer)?;
    }
    allowance.set(TRAILER_BYTES_MAX);
    // Reading to the end lets the decompressor check its own checksum.
    let drained = io::copy(&mut archive.into_inner(), &mut io::sink());
    drained.map(drop).map_err(|error| unpacking.invalid(&error))
}

fn unpack_entry<R: Read>(
    unpacking: &mut Unpacking<'_>,
    entry: &mut Entry<'_, R>,
    count: &mut u64,
    buffer: &mut [u8],
) -> Result<(), SourceError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return unpacking.count(count);
    }
    let name = entry.path_bytes().into_owned();
    let Some(path) = unpacking.begin(&name, count)? else {
        return top(kind).map_err(|refusal| SourceError::entry(&name, refusal));
    };
    match kind {
        EntryType::Directory => unpacking.directory(&path),
        // Before ustar a directory was a file whose name ends with a slash.
        EntryType::Regular if name.ends_with(b"/") && entry.size() == 0 => unpacking.directory(&path),
        EntryType::Regular | EntryType::Continuous => {
            if has_sparse_records(entry).map_err(|error| unpacking.invalid_entry(&path, &error))? {
                return Err(refused(&path, EntryRefusal::Sparse));
            }
            let mode = entry.header().mode().map_err(|error| unpacking.invalid_entry(&path, &error))?;
            let bytes = entry.size();
            unpacking.file(&path, mode & 0o111 != 0, bytes, entry, buffer)
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            unpacking.link(&path, target)
        }
        kind => Err(refused(&path, refusal_of(kind))),
    }
}

/// `./` is the top of the tree: as a directory it says nothing, as anything else it is refused.
fn top(kind: EntryType) -> Result<(), EntryRefusal> {
    if kind == EntryType::Directory { Ok(()) } else { Err(EntryRefusal::Name(PathFault::Empty)) }
}

fn refusal_of(kind: EntryType) -> EntryRefusal {
    match kind {
        EntryType::Link => EntryRefusal::HardLink,
        EntryType::Char | EntryType::Block => EntryRefusal::Device,
        EntryType::Fifo => EntryRefusal::NamedPipe,
        EntryType::GNUSparse => EntryRefusal::Sparse,
        _ => EntryRefusal::UnknownKind,
    }
}

/// pax stores sparse files as regular ones with a map in front of their data.
fn has_sparse_records<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<bool> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A reader that ends with an error after a number of bytes that others set.
struct Bounded<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("headers or padding without end"));
        }
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..count])?;
        self.left.set(left - count as u64);
        Ok(count)
    }
}
