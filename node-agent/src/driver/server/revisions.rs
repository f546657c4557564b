//! Where the revisions of plans begin in a run. They must rise over restarts, whatever the wall clock says and without
//! a write for each: every start reserves a range that no run uses up.

use std::path::Path;

use peerdist_core::message::Revision;

use crate::private_file::{self, FileError};

/// More than a server gives out between two starts, and room for millions of starts.
const REVISIONS_PER_RUN: Revision = 1 << 40;

/// The revision above which this run's plans lie.
///
/// # Errors
/// When the file in the server's root cannot be read or written.
pub(super) fn reserve(root: &Path) -> Result<Revision, FileError> {
    let path = root.join("identity/revisions");
    let stored = private_file::read(&path)?.unwrap_or_default();
    let last = stored.first_chunk().map_or(0, |bytes| Revision::from_be_bytes(*bytes));
    private_file::replace(&path, &last.saturating_add(REVISIONS_PER_RUN).to_be_bytes())?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_begins_above_all_of_the_last_run() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(reserve(folder.path()).unwrap(), 0);
        assert_eq!(reserve(folder.path()).unwrap(), REVISIONS_PER_RUN);
        assert_eq!(reserve(folder.path()).unwrap(), 2 * REVISIONS_PER_RUN);
    }
}
