//! One process under test: started in its host's namespace as a user without any right, logging into a file of its own,
//! killed and started again at will. Only the process id that we started is ever signalled.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::scratch::AGENT_ID;
use crate::shell;

/// How much of a log an error message quotes.
const QUOTED_LINES: usize = 25;

/// A process and how to start it again.
#[derive(Debug)]
pub struct Agent {
    name: String,
    namespace_file: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    kills: u32,
}

impl Agent {
    /// Describes a process; [`Agent::start`] starts it.
    pub fn new(name: &str, namespace_file: String, program: &Path, arguments: Vec<String>, log: PathBuf) -> Self {
        let program = program.to_path_buf();
        Self { name: name.to_owned(), namespace_file, program, arguments, log, child: None, kills: 0 }
    }

    /// Name of its host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it was killed.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// Its process id while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it. The log of an earlier life is kept and continued. nsenter and setpriv replace themselves, so the
    /// child is the program itself. It ends with the thread that calls this, also if the test is killed.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = self.open_log()?;
        let id = AGENT_ID.to_string();
        let child = Command::new("nsenter")
            .arg(format!("--net={}", self.namespace_file))
            .args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"])
            .args(["--bounding-set=-all", "--inh-caps=-all", "--pdeathsig", "KILL"])
            .arg(&self.program)
            .args(&self.arguments)
            .env("RUST_BACKTRACE", "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it without warning (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended on its own, which no scenario expects.
    pub fn kill(&mut self) -> Result<()> {
        self.expect_running()?;
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("cannot kill {}", self.name))?;
            child.wait()?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.expect_running()?;
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        shell::run("kill", &["-TERM", &child.id().to_string()])?;
        Ok(child.wait()?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        Ok(child.wait()?)
    }

    /// An error with the end of the log when it was started and has ended by itself.
    ///
    /// # Errors
    /// As said.
    pub fn expect_running(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                bail!("{} ended by itself with {status}; its log ends with\n{}", self.name, self.end_of_log())
            }
        }
    }

    /// All it has logged; nothing before its first start.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_text(&self) -> Result<String> {
        match fs::read_to_string(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read.with_context(|| format!("cannot read {}", self.log.display())),
        }
    }

    /// The last lines of its log.
    pub fn end_of_log(&self) -> String {
        let text = self.log_text().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    fn open_log(&self) -> Result<File> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.log);
        opened.with_context(|| format!("cannot open {}", self.log.display()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already; waiting leaves no zombie in either case.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
