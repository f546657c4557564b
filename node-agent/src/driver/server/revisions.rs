//! Where the revisions of plans begin in a run. They must rise over restarts, whatever the wall clock says and without
//! a write for each: every start reserves a range that no run uses up. They must also rise when the server begins anew
//! with the same keys and an empty or older disk: there the clock helps, which is never needed otherwise. Where it is
//! behind that of the machine before, the server counts on from what nodes say, which may be above what it reserved.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use peerdist_core::message::Revision;

use crate::private_file::{self, FileError};

/// More than a server gives out between two starts, and no more than the clock gives for a second: however often a server
/// starts, one that begins anew elsewhere begins above it.
const REVISIONS_PER_RUN: Revision = REVISIONS_PER_SECOND;
const REVISIONS_PER_SECOND: Revision = 1 << 32;
/// A clock that shows the far future leaves room above.
const SECONDS_MAX: u64 = 1 << 31;

/// The revision above which this run's plans lie.
///
/// # Errors
/// When the file in the server's root cannot be read or written.
pub(super) fn reserve(root: &Path, wall: SystemTime) -> Result<Revision, FileError> {
    let path = root.join("identity/revisions");
    let stored = private_file::read(&path)?.unwrap_or_default();
    let last = stored.first_chunk().map_or(0, |bytes| Revision::from_be_bytes(*bytes));
    let seconds = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(SECONDS_MAX);
    let last = last.max(seconds * REVISIONS_PER_SECOND);
    private_file::replace(&path, &last.saturating_add(REVISIONS_PER_RUN).to_be_bytes())?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_start_begins_above_all_of_the_last_run() {
        let folder = tempfile::tempdir().unwrap();
        let revision = |wall| reserve(folder.path(), wall).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = revision(now);
        assert_eq!(revision(now), first + REVISIONS_PER_RUN);
        assert_eq!(revision(UNIX_EPOCH), first + 2 * REVISIONS_PER_RUN, "a clock that was set back changes nothing");
        assert!(revision(now + Duration::from_secs(3600)) > first + 3 * REVISIONS_PER_RUN);
    }

    #[test]
    fn server_that_lost_its_disk_begins_above_what_the_fleet_knows() {
        let (lost, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 86_400);
        let last = (20_000..20_100).map(|number| reserve(lost.path(), day(number)).unwrap()).max().unwrap();
        assert!(reserve(empty.path(), day(20_100)).unwrap() > last + REVISIONS_PER_RUN);
    }

    #[test]
    fn server_that_started_often_and_is_moved_then_begins_above_what_the_fleet_knows() {
        let (before, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let second = |number: u64| UNIX_EPOCH + Duration::from_secs(1_800_000_000 + number);
        let last = (0..20).map(|number| reserve(before.path(), second(number * 10)).unwrap()).max().unwrap();
        assert!(reserve(empty.path(), second(191)).unwrap() >= last + REVISIONS_PER_RUN);
    }

    #[test]
    fn clock_of_the_far_future_leaves_room() {
        let folder = tempfile::tempdir().unwrap();
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert!(reserve(folder.path(), far).unwrap() < Revision::MAX / 2 + 2);
    }
}
