//! Renderings are the committed ones, and the tools that load them accept them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use peerdist_core::ports::Role;

use super::*;
use crate::golden::check_golden;

const ROLES: [(Option<Role>, &str); 4] =
    [(None, "all"), (Some(Role::Server), "server"), (Some(Role::Client), "client"), (Some(Role::Vesc), "vesc")];

#[test]
fn renderings_are_the_committed_ones() {
    check_golden("ports.txt", &render_table(None));
    check_golden("ports.json", &render_json(None).unwrap());
    for (role, name) in ROLES {
        check_golden(&format!("ports-{name}.nft"), &render_nftables(role));
        check_golden(&format!("ports-{name}.iptables.sh"), &render_iptables(role));
        check_golden(&format!("ports-{name}.windows.ps1"), &render_windows(role));
    }
}

#[test]
fn nftables_rules_load() {
    for (role, name) in ROLES {
        check_with_nft(name, &render_nftables(role));
    }
}

#[test]
fn iptables_script_is_valid_shell() {
    for (role, name) in ROLES {
        let output = feed(Command::new("sh").arg("-n"), &render_iptables(role)).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// `nft -c` needs a network namespace of its own: from `unshare`, which also works without root where the kernel
/// allows user namespaces. Only people without root may go without.
fn check_with_nft(name: &str, rules: &str) {
    let nft = "/usr/sbin/nft";
    let has_namespace = Command::new("unshare").args(["-rn", "true"]).status().is_ok_and(|status| status.success());
    if !Path::new(nft).exists() || !has_namespace {
        let must_run = rustix::process::geteuid().is_root() || std::env::var_os("CI").is_some();
        assert!(!must_run, "nft and unshare are needed: `cargo xtask test` installs them as root");
        eprintln!("NOT RUN: {name} is not checked without nft and unshare");
        return;
    }
    let output = feed(Command::new("unshare").args(["-rn", nft, "-c", "-f", "-"]), rules).unwrap();
    assert!(output.status.success(), "{name}: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
}

fn feed(command: &mut Command, input: &str) -> std::io::Result<std::process::Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(input.as_bytes())?;
    child.wait_with_output()
}
