//! The disk's side: as many `dd conv=fsync` at once as peerdist makes copies.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::folder::Folder;

/// Room for the copies.
const ROOM: &str = "dd";

/// Time from the first start to the last end.
pub(crate) fn run(folder: &Folder, copies: usize) -> Result<Duration> {
    let room = folder.fresh(ROOM)?;
    let input = format!("if={}", folder.source().display());
    let start = Instant::now();
    let copy = |number: usize| -> Result<Child> {
        let output = format!("of={}", room.join(number.to_string()).display());
        let mut command = Command::new("dd");
        command.args([&input, &output, "bs=1M", "conv=fsync"]).stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start dd")
    };
    let running = (0..copies).map(copy).collect::<Result<Vec<_>>>()?;
    for mut child in running {
        let status = child.wait()?;
        ensure!(status.success(), "dd ended with {status}");
    }
    let time = start.elapsed();
    folder.remove(ROOM)?;
    Ok(time)
}
