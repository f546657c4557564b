//! Which versions of a distribution stay on a disk when a newer one has become current. The same rule for a node's
//! published trees and for the server's library; removing them is the store's business.

use std::time::{Duration, Instant};

use crate::names::Version;

/// A version on the disk, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldVersion {
    /// The version.
    pub version: Version,
    /// When it stopped being current; `None` for the current one. A version found at start stopped then.
    pub superseded_at: Option<Instant>,
}

/// What stays and what goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// Kept by count: the current version and the newest others.
    pub retained: Vec<Version>,
    /// Too many, but consumers may still have them open: kept until their time is over.
    pub in_grace: Vec<Version>,
    /// May be removed now.
    pub evictable: Vec<Version>,
    /// When the next version in grace may go.
    pub look_again_at: Option<Instant>,
}

/// Decides about `held`, given in the order in which the versions became current (newest last). `current` stays
/// always and counts as one of `versions_kept`.
pub fn decide_retention(
    held: &[HeldVersion],
    current: Option<&Version>,
    versions_kept: u32,
    grace: Duration,
    now: Instant,
) -> Retention {
    let mut retention = Retention::default();
    let mut places = versions_kept.saturating_sub(u32::from(current.is_some()));
    for candidate in held.iter().rev() {
        let version = candidate.version.clone();
        if Some(&candidate.version) == current {
            retention.retained.push(version);
        } else if places > 0 {
            places -= 1;
            retention.retained.push(version);
        } else {
            match candidate.superseded_at.and_then(|at| at.checked_add(grace)).filter(|end| now < *end) {
                Some(end) => {
                    retention.in_grace.push(version);
                    retention.look_again_at = retention.look_again_at.into_iter().chain([end]).min();
                }
                None => retention.evictable.push(version),
            }
        }
    }
    retention
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(3600);

    fn version(number: usize) -> Version {
        Version::new(&format!("{number}")).unwrap()
    }

    fn held(start: Instant, superseded_after_seconds: &[u64], current: usize) -> Vec<HeldVersion> {
        let mut held: Vec<HeldVersion> = superseded_after_seconds
            .iter()
            .enumerate()
            .map(|(number, seconds)| HeldVersion {
                version: version(number),
                superseded_at: Some(start + Duration::from_secs(*seconds)),
            })
            .collect();
        held.push(HeldVersion { version: version(current), superseded_at: None });
        held
    }

    #[test]
    fn the_newest_versions_stay_and_older_ones_go_after_their_grace() {
        let start = Instant::now();
        let held = held(start, &[0, 1800, 1900], 3);
        let at = |seconds| decide_retention(&held, Some(&version(3)), 2, GRACE, start + Duration::from_secs(seconds));
        let early = at(3599);
        assert_eq!(early.retained, [version(3), version(2)]);
        assert_eq!(early.in_grace, [version(1), version(0)]);
        assert_eq!(early.look_again_at, Some(start + GRACE));
        let later = at(3600);
        assert_eq!((later.in_grace, later.evictable), (vec![version(1)], vec![version(0)]));
        assert_eq!(at(9000).evictable, [version(1), version(0)]);
    }

    #[test]
    fn a_rollback_keeps_the_older_current_version() {
        let start = Instant::now();
        let mut held = held(start, &[0], 1);
        held[1].superseded_at = Some(start);
        let retention = decide_retention(&held, Some(&version(0)), 1, GRACE, start + 2 * GRACE);
        assert_eq!((retention.retained, retention.evictable), (vec![version(0)], vec![version(1)]));
    }

    #[test]
    fn without_a_current_version_all_places_go_to_the_newest() {
        let start = Instant::now();
        let retention = decide_retention(&held(start, &[0, 0], 2), None, 2, GRACE, start + GRACE);
        assert_eq!((retention.retained, retention.evictable), (vec![version(2), version(1)], vec![version(0)]));
    }

    proptest! {
        #[test]
        fn every_version_gets_one_verdict_and_the_current_one_stays(
            superseded in proptest::collection::vec(0_u64..10_000, 0..12),
            versions_kept in 0_u32..6,
            now_seconds in 0_u64..20_000,
        ) {
            let start = Instant::now();
            let current = version(superseded.len());
            let held = held(start, &superseded, superseded.len());
            let retention =
                decide_retention(&held, Some(&current), versions_kept, GRACE, start + Duration::from_secs(now_seconds));
            let verdicts = retention.retained.len() + retention.in_grace.len() + retention.evictable.len();
            prop_assert_eq!(verdicts, held.len());
            prop_assert!(retention.retained.contains(&current));
            prop_assert_eq!(retention.retained.len(), held.len().min(versions_kept.max(1) as usize));
            prop_assert_eq!(retention.look_again_at.is_some(), !retention.in_grace.is_empty());
        }
    }
}
