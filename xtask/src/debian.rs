//! The programs that tests call, and the Debian packages that bring them. A machine without them and
//! without apt-get fails the step: a test that could not run is no success.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::step;

/// Program and the package that holds it.
const NEEDED: [(&str, &str); 10] = [
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ipset", "ipset"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mkfs.ext2", "e2fsprogs"),
    ("dnsmasq", "dnsmasq-base"),
];

/// What nodes of a cluster need besides, and the shell that tests run inside it.
const NEEDED_BY_NODES: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("busybox", "busybox-static"),
];

/// Folders with programs of the administrator, which a short `PATH` may leave out.
const ADMINISTRATOR: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Whether this process may make network namespaces.
pub(crate) fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("cannot look at /proc/self")?.uid() == 0)
}

/// Installs what tests with network namespaces miss, by apt-get.
pub(crate) fn install_missing() -> Result<()> {
    install_missing_of(&NEEDED)
}

/// Installs what nodes of a cluster miss, by apt-get.
pub(crate) fn install_missing_for_nodes() -> Result<()> {
    install_missing()?;
    install_missing_of(&NEEDED_BY_NODES)
}

fn install_missing_of(needed: &[(&str, &'static str)]) -> Result<()> {
    let mut packages: Vec<&str> =
        needed.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    match needed.iter().find(|(program, _)| !is_installed(program)) {
        Some((program, package)) => bail!("{program} is still missing after installing {package}"),
        None => Ok(()),
    }
}

/// Installs packages, by apt-get.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !is_installed("apt-get") || !is_root()? {
        bail!("the packages {} are needed: install them", packages.join(", "));
    }
    let anywhere = Path::new("/");
    step::run(anywhere, "apt-get", &["update", "--quiet"])?;
    let install = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"];
    step::run(anywhere, "env", &[&install[..], packages].concat())
}

/// Whether a program is there: in `PATH`, in a folder of the administrator, or where its path says.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ADMINISTRATOR.iter().map(|folder| Path::new(OsStr::new(folder)).to_path_buf()))
        .any(|folder| folder.join(program).is_file())
}
