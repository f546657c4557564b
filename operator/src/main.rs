//! The command `peerdist-operator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerdist_operator::command::main()
}
