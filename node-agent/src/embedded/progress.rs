//! What an embedded run knows at one moment: the server's snapshot, brought up to date with what each client knows of
//! itself, and when each office was complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use peerdist_core::distribution::Distribution;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName, PackageKey};
use tokio::sync::watch;

use super::nodes::Nodes;
use super::standstill::{self, Standstill};
use crate::desired::DesiredState;
use crate::driver::progress::PackageOnNode;
use crate::driver::server::IngestOverview;
use crate::metrics::{Metrics, PackageState};
use crate::status::{LinkTotals, NodeStatus, OfficeStatus, PackageStatus, StatusError, StatusSnapshot, percent};

pub(super) struct Watch {
    pub(super) started: Instant,
    pub(super) desired: Arc<DesiredState>,
    pub(super) overview: IngestOverview,
    pub(super) server_metrics: Arc<Metrics>,
    /// When an office was complete for a package, after the start.
    pub(super) completed_after: BTreeMap<(PackageKey, OfficeName), Duration>,
    snapshots: watch::Receiver<Arc<StatusSnapshot>>,
    standstill: Standstill,
    done: bool,
}

impl Watch {
    pub(super) fn new(
        started: Instant,
        desired: Arc<DesiredState>,
        snapshots: watch::Receiver<Arc<StatusSnapshot>>,
        overview: IngestOverview,
        server_metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            started,
            desired,
            overview,
            server_metrics,
            completed_after: BTreeMap::new(),
            snapshots,
            standstill: Standstill::default(),
            done: false,
        }
    }

    /// New objects are in force.
    pub(super) fn take(&mut self, desired: Arc<DesiredState>) {
        self.desired = desired;
        self.done = false;
    }

    /// Merges what is known now.
    pub(super) fn look(&mut self, nodes: &Nodes) -> StatusSnapshot {
        let mut snapshot = StatusSnapshot::clone(&self.snapshots.borrow());
        let mut latest: BTreeMap<(PackageKey, NodeName), (OfficeName, PackageOnNode)> = BTreeMap::new();
        for (name, node) in nodes.iter() {
            for package in node.progress.latest().into_values() {
                latest.insert((package.key.clone(), name.clone()), (node.office.clone(), package));
            }
        }
        let mut links = LinkTotals::new(&self.desired.offices, self.overview.origin_bytes());
        latest.values().for_each(|(office, package)| links.add(office, &package.state));
        snapshot.links = links.into_links();
        let members = members(nodes);
        for package in &mut snapshot.packages {
            let key = self.key_of(package);
            for office in &mut package.offices {
                bring_up_to_date(office, &key, package.bytes, &latest, nodes);
                if !office.nodes.is_empty() && office.is_complete() && package.digest.is_some() {
                    let place = (key.clone(), office.name.clone());
                    self.completed_after.entry(place).or_insert_with(|| self.started.elapsed());
                }
            }
            standstill::explain_waits(package, &self.desired.offices, &members);
            if package.state == PackageState::Transferring && package.is_complete() {
                package.state = PackageState::Complete;
            }
        }
        self.done = self.all_is_done(&snapshot);
        snapshot
    }

    /// Whether a run with `--once` is over: every package is on every node of its offices, failed for good, or rests;
    /// or nothing has been able to go on for long.
    pub(super) fn is_over(&mut self, now: Instant, snapshot: &StatusSnapshot) -> bool {
        let offices = snapshot.packages.iter().flat_map(|package| &package.offices);
        let arrived = |node: &NodeStatus| node.bytes + node.wan_bytes_received + node.lan_bytes_received;
        let bytes: u64 = offices.flat_map(|office| &office.nodes).map(arrived).sum();
        let patience = self.patience(snapshot);
        self.done || self.standstill.is_over(now, patience, bytes)
    }

    /// What is wanted and neither everywhere, nor failed for good, nor at rest, with what is known of it.
    pub(super) fn unfinished<'watch>(
        &'watch self,
        snapshot: &'watch StatusSnapshot,
    ) -> impl Iterator<Item = (&'watch Distribution, Option<&'watch PackageStatus>)> {
        self.desired.distributions.values().filter_map(move |distribution| {
            let package = snapshot.packages.iter().find(|package| self.key_of(package) == distribution.package());
            let settled = package.is_some_and(|package| self.is_settled(package, snapshot.time));
            (!settled).then_some((distribution, package))
        })
    }

    /// Whether the object keeps the package from being distributed now, and the server has heard of it.
    pub(super) fn rests(&self, package: &PackageStatus, now: Timestamp) -> bool {
        let distribution = self.desired.distributions.get(&self.key_of(package).distribution);
        let keeps_back = |distribution: &Distribution| {
            distribution.paused || distribution.not_before.is_some_and(|moment| now < moment)
        };
        package.waits.is_some() && distribution.is_some_and(keeps_back)
    }

    pub(super) fn key_of(&self, package: &PackageStatus) -> PackageKey {
        PackageKey {
            distribution: DistributionKey { namespace: package.namespace.clone(), name: package.name.clone() },
            version: package.version.clone(),
        }
    }

    fn all_is_done(&self, snapshot: &StatusSnapshot) -> bool {
        self.desired.distributions.len() == snapshot.packages.len() && self.unfinished(snapshot).next().is_none()
    }

    /// How long to wait when nothing can go on, at least for now; `None` when something can.
    fn patience(&self, snapshot: &StatusSnapshot) -> Option<Duration> {
        let open = snapshot.packages.iter().filter(|package| !self.is_settled(package, snapshot.time));
        let patience: Option<Vec<Duration>> = open.map(standstill::patience).collect();
        patience?.into_iter().max()
    }

    fn is_settled(&self, package: &PackageStatus, now: Timestamp) -> bool {
        let key = self.key_of(package);
        if self.overview.running(&key).is_some() {
            return false;
        }
        let failed = self.overview.failure(&key).is_some_and(|failure| failure.is_final);
        failed || self.rests(package, now) || (package.is_complete() && has_nodes(package))
    }
}

/// A package without a single node is not complete, it has not begun.
fn has_nodes(package: &PackageStatus) -> bool {
    package.offices.iter().filter(|office| office.targeted).all(|office| !office.nodes.is_empty())
}

/// How many nodes run in each office.
fn members(nodes: &Nodes) -> BTreeMap<OfficeName, usize> {
    let mut members: BTreeMap<OfficeName, usize> = BTreeMap::new();
    for (_, node) in nodes.iter() {
        *members.entry(node.office.clone()).or_default() += 1;
    }
    members
}

fn bring_up_to_date(
    office: &mut OfficeStatus,
    key: &PackageKey,
    package_bytes: u64,
    latest: &BTreeMap<(PackageKey, NodeName), (OfficeName, PackageOnNode)>,
    nodes: &Nodes,
) {
    // The server remembers nodes that the objects do not ask for any more.
    office.nodes.retain(|node| nodes.is_in(&office.name, &node.name));
    let members = nodes.iter().filter(|(_, node)| node.office == office.name).map(|(name, _)| name);
    for name in members {
        let Some((_, package)) = latest.get(&(key.clone(), name.clone())) else {
            // What the server remembers of an earlier run the node has not looked at yet in this one.
            office.nodes.retain(|node| node.name != *name);
            if office.targeted {
                office.nodes.push(empty(name.clone()));
            }
            continue;
        };
        let state = &package.state;
        let is_listed = office.nodes.iter().any(|node| node.name == *name);
        // Nodes of a transit office count once they have some of the package, or have tried to.
        if office.transit && !is_listed && state.bytes_held == 0 && state.error.is_none() {
            continue;
        }
        let complete = state.complete || (office.transit && package_bytes > 0 && state.bytes_held >= package_bytes);
        if !is_listed {
            office.nodes.push(empty(name.clone()));
        }
        let Some(node) = office.nodes.iter_mut().find(|node| node.name == *name) else { continue };
        node.bytes = state.bytes_held;
        node.complete = complete;
        node.percent = percent(state.bytes_held, package_bytes, complete);
        node.error = state.error.clone().map(|(reason, message)| StatusError { reason, message });
        node.waits = state.waits.clone().map(|(reason, message)| StatusError { reason, message });
        node.wan_bytes_received = state.wan_bytes_received;
        node.lan_bytes_received = state.lan_bytes_received;
    }
    office.nodes.sort_by(|left, right| left.name.cmp(&right.name));
}

fn empty(name: NodeName) -> NodeStatus {
    NodeStatus {
        name,
        bytes: 0,
        percent: 0,
        rate_bytes_per_second: 0,
        eta_seconds: None,
        source: None,
        complete: false,
        unreachable: false,
        error: None,
        waits: None,
        wan_bytes_received: 0,
        lan_bytes_received: 0,
    }
}
