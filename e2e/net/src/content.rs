//! What is distributed: folders of files whose bytes no compression and no accident can make alike.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// How many files a large package is spread over.
const LARGE_FILES: u64 = 8;
/// Written at once.
const BLOCK_BYTES: u64 = 64 * 1024;
/// Small files beside the large ones, to have more entries than chunks.
const SMALL_FILES: u64 = 40;

/// Fills `folder` with about `bytes` of content that depends on `seed` alone: large files, small ones in a folder of
/// their own, an empty one, an executable and a link. Gives the exact sum of the sizes of its files.
///
/// # Errors
/// When a file cannot be written.
pub fn write_tree(folder: &Path, bytes: u64, seed: u64) -> Result<u64> {
    let mut random = SmallRng::seed_from_u64(seed);
    fs::create_dir_all(folder.join("small")).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut total = 0;
    for number in 0..LARGE_FILES {
        total += write_file(&folder.join(format!("large-{number}.bin")), bytes / LARGE_FILES, &mut random)?;
    }
    for number in 0..SMALL_FILES {
        total += write_file(&folder.join(format!("small/{number:03}.txt")), 100 + number * 37, &mut random)?;
    }
    write_file(&folder.join("empty"), 0, &mut random)?;
    let program = folder.join("run");
    total += write_file(&program, 1000, &mut random)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink("small/000.txt", folder.join("link"))?;
    Ok(total)
}

/// Fills `folder` with one file of `bytes` of content that depends on `seed` alone, and gives its path.
///
/// # Errors
/// When it cannot be written.
pub fn write_one_file(folder: &Path, bytes: u64, seed: u64) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("content.bin");
    write_file(&file, bytes, &mut SmallRng::seed_from_u64(seed))?;
    Ok(file)
}

fn write_file(path: &Path, bytes: u64, random: &mut SmallRng) -> Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut writer = BufWriter::new(file);
    let mut left = bytes;
    while left > 0 {
        let mut block = vec![0; usize::try_from(left.min(BLOCK_BYTES))?];
        random.fill_bytes(&mut block);
        writer.write_all(&block)?;
        left -= block.len() as u64;
    }
    writer.flush()?;
    Ok(bytes)
}
