//! A real resolver, dnsmasq, whose answers can change between two questions.

use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use peerdist_e2e_net::shell;

/// Where the namespace's `resolv.conf` says it is.
const ADDRESS: &str = "127.0.0.53";
/// File with an address and a name a line.
const NAMES_FILE: &str = "names";
/// An answer that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running resolver, which ends with the value.
pub(crate) struct Resolver {
    names: PathBuf,
    process: Mutex<Process>,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Resolver {
    /// Serves the names in the folder, and nothing else.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let names = folder.join(NAMES_FILE);
        let mut command = shell::mortal("dnsmasq");
        command
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--cache-size=0"])
            .args([
                "--local-ttl=0",
                "--user=root",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--cname=alias.test,local.test",
            ])
            .arg(format!("--listen-address={ADDRESS}"))
            .arg(format!("--addn-hosts={}", names.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Process(command.spawn().context("cannot start dnsmasq")?);
        let resolver = Self { names, process: Mutex::new(process) };
        resolver.wait_until("origin.test", |_| true)?;
        Ok(resolver)
    }

    /// From now on the name has this address alone. Returns once that is so.
    pub(crate) fn rebind(&self, name: &str, address: IpAddr) -> Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let text = fs::read_to_string(&self.names)?;
        let mut lines: Vec<String> =
            text.lines().filter(|line| line.split(' ').nth(1) != Some(name)).map(str::to_owned).collect();
        lines.push(format!("{address} {name}"));
        fs::write(&self.names, lines.join("\n") + "\n")?;
        let id = rustix::process::Pid::from_child(&process.0);
        rustix::process::kill_process(id, rustix::process::Signal::HUP)?;
        self.wait_until(name, |found| found == address)
    }

    fn wait_until(&self, name: &str, is_so: impl Fn(IpAddr) -> bool) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let found = (name, 0).to_socket_addrs();
            if found.is_ok_and(|mut found| found.all(|address| is_so(address.ip()))) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        bail!("the resolver does not answer for {name} as it should")
    }
}
