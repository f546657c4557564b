//! Content crosses each link once: bytes into an office, and bytes out of the server, against the package's size.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use peerdist_core::ports::{CLIENT_BACKGROUND_CONTENT, CLIENT_FOREGROUND_CONTENT};
use peerdist_e2e_net::fleet::{Fleet, Package};
use peerdist_e2e_net::ruleset::Direction;
use peerdist_e2e_net::topology::{Host, OfficeKind, Topology};

use crate::MEBIBYTE;

/// The size the goals are stated for.
const PACKAGE_BYTES: u64 = 256 * MEBIBYTE;
/// Thousandths of the package that may arrive over the WAN as chunk payload.
const WAN_PAYLOAD_PERMILLE: u64 = 1005;
/// The same when the rendezvous point dies half-way.
const WAN_PAYLOAD_WITH_KILL_PERMILLE: u64 = 1020;
/// Thousandths that may arrive with all headers, by the counters of the kernel.
const WAN_WIRE_PERMILLE: u64 = 1070;
/// Thousandths that may leave the server as content, without the headers of IP and UDP.
const SERVER_CONTENT_PERMILLE: u64 = 1050;
/// The same with headers, by the counter of the kernel.
const SERVER_WIRE_PERMILLE: u64 = 1070;
/// Slow enough to be caught half-way, fast enough not to bore.
const HALF_WAY_LINK_BITS_PER_SECOND: u64 = 300_000_000;
/// What a rendezvous point may have asked for and counts only when a chunk of it is whole.
const IN_FLIGHT_BYTES: u64 = 4 * MEBIBYTE;

#[test]
fn each_chunk_crosses_the_wan_once_to_2_nodes() -> Result<()> {
    each_chunk_crosses_the_wan_once(2)
}

#[test]
fn each_chunk_crosses_the_wan_once_to_8_nodes() -> Result<()> {
    each_chunk_crosses_the_wan_once(8)
}

#[test]
fn each_chunk_crosses_the_wan_once_to_32_nodes() -> Result<()> {
    each_chunk_crosses_the_wan_once(32)
}

fn each_chunk_crosses_the_wan_once(nodes: u8) -> Result<()> {
    let topology = Topology::central(1).with_office("store", "central", OfficeKind::Wired, nodes)?;
    let mut fleet = Fleet::new(&format!("wan{nodes}"), topology, needed_bytes(nodes + 1))?;
    let package = fleet.distribute("app", "1.0", PACKAGE_BYTES)?;
    fleet.start()?;
    fleet.wait_until_complete(&package)?;
    let store = fleet.nodes_of("store");
    let payload = wan_payload(&fleet, &store)?;
    let wire = fleet.bytes_received(&store, CLIENT_BACKGROUND_CONTENT)?;
    println!("{nodes} nodes: {payload} bytes of payload, {wire} on the wire, for {} bytes", package.bytes);
    ensure!(payload >= package.bytes, "{payload} bytes of payload and everything has arrived: the counter is wrong");
    expect_at_most("payload over the WAN", payload, WAN_PAYLOAD_PERMILLE, &package)?;
    expect_at_most("bytes on the WAN", wire, WAN_WIRE_PERMILLE, &package)?;
    fleet.passed()
}

#[test]
fn server_sends_each_chunk_once_to_8_nodes_of_the_central_office() -> Result<()> {
    let mut fleet = Fleet::new("central8", Topology::central(8), needed_bytes(8))?;
    let package = fleet.distribute("app", "1.0", PACKAGE_BYTES)?;
    fleet.start()?;
    fleet.wait_until_complete(&package)?;
    let server = fleet.hosts()[0].clone();
    let content = [("class", "foreground_content"), ("direction", "sent")];
    let sent = fleet.metrics(&server)?.sum("peerdist_transfer_bytes_total", &content);
    // Row 20 is the only one by which the server sends to this port.
    let wire = fleet.network().counters(&server.name)?.of_port(CLIENT_FOREGROUND_CONTENT, Direction::Out).bytes;
    println!("the server sent {sent} bytes of content, {wire} on the wire, for {} bytes", package.bytes);
    for (counted, by) in [(sent, "its own"), (wire, "the kernel's")] {
        ensure!(counted >= package.bytes, "{counted} bytes sent and everything has arrived: {by} counter is wrong");
    }
    expect_at_most("content from the server", sent, SERVER_CONTENT_PERMILLE, &package)?;
    expect_at_most("content from the server on the wire", wire, SERVER_WIRE_PERMILLE, &package)?;
    fleet.passed()
}

#[test]
fn killed_rendezvous_point_costs_what_was_in_flight() -> Result<()> {
    let topology = Topology::central(1).with_office("store", "central", OfficeKind::Wired, 4)?;
    let mut fleet = Fleet::new("rvpkill", topology, needed_bytes(5))?;
    fleet.network().limit_link_into(1, HALF_WAY_LINK_BITS_PER_SECOND)?;
    let package = fleet.distribute("app", "1.0", PACKAGE_BYTES)?;
    fleet.start()?;
    let store = fleet.nodes_of("store");
    fleet.wait_until("half of the package has crossed the WAN", |fleet| {
        Ok(fleet.bytes_received(&store, CLIENT_BACKGROUND_CONTENT)? >= package.bytes / 2)
    })?;
    let killed = busiest(&fleet, &store)?;
    let looked = Instant::now();
    let before = fleet.metrics(&killed)?.wan_bytes_received();
    fleet.agent(&killed.name)?.kill()?;
    let died = Instant::now();
    let uncounted = carried_within(died - looked) + IN_FLIGHT_BYTES;
    let wire_before = fleet.bytes_received(&store, CLIENT_BACKGROUND_CONTENT)?;
    println!("{} killed after {wire_before} bytes on the wire", killed.name);
    let others: Vec<Host> = store.iter().filter(|host| **host != killed).cloned().collect();
    // More than the packets of a connection that is opened.
    let resumed = fleet.bytes_received(&others, CLIENT_BACKGROUND_CONTENT)? + MEBIBYTE;
    fleet.wait_until("another node fetches over the WAN", |fleet| {
        Ok(fleet.bytes_received(&others, CLIENT_BACKGROUND_CONTENT)? >= resumed)
    })?;
    println!("another node has fetched 1 MiB over the WAN {:.1} s after the death", died.elapsed().as_secs_f64());
    fleet.wait_until("the others are complete", |fleet| {
        Ok(others.iter().all(|host| fleet.is_current(&host.name, &package)))
    })?;
    let payload = before + wan_payload(&fleet, &others)?;
    fleet.agent(&killed.name)?.start()?;
    fleet.wait_until_complete(&package)?;
    let payload = payload + fleet.metrics(&killed)?.wan_bytes_received();
    println!("{payload} bytes of payload over the WAN, at most {uncounted} uncounted, for {} bytes", package.bytes);
    // What arrived between the last look at the killed one and its end is in no sum.
    let counted_least = package.bytes.saturating_sub(uncounted);
    ensure!(payload >= counted_least, "{payload} bytes of payload for all that arrived: a counter is wrong");
    expect_at_most("payload over the WAN", payload, WAN_PAYLOAD_WITH_KILL_PERMILLE, &package)?;
    let wire = fleet.bytes_received(&store, CLIENT_BACKGROUND_CONTENT)?;
    expect_at_most("bytes on the WAN", wire, WAN_WIRE_PERMILLE, &package)?;
    fleet.passed()
}

/// The most that the slow link carries in so long.
fn carried_within(time: Duration) -> u64 {
    (time.as_secs_f64() * HALF_WAY_LINK_BITS_PER_SECOND as f64 / 8.0) as u64
}

/// Library, source and a tree a node, and a quarter more.
fn needed_bytes(nodes: u8) -> u64 {
    (u64::from(nodes) + 2) * PACKAGE_BYTES * 5 / 4
}

fn wan_payload(fleet: &Fleet, hosts: &[Host]) -> Result<u64> {
    hosts.iter().map(|host| Ok(fleet.metrics(host)?.wan_bytes_received())).sum()
}

/// The node that most came to over the WAN.
fn busiest(fleet: &Fleet, hosts: &[Host]) -> Result<Host> {
    let mut busiest = (0, hosts[0].clone());
    for host in hosts {
        let bytes = fleet.bytes_received(std::slice::from_ref(host), CLIENT_BACKGROUND_CONTENT)?;
        if bytes > busiest.0 {
            busiest = (bytes, host.clone());
        }
    }
    Ok(busiest.1)
}

fn expect_at_most(what: &str, bytes: u64, permille: u64, package: &Package) -> Result<()> {
    let limit = package.bytes * permille / 1000;
    ensure!(bytes <= limit, "{what}: {bytes} bytes, more than {permille} thousandths of {} bytes", package.bytes);
    Ok(())
}
