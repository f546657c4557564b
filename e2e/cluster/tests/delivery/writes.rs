//! How much operator and server write, by the audit log of the API server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use peerdist_e2e_cluster::audit::{Audit, Write};
use serde_json::Value;

use crate::site::Site;

/// Who writes statuses.
const OPERATOR: &str = "system:serviceaccount:peerdist:peerdist-operator";
const SERVER: &str = "system:serviceaccount:peerdist:peerdist-server";
/// Shortest time between two writes of one status by one of them.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The log cuts times to whole microseconds, so that two of them may seem that much closer than they were.
const RESOLUTION: SignedDuration = SignedDuration::from_micros(1);
/// Without a write for this long, the operator has nothing more to do.
const QUIET: Duration = Duration::from_secs(2);

/// Applies another version of the package, waits until it is ready, and gives back what the operator wrote from the first
/// to the last, events included.
pub(crate) async fn of_another_version(site: &Site, spec: Value) -> Result<Vec<Write>> {
    let mut audit = Audit::of(&site.audit_log(), &[OPERATOR]);
    audit.settled(QUIET).await?;
    site.apply_package("app", spec).await?;
    site.package_is("app", "Ready").await?;
    let mut writes = audit.settled(QUIET).await?;
    // Others have sources that fail and are tried again. An event bears no name before it is made.
    writes.retain(|write| write.name == "app" || write.resource == "events");
    let events = writes.iter().filter(|write| write.resource == "events").count();
    println!("a new version of a package: {} writes, {events} of them events: {writes:?}", writes.len());
    Ok(writes)
}

/// No status was written twice within a second by the same program, whichever object it belongs to.
pub(crate) fn statuses_come_a_second_apart(log: &Path) -> Result<()> {
    let mut statuses = Audit::of(log, &[OPERATOR, SERVER]).new_accepted()?;
    statuses.retain(|write| write.resource.ends_with("/status"));
    // The log is in the order of answers.
    statuses.sort_by_key(|write| write.received);
    let mut last: BTreeMap<[&str; 4], Timestamp> = BTreeMap::new();
    let mut shortest: BTreeMap<&str, SignedDuration> = BTreeMap::new();
    for write in &statuses {
        let object: [&str; 4] = [write.by.as_str(), &write.resource, &write.namespace, &write.name];
        let Some(before) = last.insert(object, write.received) else { continue };
        let pause = write.received.duration_since(before);
        ensure!(pause >= PAUSE - RESOLUTION, "{write:?} came {pause:?} after the write before it");
        shortest.entry(&write.by).and_modify(|least| *least = pause.min(*least)).or_insert(pause);
    }
    println!("{} writes of statuses; the shortest pauses: {shortest:?}", statuses.len());
    Ok(())
}

/// Both of them wrote a status more than once, so that there were pauses to look at.
pub(crate) fn both_wrote_again(log: &Path) -> Result<()> {
    let statuses = Audit::of(log, &[OPERATOR, SERVER]).new_accepted()?;
    for by in [OPERATOR, SERVER] {
        let of_app = statuses
            .iter()
            .filter(|write| write.by == by && write.resource == "packagedistributions/status" && write.name == "app");
        let count = of_app.count();
        ensure!(count > 1, "{by} wrote the status of the package {count} times");
    }
    Ok(())
}
