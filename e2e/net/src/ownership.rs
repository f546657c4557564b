//! Names of what a test makes on this machine: they bear the id of its process, so that a later test finds what one that
//! was killed has left behind.

use std::path::Path;

/// How all of them begin.
const PREFIX: &str = "peerdist-e2e";

/// A name that is this process's own.
pub fn name(rest: &str) -> String {
    format!("{PREFIX}-{}-{rest}", std::process::id())
}

/// Whether something of that name was made by a test whose process is no more.
pub fn is_abandoned(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
    owner.is_some_and(|process| !Path::new("/proc").join(process).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_test_made_that_is_no_more_is_abandoned() {
        assert!(!is_abandoned(&name("network")));
        // Process ids are below.
        assert!(is_abandoned("peerdist-e2e-4194305-network"));
        for foreign in ["peerdist-e2e", "peerdist-4194305-network", "other-4194305"] {
            assert!(!is_abandoned(foreign), "{foreign}");
        }
    }
}
