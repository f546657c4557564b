//! Whether a program is whole by itself, from the table at its beginning: one that needs libraries names the loader that
//! brings them. Only what all our targets have is read, 64 bits and the lowest byte first; the rest of ELF is left out.

use anyhow::{Context, Result, bail};

/// What such a file begins with.
const BEGINNING: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// Where the header says where the table begins, how long an entry is, and how many there are.
const TABLE: Field = Field { at: 0x20, bytes: 8 };
const ENTRY_BYTES: Field = Field { at: 0x36, bytes: 2 };
const ENTRIES: Field = Field { at: 0x38, bytes: 2 };
/// Where an entry says what it is about, and where in the file that lies.
const KIND: Field = Field { at: 0, bytes: 4 };
const CONTENT: Field = Field { at: 8, bytes: 8 };
const CONTENT_BYTES: Field = Field { at: 0x20, bytes: 8 };
/// The kind of the entry about the loader.
pub(super) const LOADER: u8 = 3;

/// A number of the format.
struct Field {
    at: usize,
    bytes: usize,
}

/// Fails if the program names a loader, or is none that can be read.
pub(super) fn check_static(program: &[u8]) -> Result<()> {
    match loader(program)? {
        Some(loader) => bail!("it asks for {loader}: expected a static program, since an image has no libraries"),
        None => Ok(()),
    }
}

fn loader(program: &[u8]) -> Result<Option<String>> {
    if !program.starts_with(&BEGINNING) {
        bail!("it is no 64-bit ELF file with the lowest byte first: expected a program for x86_64 or aarch64");
    }
    let (table, entry_bytes) = (number(program, 0, &TABLE)?, number(program, 0, &ENTRY_BYTES)?);
    let entries = number(program, 0, &ENTRIES)?;
    if entries == 0 {
        bail!("it has no table of what is loaded: expected a program, not an object file");
    }
    for index in 0..entries {
        let entry = table.saturating_add(index * entry_bytes);
        if number(program, entry, &KIND)? == usize::from(LOADER) {
            let begin = number(program, entry, &CONTENT)?;
            let end = begin.saturating_add(number(program, entry, &CONTENT_BYTES)?);
            let name = program.get(begin..end).context("it ends before the name of its loader")?;
            return Ok(Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

fn number(program: &[u8], base: usize, field: &Field) -> Result<usize> {
    let begin = base.saturating_add(field.at);
    let bytes = program.get(begin..begin.saturating_add(field.bytes)).context("it ends before its table does")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const HEADER_BYTES: usize = 64;
    const ENTRY: usize = 56;
    /// The kind of an entry about what is loaded itself.
    pub(in crate::images) const LOADED: u8 = 1;

    /// A program whose table has entries of these kinds, and the path of a loader behind it.
    pub(in crate::images) fn program(kinds: &[u8]) -> Vec<u8> {
        let path = b"/lib64/loader\0";
        let mut program = vec![0; HEADER_BYTES + kinds.len() * ENTRY];
        program[..BEGINNING.len()].copy_from_slice(&BEGINNING);
        program[TABLE.at] = HEADER_BYTES as u8;
        program[ENTRY_BYTES.at] = ENTRY as u8;
        program[ENTRIES.at] = kinds.len() as u8;
        let end = program.len() as u64;
        for (index, kind) in kinds.iter().enumerate() {
            let entry = HEADER_BYTES + index * ENTRY;
            program[entry] = *kind;
            program[entry + CONTENT.at..][..CONTENT.bytes].copy_from_slice(&end.to_le_bytes());
            program[entry + CONTENT_BYTES.at] = path.len() as u8;
        }
        program.extend_from_slice(path);
        program
    }

    #[test]
    fn a_program_that_names_a_loader_is_not_static() {
        assert!(check_static(&program(&[LOADED, LOADED])).is_ok());
        let error = check_static(&program(&[LOADED, LOADER, LOADED])).unwrap_err().to_string();
        assert!(error.starts_with("it asks for /lib64/loader: "), "{error}");
    }

    #[test]
    fn programs_of_this_machine_are_understood() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let loader = loader(&own).unwrap().unwrap();
        assert!(std::path::Path::new(&loader).is_file(), "tests have libraries of the machine: {loader}");
    }

    #[test]
    fn what_is_no_program_or_ends_early_is_an_error_wherever_it_ends() {
        for text in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x01\x01"] {
            assert!(check_static(text).is_err(), "{text:?}");
        }
        assert!(check_static(&program(&[])).is_err(), "nothing would be loaded");
        let whole = program(&[LOADED, LOADER]);
        for end in 0..whole.len() {
            assert!(check_static(&whole[..end]).is_err(), "{end}");
        }
        let mut elsewhere = program(&[LOADED]);
        elsewhere[TABLE.at..][..TABLE.bytes].fill(0xff);
        assert!(check_static(&elsewhere).is_err(), "a table behind the end of all files");
    }
}
