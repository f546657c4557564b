//! The command `peerdist`.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerdist_node_agent::cli::run().into()
}
