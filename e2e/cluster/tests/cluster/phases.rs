//! Names and times of what was done.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What was done so far.
#[derive(Default)]
pub(crate) struct Phases {
    done: Vec<(String, Duration)>,
}

impl Phases {
    /// Does something, says so, and remembers how long it took.
    pub(crate) fn run<T>(&mut self, name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("  {name} ...");
        let start = Instant::now();
        let outcome = act().with_context(|| name.to_owned())?;
        let time = start.elapsed();
        println!("  {name}: {:.1} s", time.as_secs_f64());
        self.done.push((name.to_owned(), time));
        Ok(outcome)
    }

    /// How long that took.
    pub(crate) fn time(&self, name: &str) -> Option<Duration> {
        self.done.iter().find(|(done, _)| done == name).map(|(_, time)| *time)
    }

    /// All of them.
    pub(crate) fn print(&self) {
        println!("\n{:>10}  what", "seconds");
        for (name, time) in &self.done {
            println!("{:>10.1}  {name}", time.as_secs_f64());
        }
    }
}
