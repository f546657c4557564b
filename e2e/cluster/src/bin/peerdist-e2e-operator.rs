//! The operator's command, built beside the tests that kill and pause it.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerdist_operator::command::main()
}
