//! Is there room for packages, and may this user write there?

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use super::Finding;

const CHECK: &str = "disk space";
/// Less than this and hardly any package fits.
const FREE_BYTES_ADVISED: u64 = 10 << 30;

pub(super) fn check(root: &Path) -> Finding {
    let existing = nearest_existing(root);
    let seen = existing.display();
    if let Err(error) = rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        let advice = format!("make {} and give it to the user that runs peerdist", root.display());
        return Finding::fail(CHECK, format!("{seen} cannot be written to: {error}"), advice);
    }
    match rustix::fs::statvfs(&existing) {
        Ok(stat) => judge(&existing, stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_favail),
        Err(error) => Finding::fail(CHECK, format!("{seen}: {error}"), "give --root a directory on a local disk"),
    }
}

fn judge(path: &Path, free_bytes: u64, free_inodes: u64) -> Finding {
    let seen = format!("{} free, {free_inodes} inodes, at {}", BinaryBytes(free_bytes), path.display());
    // File systems without a table of inodes report none at all.
    if free_bytes == 0 {
        return Finding::fail(CHECK, seen, "make room or give --root another disk");
    }
    if free_bytes < FREE_BYTES_ADVISED {
        return Finding::warn(
            CHECK,
            seen,
            format!("have {} for packages of some size", BinaryBytes(FREE_BYTES_ADVISED)),
        );
    }
    Finding::ok(CHECK, seen)
}

fn nearest_existing(root: &Path) -> PathBuf {
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let existing = absolute.ancestors().find(|path| path.exists()).map(Path::to_owned);
    existing.unwrap_or(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    #[test]
    fn directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let finding = check(&directory.path().join("not/yet"));
        assert!(finding.seen.ends_with(&directory.path().display().to_string()), "{finding:?}");
        assert_ne!(finding.severity, Severity::Fail);
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        let severity = |free_bytes| judge(Path::new("/"), free_bytes, 1).severity;
        assert_eq!([severity(0), severity(1), severity(1 << 40)], [Severity::Fail, Severity::Warn, Severity::Ok]);
    }
}
