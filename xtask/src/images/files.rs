//! What goes into an image: the program, and the certificates by which sources are recognised. A development image also
//! gets the libraries that its program asks this machine for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::elf;
use super::layer::File;
use crate::step::output;

/// Where TLS libraries look for certificates; operator/src/server/build.rs names it, too.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where Debian puts it.
const BUSYBOX: &str = "/bin/busybox";
/// Characters of a line in PEM.
const PEM_LINE: usize = 64;

/// All files of an image, in the order of their paths.
pub(super) fn of_image(program: &Path, folder: &str, development: bool) -> Result<Vec<File>> {
    let name = program.file_name().context("a program has a name")?.to_string_lossy();
    let path = format!("{}/{name}", folder.trim_start_matches('/'));
    if !development {
        return released(path, read(program)?).with_context(|| format!("cannot release {}", program.display()));
    }
    let mut files = with_certificates(path, without_debug_information(program)?);
    for library in libraries(program)? {
        let path = library.to_string_lossy().trim_start_matches('/').to_owned();
        files.push(File { path, is_executable: true, content: read(&library)? });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The program has to be whole by itself: there is nothing else.
fn released(path: String, content: Vec<u8>) -> Result<Vec<File>> {
    elf::check_static(&content)?;
    Ok(with_certificates(path, content))
}

fn with_certificates(path: String, content: Vec<u8>) -> Vec<File> {
    let certificates = File { path: CERTIFICATES.to_owned(), is_executable: false, content: certificates() };
    vec![certificates, File { path, is_executable: true, content }]
}

/// The shell and what goes with it, which Debian links statically.
pub(super) fn busybox() -> Result<File> {
    let content = read(Path::new(BUSYBOX)).context("install busybox-static")?;
    Ok(File { path: BUSYBOX.trim_start_matches('/').to_owned(), is_executable: true, content })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Two thirds of a debug build. The linker's package has the program for it.
fn without_debug_information(program: &Path) -> Result<Vec<u8>> {
    let stripped = program.with_extension("stripped");
    let arguments = ["--strip-debug".to_owned(), "-o".to_owned()];
    let files = [&stripped, program].map(|path| path.to_string_lossy().into_owned());
    output(Path::new("/"), Path::new("strip"), &[&arguments[..], &files[..]].concat())?;
    let content = read(&stripped)?;
    fs::remove_file(&stripped).context("cannot remove a temporary file")?;
    Ok(content)
}

/// The roots that Mozilla trusts, as one PEM file.
fn certificates() -> Vec<u8> {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let encoded = STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(PEM_LINE) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

/// What the loader would load, the loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = output(Path::new("/"), Path::new("ldd"), &[program.to_string_lossy().into_owned()])?;
    let libraries: Vec<PathBuf> = listed.lines().filter_map(library).collect();
    if libraries.is_empty() {
        bail!("ldd names no library of {}: expected a debug build", program.display());
    }
    Ok(libraries)
}

/// The path in a line such as `libm.so.6 => /lib/libm.so.6 (0x1)` or `/lib64/ld.so (0x1)`.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::elf::LOADER;
    use crate::images::elf::tests::{LOADED, program};
    use crate::images::layer;

    #[test]
    fn a_released_image_has_one_static_program_and_certificates_and_nothing_else() {
        let files = released("usr/bin/peerdist".to_owned(), program(&[LOADED])).unwrap();
        let expected = [
            ("etc/", 0o755),
            ("etc/ssl/", 0o755),
            ("etc/ssl/certs/", 0o755),
            ("etc/ssl/certs/ca-certificates.crt", 0o644),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/peerdist", 0o755),
        ];
        let entries = layer::tests::entries(&layer::pack(&files).unwrap());
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
        assert!(released("usr/bin/peerdist".to_owned(), program(&[LOADED, LOADER])).is_err());
    }

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let path = |line| library(line).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(path("\tlibm.so.6 => /lib/libm.so.6 (0x00007f)").as_deref(), Some("/lib/libm.so.6"));
        assert_eq!(path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    }

    #[test]
    fn certificates_are_pem() {
        let text = String::from_utf8(certificates()).unwrap();
        let blocks = text.matches("-----BEGIN CERTIFICATE-----\n").count();
        assert_eq!(blocks, webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(text.lines().all(|line| line.len() <= PEM_LINE));
    }
}
