//! The comparison with the disk, started by `cargo xtask bench`: one file of 1 GiB to five nodes in two offices in
//! embedded mode, in turn with six parallel `dd conv=fsync` of 1 GiB, because a library and five trees are six copies.
//! Both run on the same disk within minutes of each other; figures of different machines say nothing about each other.

mod embedded;
mod folder;
mod parallel_dd;

use std::time::Duration;

use anyhow::Result;

use crate::folder::Folder;

/// Size of the file.
const FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// Copies on the disk: the server's library and the trees of five nodes.
const COPIES: usize = 6;
/// How often each side runs, in turn.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let folder = Folder::new(FILE_BYTES, COPIES)?;
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let disk = parallel_dd::run(&folder, COPIES)?;
        let run = embedded::run(&folder)?;
        let ratio = run.time.as_secs_f64() / disk.as_secs_f64();
        println!("round {round}: dd {}, peerdist {}, ratio {ratio:.2} ({})", rate(disk), rate(run.time), run.summary);
        println!("round {round}: busy, all roles together: {}", run.busy);
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of {ROUNDS} rounds: {:.2} (goal: at most 2)", ratios[ROUNDS / 2]);
    Ok(())
}

/// Time, and what that is for all copies together.
fn rate(time: Duration) -> String {
    let mebibytes = (FILE_BYTES * COPIES as u64) as f64 / 1_048_576.0;
    format!("{:.1} s ({:.0} MiB/s on disk)", time.as_secs_f64(), mebibytes / time.as_secs_f64())
}
