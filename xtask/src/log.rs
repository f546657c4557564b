//! What a program prints, kept in a file: it is shown as it comes, and searched afterwards for why the program failed, so
//! that the summary of a long run says so at its end. A file, and no pipe: what a failed test leaves running would keep a
//! pipe open.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often new output is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Most lines that tell of one failure.
const LINES_MAX: usize = 12;
/// Most failures that are told.
const FAILURES_MAX: usize = 5;

/// The file.
pub(crate) struct Log(PathBuf);

impl Log {
    /// An empty one, where cargo puts what it builds.
    pub(crate) fn create(target: &Path, name: &str) -> Result<Self> {
        let folder = target.join("logs");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{name}.log"));
        // What still runs of the program before goes on with the file before.
        drop(fs::remove_file(&path));
        File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Has the program print into this file.
    pub(crate) fn take_output(&self, command: &mut Command) -> Result<()> {
        let open = || File::options().append(true).open(&self.0);
        let (output, errors) = open()
            .and_then(|output| Ok((output, open()?)))
            .with_context(|| format!("cannot write {}", self.0.display()))?;
        command.stdout(output).stderr(errors);
        Ok(())
    }

    /// Runs a program to its end and shows what it prints.
    pub(crate) fn follow(&self, command: &mut Command) -> Result<ExitStatus> {
        self.take_output(command)?;
        let mut child = command.spawn().context("cannot start it")?;
        let status = self.show_until_its_end(&mut child);
        if status.is_err() {
            drop(child.kill());
            drop(child.wait());
        }
        status
    }

    fn show_until_its_end(&self, child: &mut Child) -> Result<ExitStatus> {
        let mut file = File::open(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        loop {
            let ended = child.try_wait().context("cannot wait for it")?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", self.0.display()))?;
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush()).context("cannot print")?;
            match ended {
                Some(status) => return Ok(status),
                None => thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// All that was printed.
    pub(crate) fn text(&self) -> String {
        fs::read(&self.0).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The lines that say why the program failed, indented; nothing if none looks like that.
    pub(crate) fn reasons(&self) -> String {
        reasons_in(&self.text()).into_iter().fold(String::new(), |text, line| text + "\n           | " + line)
    }
}

/// From each line that tells of a failure on, until a stack or nothing follows.
fn reasons_in(text: &str) -> Vec<&str> {
    // A test that shows its output has its name before that on the same line.
    let is_error = |line: &str| line.starts_with("Error: ") || line.contains(" ... Error: ");
    let tells = |line: &&str| is_error(line) || line.starts_with("error") || line.contains("panicked at ");
    let ends = |line: &&str| line.is_empty() || line.trim_start().to_lowercase().starts_with("stack backtrace");
    let mut lines = text.lines();
    let mut reasons = Vec::new();
    for _ in 0..FAILURES_MAX {
        let Some(first) = lines.find(tells) else { break };
        reasons.push(first);
        reasons.extend(lines.by_ref().take(LINES_MAX - 1).take_while(|line| !ends(line)));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_tests_and_compilers_are_found_without_stacks() {
        let text = "test none ... ok\ntest one ... Error: never so: app is Ready\n\n\
                    Caused by:\n  nothing\n\nStack backtrace:\n   0: main\n\
                    thread 'two' panicked at src/two.rs:1:\nleft differs\nstack backtrace:\n   0: main\n\
                    error[E0308]: mismatched types\n --> src/lib.rs:1\n";
        let expected = [
            "test one ... Error: never so: app is Ready",
            "thread 'two' panicked at src/two.rs:1:",
            "left differs",
            "error[E0308]: mismatched types",
            " --> src/lib.rs:1",
        ];
        assert_eq!(reasons_in(text), expected);
        assert!(reasons_in("all is well\n").is_empty());
    }

    #[test]
    fn program_is_followed_to_its_end_and_its_reasons_are_kept() {
        let folder = std::env::temp_dir().join(format!("peerdist-xtask-log-{}", std::process::id()));
        let log = Log::create(&folder, "step").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo Error: it is broken >&2; (sleep 5) & exit 3"]);
        assert_eq!(log.follow(&mut command).unwrap().code(), Some(3));
        assert_eq!(log.reasons(), "\n           | Error: it is broken");
        fs::remove_dir_all(folder).unwrap();
    }
}
