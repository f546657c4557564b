//! `peerdist-simulate`: random runs from seeds, or the time that the protocol needs. Prints the seed of a run that
//! failed; `--seed` runs it again.

use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use peerdist_e2e_sim::check::run_and_check;
use peerdist_e2e_sim::pace::{chain, long_fat_link, measure, no_network};
use peerdist_e2e_sim::scenario::Scenario;

/// Simulates office trees on the machines of the core.
#[derive(Debug, Parser)]
struct Options {
    /// First seed.
    #[arg(long, env = "PEERDIST_SIM_SEED", default_value_t = 1)]
    seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Let disks fill up in the random runs.
    #[arg(long)]
    full_disks: bool,
    /// Let members lie in the random runs.
    #[arg(long, conflicts_with = "full_disks")]
    liars: bool,
    /// Instead of random runs, one office on machines that are slow.
    #[arg(long, conflicts_with_all = ["full_disks", "liars"])]
    slow: bool,
    /// Print what the scenario is.
    #[arg(long)]
    show: bool,
    /// Print how long the protocol itself takes, instead of random runs.
    #[arg(long)]
    pace: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.pace {
        print_pace();
        return Ok(());
    }
    let mut failed = Vec::new();
    for seed in options.seed..options.seed + options.runs {
        let scenario = if options.full_disks {
            Scenario::random_with_full_disks(seed)
        } else if options.liars {
            Scenario::random_with_liars(seed)
        } else if options.slow {
            Scenario::slow_office(seed)
        } else {
            Scenario::random(seed)
        };
        if options.show {
            show(&scenario);
        }
        match run_and_check(&scenario) {
            Ok(world) => println!("seed {seed}: holds, {:?}", world.now()),
            Err(faults) => {
                println!("seed {seed}: {faults}");
                failed.push(seed);
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} runs failed, seeds {failed:?}", failed.len(), options.runs);
    }
    Ok(())
}

fn show(scenario: &Scenario) {
    for simulated in &scenario.offices {
        let office = &simulated.office;
        println!("{} under {:?}: {} with {}", office.name, office.parent, office.office_type, simulated.nodes);
    }
    for content in scenario.catalog.all() {
        println!("{}: {} bytes in {} chunks", content.key, content.bytes(), content.chunk_count());
    }
    for distribution in &scenario.distributions {
        println!("{} to {}", distribution.package(), distribution.offices);
    }
    println!("{:?}", scenario.network);
    for (at, operation) in &scenario.operations {
        println!("{at:?}: {operation:?}");
    }
}

fn print_pace() {
    let (bytes, chunk_bytes) = (256 << 20, 16 << 10);
    for levels in 1..=3 {
        let pace = measure(chain(levels, 2), no_network(), bytes, chunk_bytes);
        println!("{levels} levels without delay: {:?}, {} messages", pace.time, pace.messages);
    }
    for chunk_bytes in [16 << 10, 1 << 20, 4 << 20] {
        let pace = measure(chain(2, 2), long_fat_link(), 4 * bytes, chunk_bytes);
        let least = Duration::from_secs_f64(4.0 * bytes as f64 / 125e6);
        println!(
            "1 GiB in chunks of {chunk_bytes} over 1 Gbit/s with 20 ms: {:?}, the link alone {least:?}, {} messages",
            pace.time, pace.messages
        );
    }
}
