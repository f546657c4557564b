//! A program as a process of its own with a log, to be killed and paused. Only the process id that we started is ever
//! signalled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use peerdist_e2e_net::shell;
use rustix::process::{Pid, Signal, kill_process};

/// Lines of a log that an error shows.
const LAST_LINES: usize = 20;

/// A running program; killed when it is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its log goes on where an earlier one ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Starts an operator under a name, with further variables of the environment. It ends with the thread that calls
    /// this, also if the test is killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_operator(
        program: &Path,
        name: &str,
        kubeconfig: &Path,
        settings: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = shell::mortal(program);
        command
            .arg("run")
            .env("KUBECONFIG", kubeconfig)
            .env("PEERDIST_SETTINGS", settings)
            .env("PEERDIST_HTTP_ADDRESS", "127.0.0.1:0")
            .env("POD_NAMESPACE", crate::objects::NAMESPACE)
            .env("POD_NAME", name)
            .envs(variables.iter().copied());
        Self::start(command, &kubeconfig.with_extension("log"))
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

    /// SIGTERM: it is asked to end, as kubelet asks.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        let _ = self.child.wait();
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

    /// All that it logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// What it logged last.
    pub fn last_lines(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
