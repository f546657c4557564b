//! Programs that run beside the steps: tests wait for links and timers most of the time, and leave the processors to
//! whatever is built or tested meanwhile. What such a program prints is shown when it is asked for.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::log::Log;
use crate::step::{self, Outcome, Steps};

/// Who waits when processors are short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// As everything else.
    Normal,
    /// Only what nobody else wants.
    Lowest,
}

/// A program and what it is for.
pub(crate) struct Beside {
    name: &'static str,
    log: Arc<Log>,
    running: JoinHandle<(Result<()>, Duration)>,
}

impl Beside {
    /// Starts a program with its arguments.
    ///
    /// # Errors
    /// When there is no place for what it prints.
    pub(crate) fn start(root: &Path, name: &'static str, priority: Priority, call: Vec<String>) -> Result<Self> {
        let log = Arc::new(Log::create(&step::target_folder(root), name)?);
        println!("beside the next steps: {}", call.join(" "));
        let (root, output) = (root.to_path_buf(), log.clone());
        let running = thread::spawn(move || {
            let start = Instant::now();
            (run(&root, priority, &call, &output), start.elapsed())
        });
        Ok(Self { name, log, running })
    }

    /// Waits for the program's end, shows what it printed, and counts it among the steps.
    pub(crate) fn join(self, steps: &mut Steps) {
        let name = self.name;
        let (outcome, time) = self.wait();
        steps.add(name, time, outcome.map(|()| Outcome::Passed));
    }

    /// Waits for the program's end, shows what it printed, and says how it went and how long it took.
    pub(crate) fn wait(self) -> (Result<()>, Duration) {
        let panicked = |_| (Err(anyhow!("its thread panicked")), Duration::ZERO);
        let ended = self.running.join().unwrap_or_else(panicked);
        println!("\n==> {} (ran beside)\n{}", self.name, self.log.text());
        ended
    }
}

fn run(root: &Path, priority: Priority, call: &[String], log: &Log) -> Result<()> {
    let (program, niceness) = match priority {
        Priority::Normal => ("env", &[][..]),
        Priority::Lowest => ("nice", &["-n", "19"][..]),
    };
    let mut command = step::command(program);
    command.args(niceness).args(call).current_dir(root).stdin(Stdio::null());
    log.take_output(&mut command)?;
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("`{}` ended with {status}{}", call.join(" "), log.reasons());
    }
    Ok(())
}
