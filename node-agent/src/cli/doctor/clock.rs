//! Is the clock in an age where certificates can be valid? A board without a battery starts in 1970.

use std::time::{Duration, SystemTime};

use super::Finding;

const CHECK: &str = "clock";
/// Certificates start an hour in the past; a clock may be behind this program's file by a time zone's worth.
const TOLERANCE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check() -> Finding {
    let program = std::env::current_exe().and_then(|path| path.metadata()).and_then(|metadata| metadata.modified());
    judge(SystemTime::now(), program.ok())
}

fn judge(now: SystemTime, program_written: Option<SystemTime>) -> Finding {
    let shown = jiff::Timestamp::try_from(now).map_or_else(|_| "out of range".to_owned(), |time| format!("{time:.0}"));
    let behind = program_written.and_then(|written| written.duration_since(now).ok());
    if behind.is_some_and(|behind| behind > TOLERANCE) {
        let advice = "set the clock (chrony, systemd-timesyncd): certificates will not be valid yet";
        return Finding::fail(CHECK, format!("{shown} is before this program was made"), advice);
    }
    Finding::ok(CHECK, shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    #[test]
    fn clock_before_the_program_was_made_is_wrong() {
        let now = SystemTime::now();
        assert_eq!(judge(now, Some(now + TOLERANCE)).severity, Severity::Ok);
        assert_eq!(judge(now, None).severity, Severity::Ok);
        assert_eq!(judge(SystemTime::UNIX_EPOCH, Some(now)).severity, Severity::Fail);
    }
}
