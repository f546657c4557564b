//! Runs of `peerdist up` with less than the test has: in namespaces of their own, or without the rights of root.

use std::process::{Command, Stdio};

use crate::place::{Place, Run};

/// Gives the loopback interface the address `$1` and no other one, and becomes the rest.
const ONE_ADDRESS: &str =
    r#"ip link set lo up && ip address flush dev lo && ip address add "$1/32" dev lo && shift && exec "$@""#;

/// `peerdist up` in a namespace of a kind, such as `--mount`, after a script for `sh` has prepared it. The script takes
/// `given` away from its arguments and becomes the rest. `None` when this machine does not allow that.
pub(crate) fn in_namespace(place: &Place, kind: &str, script: &str, given: &[&str]) -> Option<Command> {
    let namespace = || {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args([kind, "sh", "-c", script, "sh"]).args(given);
        command
    };
    let allowed = namespace().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !allowed {
        not_run(&format!("this machine does not let us prepare a namespace of the kind {kind}"));
        return None;
    }
    let mut command = namespace();
    command.arg(env!("CARGO_BIN_EXE_peerdist")).args(place.arguments());
    Some(command)
}

/// A run on a machine that has one address only.
pub(crate) fn with_one_address(place: &Place, address: &str) -> Option<Command> {
    in_namespace(place, "--net", ONE_ADDRESS, &[address])
}

/// People without the rights or the tools may go without these tests; root has the rights, and `cargo xtask test`
/// brings the tools.
pub(crate) fn not_run(why: &str) {
    assert!(!rustix::process::geteuid().is_root() && std::env::var_os("CI").is_none(), "{why}");
    eprintln!("NOT RUN: {why}");
}

/// Starts a run with `--once`. Root reads every file: without its capabilities it is a user like any other.
pub(crate) fn without_privileges(place: &Place) -> Run {
    if !rustix::process::geteuid().is_root() {
        return place.start_once();
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_peerdist")]);
    command.args(place.arguments()).arg("--once");
    Run::start(command)
}
