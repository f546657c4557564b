//! What a user does, on a cluster with kubelets: installs the chart with the images, applies the samples, waits, looks at
//! the nodes, deletes everything. `cargo xtask e2e cluster` brings the cluster; with `KUBECONFIG` set, it is that one.
//! Counts are asserted, and how long the status may be behind; all other times are only printed.

mod departure;
mod disturbances;
mod eyes;
mod helm;
mod leftovers;
mod origin;
mod phases;
mod processes;
mod prometheus;
mod samples;
mod sites;
mod user;

use std::path::PathBuf;

use anyhow::Result;
use peerdist_e2e_cluster::cluster::{self, Cluster};
use peerdist_e2e_cluster::commands::Commands;

use crate::disturbances::Violence;
use crate::phases::Phases;
use crate::user::{Images, Peace, User};

/// The package that is measured on the cluster and beside it.
pub(crate) const MEASURED_BYTES: u64 = 50_000_000;
/// What is measured on the cluster.
pub(crate) const MEASURED_PHASE: &str = "50 MB from apply to Ready on 5 nodes";
/// How many times as long as processes alone a cluster should take. It is printed: the machine has other work.
const TIMES_GOAL: f64 = 1.5;

#[test]
fn a_user_brings_packages_to_every_node_and_takes_them_away() -> Result<()> {
    let mut phases = Phases::default();
    let foreign = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(kubeconfig) = foreign {
        let user = User::new(Commands::new(&kubeconfig)?, Images::of_registry());
        user.ensure_cluster_is_free()?;
        let journey = user.journey(&mut phases, &mut Peace);
        let departure = phases.run("the cluster is as it was", || user.leave(journey.is_err()));
        phases.print();
        return journey.and(departure);
    }
    let folder = cluster::images()?;
    let processes = processes::time_to_complete(MEASURED_BYTES)?;
    let mut cluster = phases.run("start of a cluster with 5 nodes", || Cluster::start(&folder))?;
    let user = User::new(Commands::new(&cluster.kubeconfig())?, Images::of_nodes(&folder)?);
    user.journey(&mut phases, &mut Violence { cluster: &mut cluster })?;
    cluster.passed();
    phases.print();
    println!("{:>10.1}  the same 50 MB to 5 processes without a cluster", processes.as_secs_f64());
    if let Some(cluster) = phases.time(MEASURED_PHASE) {
        let times = cluster.as_secs_f64() / processes.as_secs_f64();
        println!("{times:>10.2}  times as long on the cluster; goal: at most {TIMES_GOAL}, printed and not asserted");
    }
    Ok(())
}
