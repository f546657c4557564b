//! Standard error, shared by progress bars and log lines: a line makes the bars step aside for a moment.

use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::fmt::MakeWriter;

/// Handle to standard error; clones share the bars.
#[derive(Debug, Clone)]
pub struct Console {
    bars: MultiProgress,
}

impl Console {
    /// Standard error. Nothing is drawn before bars are added, and never when it is no terminal.
    pub fn standard_error() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Prints a line above the bars.
    pub fn line(&self, text: &str) {
        // Nothing sensible is left to do when standard error is closed.
        self.bars.suspend(|| drop(writeln!(io::stderr().lock(), "{text}")));
    }

    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = ConsoleWriter<'a>;
    fn make_writer(&'a self) -> ConsoleWriter<'a> {
        ConsoleWriter { bars: &self.bars }
    }
}

/// Writes whole log lines above the bars.
#[derive(Debug)]
pub struct ConsoleWriter<'a> {
    bars: &'a MultiProgress,
}

impl Write for ConsoleWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
