//! The operator as a process of its own, to be killed and paused. Only the process id that we started is ever signalled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// A running operator; killed when it is dropped.
pub struct OperatorProcess {
    child: Child,
    log: PathBuf,
}

impl OperatorProcess {
    /// Starts one under a name. Its log goes on where an earlier one under the same name ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, name: &str, kubeconfig: &Path, settings: &Path) -> Result<Self> {
        let log = kubeconfig.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).context("open the operator's log")?;
        let child = Command::new(program)
            .env("KUBECONFIG", kubeconfig)
            .env("PEERDIST_SETTINGS", settings)
            .env("PEERDIST_HTTP_ADDRESS", "127.0.0.1:0")
            .env("POD_NAMESPACE", crate::objects::NAMESPACE)
            .env("POD_NAME", name)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: it does nothing until it goes on.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it logged last.
    pub fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
