//! The measure for a cluster: the same package to as many processes in namespaces behind the same link, without
//! Kubernetes. Its time is printed beside the cluster's.

use std::time::{Duration, Instant};

use anyhow::Result;
use peerdist_e2e_cluster::cluster::{LINK_BITS_PER_SECOND, STORE, topology};
use peerdist_e2e_net::fleet::Fleet;

/// What packages, library and trees take on disk.
const NEEDED_BYTES: u64 = 1 << 30;
/// A package by which all processes know each other.
const FIRST_BYTES: u64 = 1 << 20;

/// How long a package of so many bytes takes from its object to the last node.
pub(crate) fn time_to_complete(bytes: u64) -> Result<Duration> {
    let mut fleet = Fleet::new("processes", topology()?, NEEDED_BYTES)?;
    fleet.network().limit_link_into(STORE, LINK_BITS_PER_SECOND)?;
    fleet.start()?;
    let first = fleet.distribute("first", "1", FIRST_BYTES)?;
    fleet.wait_until_complete(&first)?;
    // One file, as on the cluster.
    let package = fleet.distribute_file("measured", "1", bytes)?;
    let start = Instant::now();
    fleet.wait_until_current(&package)?;
    let time = start.elapsed();
    fleet.look_at_every_tree()?;
    fleet.passed()?;
    Ok(time)
}
