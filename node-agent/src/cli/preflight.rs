//! `peerdist preflight`: what an init container checks before its pod starts: can the ports of the role be bound, and are
//! they reserved? The checks are those of `doctor`; here their outcome is also written to the file that kubelet keeps of
//! a container that ended, as `Reason: message`, which the operator shows in the conditions of the Office.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use peerdist_core::ports::Role;

use super::ExitStatus;
use super::doctor::ports::{PortProblem, problems};
use super::doctor::{Finding, Severity, render, reserved_range};
use super::ports::RoleName;

/// A pod that this one replaces may need so long to let go of its ports.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Ports that a message names.
const PORTS_NAMED_MAX: usize = 3;

/// Whose ports, and where to tell.
#[derive(Debug, Args)]
pub(super) struct PreflightOptions {
    /// Role that will bind its ports
    #[arg(long, value_enum, env = "PEERDIST_ROLE")]
    role: RoleName,
    /// Address that the ports will be bound to
    #[arg(long, value_name = "IP", env = "PEERDIST_ADDRESS")]
    address: IpAddr,
    /// File that gets what is wrong, if it is there
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

pub(super) fn run(options: &PreflightOptions) -> ExitStatus {
    let PreflightOptions { role, address, termination_log } = options;
    let problems = patiently(|| failing(*address, (*role).into()));
    let mut findings: Vec<Finding> = problems.iter().map(|problem| problem.finding.clone()).collect();
    findings.push(reserved_range::check());
    print!("{}", render(&findings));
    let Some(message) = message(&problems) else { return ExitStatus::Done };
    tell(termination_log, &message);
    ExitStatus::Unusable
}

fn failing(address: IpAddr, role: Role) -> Vec<PortProblem> {
    problems(address, role).into_iter().filter(|problem| problem.finding.severity == Severity::Fail).collect()
}

fn patiently(look: impl Fn() -> Vec<PortProblem>) -> Vec<PortProblem> {
    let begun = Instant::now();
    loop {
        let problems = look();
        if problems.is_empty() || begun.elapsed() >= PATIENCE {
            return problems;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// The reason is that of the first port; all have the same cause as a rule.
fn message(problems: &[PortProblem]) -> Option<String> {
    let first = problems.first()?;
    let named: Vec<&str> = problems.iter().take(PORTS_NAMED_MAX).map(|problem| problem.finding.seen.as_str()).collect();
    let more = match problems.len().saturating_sub(PORTS_NAMED_MAX) {
        0 => String::new(),
        count => format!("; and {count} more"),
    };
    Some(format!("{}: {}{more}: {}", first.reason, named.join("; "), first.finding.advice))
}

/// Outside a pod there is no such file, and standard output has said it all.
fn tell(file: &Path, message: &str) {
    if file.exists()
        && let Err(error) = std::fs::write(file, message)
    {
        eprintln!("peerdist preflight: cannot write {}: {error}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_its_holder_and_what_to_do() {
        let address: IpAddr = "127.82.0.1".parse().unwrap();
        assert_eq!(message(&failing(address, Role::Client)), None);
        let _held = UdpSocket::bind((address, 34760)).unwrap();
        let told = message(&failing(address, Role::Client)).unwrap();
        assert!(told.starts_with("PortInUse: client: 127.82.0.1:34760/udp is held by process"), "{told}");
        assert!(told.contains(": stop it"), "{told}");
    }

    #[test]
    fn many_ports_are_counted_and_not_all_named() {
        let told = message(&failing("192.0.2.1".parse().unwrap(), Role::Client)).unwrap();
        assert!(told.starts_with("AddressUnusable: ") && told.contains("; and ") && told.len() < 1024, "{told}");
    }

    #[test]
    fn the_message_goes_to_the_file_of_kubelet_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (there, absent) = (folder.path().join("there"), folder.path().join("absent"));
        std::fs::write(&there, "").unwrap();
        tell(&there, "PortInUse: x");
        tell(&absent, "PortInUse: x");
        assert_eq!(std::fs::read_to_string(&there).unwrap(), "PortInUse: x");
        assert!(!absent.exists());
    }
}
