//! Which part of which file a chunk covers: pages by binary search, files by binary search in a page.

use std::sync::Arc;

use peerdist_core::manifest::{Entry, EntryKind, EntryPage, ManifestRoot, RelativePath};

use super::error::StoreError;
use super::pages::Pages;

/// The part of a chunk that lies in one file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Index of the file among the entries.
    pub(super) entry: u32,
    /// The file.
    pub(super) file: SegmentFile,
    /// Where in the file it starts.
    pub(super) offset: u64,
    /// How long it is.
    pub(super) length: usize,
}

/// A file as the manifest describes it.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) path: RelativePath,
    /// Offset of its first byte in the package.
    pub(super) first_byte: u64,
    pub(super) bytes: u64,
    pub(super) executable: bool,
}

/// The segments of the bytes from `first_byte`, in order; together they are `length` bytes long.
pub(super) fn segments_of(
    pages: &Pages,
    root: &ManifestRoot,
    first_byte: u64,
    length: u32,
) -> Result<Vec<Segment>, StoreError> {
    let end = first_byte + u64::from(length);
    let mut cursor = Cursor::at(pages, root, first_byte)?;
    let (mut next, mut segments) = (first_byte, Vec::new());
    while next < end {
        let Some((entry, first, found)) = cursor.next(pages, root)? else {
            return Err(StoreError::UnknownPackage(root.digest()));
        };
        let EntryKind::File { bytes, executable } = found.kind else { continue };
        let file_end = first + bytes;
        if file_end <= next {
            continue;
        }
        let taken = file_end.min(end) - next;
        let file = SegmentFile { path: found.path, first_byte: first, bytes, executable };
        segments.push(Segment { entry, file, offset: next - first, length: taken as usize });
        next += taken;
    }
    Ok(segments)
}

/// Walks entries from the one that has a byte.
struct Cursor {
    page: Arc<EntryPage>,
    page_position: usize,
    entry_position: usize,
}

impl Cursor {
    fn at(pages: &Pages, root: &ManifestRoot, byte: u64) -> Result<Self, StoreError> {
        let page_position = root.entry_page_of_byte(byte);
        let page = pages.entry_page(root, page_position)?;
        let entry_position = page.position_of_byte(byte);
        Ok(Self { page, page_position, entry_position })
    }

    fn next(&mut self, pages: &Pages, root: &ManifestRoot) -> Result<Option<(u32, u64, Entry)>, StoreError> {
        if self.entry_position == self.page.entries.len() {
            self.page_position += 1;
            if self.page_position >= root.entry_pages().len() {
                return Ok(None);
            }
            self.page = pages.entry_page(root, self.page_position)?;
            self.entry_position = 0;
        }
        let position = self.entry_position;
        self.entry_position += 1;
        let index = root.entry_pages()[self.page_position].first_index + position as u32;
        Ok(Some((index, self.page.first_bytes[position], self.page.entries[position].clone())))
    }
}
