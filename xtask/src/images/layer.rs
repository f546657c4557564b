//! Packs files as a layer, and a layout as an archive. Owners, times and order do not depend on who packs, so that equal
//! files make equal bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::layout::digest;
use crate::tree;

/// A file of an image.
pub(super) struct File {
    /// From the root, without a slash before it.
    pub(super) path: String,
    /// Whether it is a program.
    pub(super) is_executable: bool,
    /// All of it.
    pub(super) content: Vec<u8>,
}

/// A packed layer.
pub(super) struct Layer {
    /// Digest of the archive before it was compressed.
    pub(super) uncompressed_digest: String,
    /// The archive, compressed.
    pub(super) compressed: Vec<u8>,
}

/// Packs files in their order, each after the folders that it lies in.
pub(super) fn pack(files: &[File]) -> Result<Layer> {
    let mut archive = Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let folder = &file.path[..=end];
            if folders.insert(folder) {
                append(&mut archive, folder, EntryType::Directory, 0o755, &[])?;
            }
        }
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        append(&mut archive, &file.path, EntryType::Regular, mode, &file.content)?;
    }
    let packed = archive.into_inner().context("cannot finish a layer")?;
    let mut compressor = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    compressor.write_all(&packed).context("cannot compress a layer")?;
    let compressed = compressor.finish().context("cannot compress a layer")?;
    Ok(Layer { uncompressed_digest: digest(&packed), compressed })
}

/// Writes a layout as the archive that container runtimes import.
pub(super) fn archive(layout: &Path, target: &Path) -> Result<()> {
    let file = fs::File::create(target).with_context(|| format!("cannot make {}", target.display()))?;
    let mut archive = Builder::new(file);
    for path in tree::all_files(layout)? {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        append(&mut archive, &tree::relative(layout, &path).to_string(), EntryType::Regular, 0o644, &content)?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).with_context(|| format!("cannot write {}", target.display()))
}

fn append<W: Write>(archive: &mut Builder<W>, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).with_context(|| format!("cannot pack {path}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Path and mode of all that was packed, in its order.
    pub(in crate::images) fn entries(layer: &Layer) -> Vec<(String, u32)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&layer.compressed[..]));
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            (entry.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap())
        });
        entries.collect()
    }

    fn files() -> Vec<File> {
        let file = |path: &str, content: &[u8]| File {
            path: path.to_owned(),
            is_executable: path.starts_with("usr"),
            content: content.to_vec(),
        };
        vec![file("etc/a", b"1"), file("usr/bin/b", b"2"), file("usr/bin/c", b"3")]
    }

    #[test]
    fn equal_files_make_equal_layers_and_each_folder_comes_once_before_its_files() {
        let (first, second) = (pack(&files()).unwrap(), pack(&files()).unwrap());
        assert_eq!(first.compressed, second.compressed);
        let expected = [
            ("etc/", 0o755),
            ("etc/a", 0o644),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/b", 0o755),
            ("usr/bin/c", 0o755),
        ];
        assert_eq!(entries(&first), expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
