//! What must be refused and takes more than one process to show.

use anyhow::{Result, ensure};
use peerdist_e2e_net::agent::Agent;
use peerdist_e2e_net::fleet::{Fleet, built_program};
use peerdist_e2e_net::scratch::Scratch;
use peerdist_e2e_net::topology::Topology;

/// Exit code for a set of objects or ports that is unusable as a whole.
const UNUSABLE: i32 = 2;

#[test]
fn port_in_use_is_refused_and_its_holder_named() -> Result<()> {
    let mut fleet = Fleet::new("portinuse", Topology::central(1), 0)?;
    let mut scratch = Scratch::new("portholder", 0)?;
    scratch.discard_logs();
    let program = scratch.program(&built_program("peerdist-e2e-probe")?)?;
    let (address, log) = (fleet.network().topology().server(), scratch.folder("logs")?.join("holder.log"));
    let arguments = vec!["hold".to_owned(), format!("{address}:34323")];
    let mut holder = Agent::new("holder", fleet.network().namespace_file("server"), &program, arguments, log);
    holder.start()?;
    while holder.log_text()?.is_empty() {
        holder.expect_running()?;
        std::thread::yield_now();
    }
    let server = fleet.agent("server")?;
    server.start()?;
    let status = server.wait()?;
    let said = server.log_text()?;
    ensure!(status.code() == Some(UNUSABLE), "ended with {status}: {said}");
    let process = holder.process_id().unwrap_or_default().to_string();
    // The kernel keeps the first 15 letters of a process's name.
    for word in ["34323", "peerdist-e2e-pr", &process] {
        ensure!(said.contains(word), "`{word}` is not in: {said}");
    }
    fleet.passed()
}
