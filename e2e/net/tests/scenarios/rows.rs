//! All rows of tables 1 to 7 carry traffic of real use, nothing flows that no row covers, ICMP included, and no
//! foreground message leaves its office. The rules that the program prints for network teams are loaded as well, and
//! must let the same pass.

use anyhow::{Result, ensure};
use peerdist_core::ports::ROWS;
use peerdist_e2e_net::counters::Counters;
use peerdist_e2e_net::fleet::Fleet;
use peerdist_e2e_net::printed_rules;
use peerdist_e2e_net::ruleset::{Direction, FOREGROUND_ACROSS, row_counter};
use peerdist_e2e_net::topology::{OfficeKind, Topology};

use crate::MEBIBYTE;

/// Enough for several chunks a node, on every link.
const PACKAGE_BYTES: u64 = 30 * MEBIBYTE;
/// Library, sources and a tree a node.
const NEEDED_BYTES: u64 = 20 * PACKAGE_BYTES;
/// Its role does not run here.
const TABLE_OF_VESC: u8 = 8;

#[test]
fn every_row_carries_traffic_and_nothing_else_flows() -> Result<()> {
    let topology = Topology::central(2)
        .with_office("store", "central", OfficeKind::Wired, 3)?
        .with_office("cafe", "central", OfficeKind::WiFi, 2)?
        .with_office("kiosk", "store", OfficeKind::Wired, 2)?
        .with_office("van", "store", OfficeKind::Vpn, 2)?;
    let mut fleet = Fleet::new("rows", topology, NEEDED_BYTES)?;
    printed_rules::load(fleet.network())?;
    let package = fleet.distribute("app", "1.0", PACKAGE_BYTES)?;
    fleet.start()?;
    fleet.wait_until_complete(&package)?;
    let next = fleet.distribute("app", "2.0", PACKAGE_BYTES)?;
    fleet.wait_until_complete(&next)?;
    let outcome = fleet.wait_until("every row has carried traffic", |fleet| Ok(silent_rows(fleet)?.is_empty()));
    println!("{}", fleet.network().all_counters()?.report());
    outcome.map_err(|error| error.context(format!("silent rows: {:#?}", silent_rows(&fleet).unwrap_or_default())))?;
    fleet.expect_nothing_dropped()?;
    // While every process still runs: what speaks to one that has ended is told so by ICMP.
    fleet.expect_no_icmp()?;
    let across = fleet.network().all_counters()?.of(FOREGROUND_ACROSS);
    ensure!(across.packets == 0, "{} bytes of foreground messages crossed an office boundary", across.bytes);
    expect_printed_rules_to_agree(&fleet)?;
    fleet.passed()
}

/// Rows that no datagram left or reached a host by.
fn silent_rows(fleet: &Fleet) -> Result<Vec<String>> {
    Ok(silent(&fleet.network().all_counters()?, row_counter))
}

fn silent(counters: &Counters, name: impl Fn(usize, Direction) -> String) -> Vec<String> {
    let mut silent = Vec::new();
    for (position, row) in ROWS.iter().enumerate().filter(|(_, row)| row.table != TABLE_OF_VESC) {
        for direction in [Direction::In, Direction::Out] {
            if counters.of(&name(position, direction)).packets == 0 {
                silent.push(format!("table {}: {:?} to {:?} {} {direction:?}", row.table, row.from, row.to, row.port));
            }
        }
    }
    silent
}

fn expect_printed_rules_to_agree(fleet: &Fleet) -> Result<()> {
    let counters = printed_rules::counters(fleet.network())?;
    let silent = silent(&counters, printed_rules::row_counter);
    ensure!(silent.is_empty(), "rows that the printed rules never saw: {silent:#?}");
    ensure!(counters.dropped() == 0, "the printed rules dropped {} datagrams", counters.dropped());
    Ok(())
}
