//! `cargo xtask`: what contributors and CI type. It only starts other programs and looks at files; nothing of the
//! product is linked in, so that it builds in seconds.
//!
//! In reading order: [`step`] runs and times one step, [`log`] keeps what it prints, [`beside`] what can be done while tests
//! wait, [`test_program`] finds the programs of tests; [`checks`] is the list behind `cargo xtask test`; [`deny`] and
//! [`debian`] bring the tools that some steps need; [`tidy`] checks what no compiler checks; [`bench`] starts the comparison
//! with the disk; [`fuzz`] feeds the decoders; [`deploy`] renders and checks what people install; [`images`] packs the
//! programs; [`e2e`] runs all of it on a real Kubernetes.

mod bench;
mod beside;
mod checks;
mod debian;
mod deny;
mod deploy;
mod e2e;
mod fuzz;
mod images;
mod log;
mod step;
mod test_program;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and measurements of peerdist")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything CI runs: format, tidy, clippy, tests, network scenarios (as root), licences and advisories.
    Test,
    /// Heads of files, unreachable files, words that do not belong here, tests named by ARCHITECTURE.md.
    Tidy,
    /// Licences, bans, sources and, when the advisory database can be had, advisories.
    Deny,
    /// Renders deploy/ from the chart, and checks chart, manifests, samples, alerts and dashboards.
    Deploy(deploy::Options),
    /// Measures release builds: prints figures beside their goals.
    Bench {
        /// What of them
        #[arg(value_enum, default_value_t)]
        subject: bench::Subject,
    },
    /// Feeds every decoder with tampered input for a while; needs the nightly compiler.
    Fuzz {
        /// How long each of them
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// OCI images of operator and node-agent, without a container runtime.
    Images(images::Options),
    /// Scenarios that need more than a compiler.
    #[command(subcommand)]
    E2e(e2e::Scenario),
}

fn main() -> ExitCode {
    let root = tree::workspace_root();
    let outcome = match Arguments::parse().command {
        Command::Test => checks::run_all(&root),
        Command::Tidy => tidy::check(&root),
        Command::Deny => deny::check(&root),
        Command::Deploy(options) => deploy::run(&root, &options),
        Command::Bench { subject } => bench::run(&root, subject),
        Command::Fuzz { seconds } => fuzz::run(&root, seconds),
        Command::Images(options) => images::run(&root, &options),
        Command::E2e(scenario) => e2e::run(&root, &scenario),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
