//! `peerdist doctor`: preflight of a host. Each check says ok, warn or fail, what it saw and what to do.

mod broadcast;
mod clock;
mod disk;
mod mtu;
pub(super) mod ports;
pub(super) mod reserved_range;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use super::ExitStatus;

/// What the host will be used for.
#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// Address that the ports will be bound to
    #[arg(long, value_name = "IP", env = "PEERDIST_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    address: IpAddr,
    /// Directory of the packages
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT", default_value = ".")]
    root: PathBuf,
}

/// Outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// The check, in a word or two.
    pub(super) check: &'static str,
    /// What was seen.
    pub(super) seen: String,
    /// What to do; empty when there is nothing to do.
    pub(super) advice: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, check, seen: seen.into(), advice: String::new() }
    }

    fn warn(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warn, check, seen: seen.into(), advice: advice.into() }
    }

    fn fail(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Fail, check, seen: seen.into(), advice: advice.into() }
    }
}

pub(super) fn run(options: &DoctorOptions) -> ExitStatus {
    let DoctorOptions { address, root } = options;
    let mut findings = ports::check(*address);
    findings.push(broadcast::check(*address));
    findings.push(reserved_range::check());
    findings.push(disk::check(root));
    findings.push(clock::check());
    findings.push(mtu::check(*address));
    print!("{}", render(&findings));
    let failed = findings.iter().any(|finding| finding.severity == Severity::Fail);
    if failed { ExitStatus::Failed } else { ExitStatus::Done }
}

pub(super) fn render(findings: &[Finding]) -> String {
    findings.iter().map(line).collect()
}

fn line(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Ok => "ok",
        Severity::Warn => "warn",
        Severity::Fail => "fail",
    };
    let advice = if finding.advice.is_empty() { String::new() } else { format!("{:24}{}\n", "", finding.advice) };
    format!("{word:<6}{:<18}{}\n{advice}", finding.check, finding.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_what_was_seen() {
        let text = render(&[Finding::ok("clock", "fine"), Finding::fail("disk space", "full", "make room")]);
        assert_eq!(
            text,
            "ok    clock             fine\nfail  disk space        full\n                        make room\n"
        );
    }
}
