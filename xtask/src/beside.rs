//! Programs that run beside the steps, at the lowest priority: tests wait for links and timers most of the time, and leave
//! the processors to whatever is built or looked at meanwhile. What such a program prints is shown when it is asked for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::step::{self, Outcome, Steps};

/// A program and what it is for.
pub(crate) struct Beside {
    name: &'static str,
    log: PathBuf,
    running: JoinHandle<(Result<()>, Duration)>,
}

impl Beside {
    /// Starts a program with its arguments.
    ///
    /// # Errors
    /// When there is no place for what it prints.
    pub(crate) fn start(root: &Path, name: &'static str, call: Vec<String>) -> Result<Self> {
        let folder = step::target_folder(root).join("beside");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        println!("beside the next steps: {}", call.join(" "));
        let root = root.to_path_buf();
        let running = thread::spawn(move || {
            let start = Instant::now();
            (run(&root, &call, output), start.elapsed())
        });
        Ok(Self { name, log, running })
    }

    /// Waits for the program's end, shows what it printed, and counts it among the steps.
    pub(crate) fn join(self, steps: &mut Steps) {
        let panicked = |_| (Err(anyhow!("its thread panicked")), Duration::ZERO);
        let (outcome, time) = self.running.join().unwrap_or_else(panicked);
        println!("\n==> {} (ran beside)\n{}", self.name, fs::read_to_string(&self.log).unwrap_or_default());
        steps.add(self.name, time, outcome.map(|()| Outcome::Passed));
    }
}

fn run(root: &Path, call: &[String], output: File) -> Result<()> {
    let errors = output.try_clone().context("cannot share a log")?;
    let status = step::command("nice")
        .args(["-n", "19"])
        .args(call)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .context("cannot start nice")?;
    if !status.success() {
        bail!("`{}` ended with {status}", call.join(" "));
    }
    Ok(())
}
