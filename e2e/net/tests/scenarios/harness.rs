//! The harness itself, with a small stand-in for the product: rules count and drop what they should, processes have no
//! rights, and nothing stays behind.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peerdist_core::ports::ROWS;
use peerdist_e2e_net::agent::Agent;
use peerdist_e2e_net::fleet::built_program;
use peerdist_e2e_net::network::Network;
use peerdist_e2e_net::ruleset::{Direction, ICMP_DROPPED, row_counter};
use peerdist_e2e_net::scratch::{AGENT_ID, Scratch};
use peerdist_e2e_net::shell;
use peerdist_e2e_net::topology::{OfficeKind, Topology};

/// Datagrams of one call.
const SENT: u64 = 3;
/// How long they may take.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between looks.
const ARRIVAL_PAUSE: Duration = Duration::from_millis(50);

fn network(name: &str) -> Result<Network> {
    Network::new(name, Topology::central(2).with_office("store", "central", OfficeKind::Wired, 2)?)
}

/// Sends three datagrams from a host.
fn send(network: &Network, host: &str, from: &str, to: &str) -> Result<()> {
    let (namespace, probe) = (format!("--net={}", network.namespace_file(host)), built_program("peerdist-e2e-probe")?);
    shell::run("nsenter", &[&namespace, &probe.to_string_lossy(), "send", from, to, &SENT.to_string()]).map(drop)
}

/// How many datagrams a counter has, once it has what was sent: what waits for an address or a slow link comes later.
fn arrived(count: impl Fn() -> Result<u64>) -> Result<u64> {
    let start = Instant::now();
    loop {
        let packets = count()?;
        if packets >= SENT || start.elapsed() > ARRIVAL_TIMEOUT {
            return Ok(packets);
        }
        std::thread::sleep(ARRIVAL_PAUSE);
    }
}

fn row(table: u8, port: u16) -> Result<usize> {
    let found = ROWS.iter().position(|row| row.table == table && row.port == port);
    found.with_context(|| format!("no row of table {table} has port {port}"))
}

#[test]
fn rules_count_rows_by_direction_and_drop_the_rest() -> Result<()> {
    let network = network("rules")?;
    send(&network, "store-1", "10.77.2.1:34324", "10.77.1.250:34323")?;
    for direction in [Direction::In, Direction::Out] {
        let counter = row_counter(row(1, 34323)?, direction);
        assert_eq!(arrived(|| Ok(network.all_counters()?.of(&counter).packets))?, SENT);
    }
    assert_eq!(network.all_counters()?.dropped(), 0);
    let answered = arrived(|| Ok(network.counters("server")?.of(ICMP_DROPPED).packets))?;
    assert!(answered > 0, "nobody has the port there, and the kernel says so");

    send(&network, "store-1", "10.77.2.1:34546", "10.77.1.1:34760")?;
    let dropped = arrived(|| Ok(network.counters("store-1")?.dropped()))?;
    assert_eq!(dropped, SENT, "content goes down the tree, never up");
    let flows = network.dropped_flows()?;
    assert_eq!(flows, ["store-1: udp 10.77.2.1:34546 -> 10.77.1.1:34760, 3 packets"]);
    Ok(())
}

#[test]
fn broadcast_stays_in_its_subnet_and_is_no_violation_where_it_is_overheard() -> Result<()> {
    let network = network("broadcast")?;
    send(&network, "central-1", "10.77.1.1:34329", "10.77.1.255:34329")?;
    let broadcast_in = row_counter(row(4, 34329)?, Direction::In);
    let received = |host| network.counters(host).map(|counters| counters.of(&broadcast_in).packets);
    assert_eq!(arrived(|| received("central-2"))?, SENT);
    assert_eq!(arrived(|| Ok(network.counters("central-1")?.of("own_broadcast").packets))?, SENT);
    assert_eq!(arrived(|| Ok(network.counters("server")?.of("overheard_broadcast").packets))?, SENT);
    assert_eq!([received("central-1")?, received("store-1")?], [0, 0]);
    assert_eq!(network.all_counters()?.dropped(), 0);
    Ok(())
}

#[test]
fn limited_link_still_carries_datagrams() -> Result<()> {
    let network = network("limit")?;
    network.limit_link_into(1, 10_000_000)?;
    send(&network, "central-1", "10.77.1.1:34546", "10.77.2.1:34750")?;
    assert_eq!(arrived(|| Ok(network.counters("store-1")?.of_port(34750, Direction::In).packets))?, SENT);
    Ok(())
}

#[test]
fn process_runs_without_rights_in_its_namespace_and_can_be_killed_and_started_again() -> Result<()> {
    let (mut scratch, network) = (Scratch::new("process", 0)?, network("process")?);
    let program = scratch.program(&built_program("peerdist-e2e-probe")?)?;
    let log = scratch.folder("logs")?.join("store-1.log");
    let arguments = vec!["hold".to_owned(), "10.77.2.1:34325".to_owned()];
    let mut agent = Agent::new("store-1", network.namespace_file("store-1"), &program, arguments, log);
    for life in 1..=2 {
        agent.start()?;
        while agent.log_text()?.lines().count() < life {
            agent.expect_running()?;
            std::thread::yield_now();
        }
        check_rights(agent.process_id().unwrap())?;
        agent.kill()?;
    }
    assert_eq!(agent.kills(), 2);
    assert_eq!(agent.log_text()?, "holding 10.77.2.1:34325\n".repeat(2));
    scratch.discard_logs();
    Ok(())
}

fn check_rights(process: u32) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let id = AGENT_ID.to_string();
    ensure!(field("Uid:").split_whitespace().all(|word| word == id), "user ids: {}", field("Uid:"));
    ensure!(field("Groups:").is_empty(), "groups: {}", field("Groups:"));
    ensure!(u64::from_str_radix(&field("CapEff:"), 16)? == 0, "capabilities: {}", field("CapEff:"));
    Ok(())
}

#[test]
fn nothing_stays_behind_after_a_panic() -> Result<()> {
    let outcome = std::thread::spawn(|| {
        let scratch = Scratch::new("panic", 0).unwrap();
        let network = network("panic").unwrap();
        let _folder = scratch.folder("roots/store-1").unwrap();
        assert!(Path::new(&network.namespace_file("store-1")).exists());
        panic!("expected by this scenario");
    });
    assert!(outcome.join().is_err());
    let own = format!("peerdist-e2e-{}-panic", std::process::id());
    let namespaces = Command::new("ip").args(["netns", "list"]).output()?;
    assert!(!String::from_utf8(namespaces.stdout)?.contains(&own));
    assert!(!Path::new("/var/tmp").join(own).exists());
    Ok(())
}
