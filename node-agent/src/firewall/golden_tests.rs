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
        load(name, &["nft"], &["nft", "-c", "-f", "-"], &render_nftables(role));
    }
}

#[test]
fn iptables_script_is_valid_shell() {
    for (role, name) in ROLES {
        let output = feed(Command::new("sh").arg("-n"), &render_iptables(role)).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn iptables_script_loads_and_replaces_its_own_chains() {
    for (role, name) in ROLES {
        let script = render_iptables(role);
        let twice = format!("{script}\n{script}\niptables-save\n");
        let Some(loaded) = load(name, &["iptables", "ipset"], &["sh"], &twice) else { continue };
        let rules = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        for chain in ["PEERDIST-INPUT", "PEERDIST-OUTPUT"] {
            let rendered = rules(&script, &format!("iptables -A {chain} "));
            assert!(rendered > 0, "{name}");
            assert_eq!(rules(&loaded, &format!("-A {chain} ")), rendered, "{name}: {loaded}");
        }
        assert_eq!(rules(&loaded, "-A INPUT -j PEERDIST-INPUT"), 1, "{name}: {loaded}");
        assert_eq!(rules(&loaded, "-A OUTPUT -j PEERDIST-OUTPUT"), 1, "{name}: {loaded}");
    }
}

/// Feeds rules to the program that loads them, in a network namespace of its own: from `unshare`, which also works
/// without root where the kernel allows user namespaces. Returns what it prints. Only people without root may go without.
fn load(name: &str, tools: &[&str], loader: &[&str], rules: &str) -> Option<String> {
    let is_there = |tool: &&str| Path::new("/usr/sbin").join(tool).exists();
    let has_namespace = Command::new("unshare").args(["-rn", "true"]).status().is_ok_and(|status| status.success());
    if !tools.iter().all(is_there) || !has_namespace {
        let must_run = rustix::process::geteuid().is_root() || std::env::var_os("CI").is_some();
        assert!(!must_run, "{tools:?} and unshare are needed: `cargo xtask test` installs them as root");
        eprintln!("NOT RUN: {name} is not checked without {tools:?} and unshare");
        return None;
    }
    let mut command = Command::new("unshare");
    let folder = tempfile::tempdir().unwrap();
    command.arg("-rn").args(loader).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("XTABLES_LOCKFILE", folder.path().join("lock"));
    let output = feed(&mut command, rules).unwrap();
    assert!(output.status.success(), "{name}: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, input: &str) -> std::io::Result<std::process::Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(input.as_bytes())?;
    child.wait_with_output()
}
