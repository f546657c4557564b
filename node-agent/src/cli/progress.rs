//! Progress of `peerdist up`: bars on a terminal, plain lines elsewhere, both on standard error and both from the
//! same snapshots.

mod bars;
mod console;
mod plain;

use std::io::IsTerminal;
use std::time::Instant;

pub use console::Console;

use crate::status::{NodeStatus, OfficeStatus, StatusError, StatusSnapshot};
use bars::Bars;
use plain::PlainLines;

/// What people watch while packages move. Feed it a snapshot a few times a second.
pub struct Progress {
    console: Console,
    view: View,
}

enum View {
    Bars(Bars),
    Plain(PlainLines),
}

impl Progress {
    /// Bars when standard error is a terminal, plain lines otherwise.
    pub fn new(console: &Console) -> Self {
        let view = if std::io::stderr().is_terminal() {
            View::Bars(Bars::new(console.bars().clone()))
        } else {
            View::Plain(PlainLines::default())
        };
        Self { console: console.clone(), view }
    }

    /// Shows where things stand at `now`.
    pub fn update(&mut self, snapshot: &StatusSnapshot, now: Instant) {
        match &mut self.view {
            View::Bars(bars) => bars.update(snapshot),
            View::Plain(plain) => plain.lines(snapshot, now).iter().for_each(|line| self.console.line(line)),
        }
    }

    /// Removes the bars, so that the summary follows what was printed before.
    pub fn finish(self) {
        if let View::Bars(bars) = self.view {
            bars.clear();
        }
    }
}

/// What the first node of the office says that says anything of this kind, after its name.
fn remark<'office>(
    office: &'office OfficeStatus,
    kind: impl Fn(&'office NodeStatus) -> Option<&'office StatusError>,
) -> Option<(&'office StatusError, String)> {
    office.nodes.iter().find_map(|node| {
        let remark = kind(node)?;
        Some((remark, format!("{}: {}", node.name, remark.message)))
    })
}
