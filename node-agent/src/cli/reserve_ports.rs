//! `peerdist reserve-ports`: keeps the ports of the catalogue out of Linux's ephemeral range, for an init container that
//! an administrator has asked for. What others reserved stays; a second call changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use super::ExitStatus;
use super::doctor::reserved_range::{RESERVED_FILE, merged};

pub(super) fn run() -> ExitStatus {
    match reserve(Path::new(RESERVED_FILE)) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            eprintln!(
                "peerdist reserve-ports: cannot change {RESERVED_FILE}: {error}: it needs root and a writable /proc/sys"
            );
            ExitStatus::Failed
        }
    }
}

fn reserve(file: &Path) -> io::Result<()> {
    match merged(fs::read_to_string(file)?.trim()) {
        Some(list) => fs::write(file, list),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reserved_stays_and_a_second_call_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reserved");
        fs::write(&file, "8080,9148\n").unwrap();
        for _ in 0..2 {
            reserve(&file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "8080,9148,34320-34760");
        }
    }
}
