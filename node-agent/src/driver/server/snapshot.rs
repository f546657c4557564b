//! How things stand, made from the machine's knowledge a few times a second: for the API, `status` and the progress
//! bars. Rates come from the difference to the snapshot before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::distribution::Distribution;
use peerdist_core::message::{NodeState, PACKAGES_MAX};
use peerdist_core::names::{NodeName, OfficeName, PackageKey};
use peerdist_core::rollout::{FullPlan, RolloutDecision};
use peerdist_core::server::{IngestedPackage, Server};

use super::IngestOverview;
use crate::database::PackageNodeRow;
use crate::desired::{DesiredState, NO_OFFICE_SELECTED};
use crate::metrics::{ContentSource, Metrics, PackageState};
use crate::status::{
    LinkTotals, NodeStatus, OfficeStatus, PackageStatus, StatusError, StatusSnapshot, eta_seconds, percent,
    rate_bytes_per_second,
};

/// A node that was not heard for so long counts as unreachable.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(600);
/// Rates are measured over at least this span.
const RATE_SPAN: Duration = Duration::from_secs(2);

/// A node and package that were not looked at for so long are gone.
const RATE_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Nothing known yet.
pub(super) fn empty() -> StatusSnapshot {
    StatusSnapshot { time: Timestamp::now(), packages: Vec::new(), links: Vec::new() }
}

/// Remembers what rates need, and how far nodes were in the run before.
pub(super) struct Maker {
    started: Instant,
    /// By package: counts of an office until it reports in this run, and of a node until it is heard as well. Whoever is
    /// away when the server starts again stays complete.
    remembered: BTreeMap<PackageKey, Remembered>,
    rates: BTreeMap<(PackageKey, NodeName), Measured>,
}

/// How far a package was in the run before.
#[derive(Default)]
struct Remembered {
    nodes: BTreeMap<NodeName, NodeState>,
    /// How many chunks some node of the office has.
    offices: BTreeMap<OfficeName, u32>,
}

struct Measured {
    at: Instant,
    bytes: u64,
    rate_bytes_per_second: u64,
}

impl Maker {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, remembered: BTreeMap::new(), rates: BTreeMap::new() }
    }

    /// How far nodes and offices were with a package when the server was last up.
    pub(super) fn remember(
        &mut self,
        key: PackageKey,
        rows: Vec<PackageNodeRow>,
        offices: BTreeMap<OfficeName, ChunkSet>,
    ) {
        let state = |row: PackageNodeRow| {
            let PackageNodeRow { node, bytes, complete, error, .. } = row;
            (node, NodeState { bytes_held: bytes, complete, error, ..NodeState::default() })
        };
        let nodes = rows.into_iter().map(state).collect();
        let offices = offices.into_iter().map(|(office, chunks)| (office, chunks.len())).collect();
        self.remembered.insert(key, Remembered { nodes, offices });
    }

    /// The node is gone, or begins anew.
    pub(super) fn forget_node(&mut self, node: &NodeName) {
        for remembered in self.remembered.values_mut() {
            remembered.nodes.remove(node);
        }
    }

    /// The package is gone; should it come back, nodes have nothing of it.
    pub(super) fn forget(&mut self, key: &PackageKey) {
        self.remembered.remove(key);
    }

    pub(super) fn make(
        &mut self,
        machine: &Server,
        desired: &DesiredState,
        overview: &IngestOverview,
    ) -> StatusSnapshot {
        let mut links = LinkTotals::new(&desired.offices, overview.origin_bytes());
        let packages = desired
            .distributions
            .values()
            .map(|distribution| self.package(machine, overview, distribution, &mut links))
            .collect();
        self.rates.retain(|_, measured| measured.at.elapsed() < RATE_FORGOTTEN_AFTER);
        StatusSnapshot { time: Timestamp::now(), packages, links: links.into_links() }
    }

    fn package(
        &mut self,
        machine: &Server,
        overview: &IngestOverview,
        distribution: &Distribution,
        links: &mut LinkTotals<'_>,
    ) -> PackageStatus {
        let key = distribution.package();
        let ingested = machine.package(&key);
        let failure = overview.failure(&key);
        let running = overview.running(&key);
        let report = machine.rollout().report.get(&distribution.key);
        let mut offices = Vec::new();
        let silent = self.silent_nodes(machine);
        if let Some(report) = report {
            let targets = report.targets.iter().map(|name| (name, false));
            let transit = report.transit.iter().map(|name| (name, true));
            for (name, is_transit) in targets.chain(transit) {
                offices.push(self.office(machine, &key, ingested, name, is_transit, links, &silent));
            }
        }
        offices.sort_by(|left: &OfficeStatus, right| left.name.cmp(&right.name));
        let decision = report.map(|report| report.decision);
        let signed = ingested.filter(|_| !overview.is_doubtful(&key));
        let state = match (&failure, signed, decision) {
            (Some(_), None, _) => PackageState::Failed,
            (_, _, Some(RolloutDecision::Paused)) => PackageState::Paused,
            (_, None, Some(RolloutDecision::WaitsForIngest)) => PackageState::Ingesting,
            (_, None, _) => PackageState::Pending,
            (_, Some(_), Some(RolloutDecision::WaitsForSchedule { .. })) => PackageState::Pending,
            (_, Some(_), _) => PackageState::Transferring,
        };
        let mut status = PackageStatus {
            namespace: distribution.key.namespace.clone(),
            name: distribution.key.name.clone(),
            version: distribution.version.clone(),
            generation: distribution.generation,
            state,
            digest: signed.map(|package| package.digest),
            bytes: ingested.map_or(running.map_or(0, |(_, total)| total), |package| package.bytes),
            bytes_ingested: ingested.map_or(running.map_or(0, |(read, _)| read), |package| package.bytes),
            needs_edit: failure.as_ref().is_some_and(|failure| failure.is_final),
            error: failure.map(|failure| StatusError { reason: failure.reason, message: failure.message }),
            waits: decision.and_then(waits_for),
            offices,
        };
        if status.state == PackageState::Transferring && status.is_complete() {
            status.state = PackageState::Complete;
        }
        status
    }

    /// Nodes that were not heard for long, as far as this run of the server can know.
    fn silent_nodes(&self, machine: &Server) -> BTreeSet<NodeName> {
        let now = Instant::now();
        let silent = machine.nodes().filter(|known| known.silence(self.started, now) > UNREACHABLE_AFTER);
        silent.map(|known| known.node.name.clone()).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "what an office's row is made of")]
    fn office(
        &mut self,
        machine: &Server,
        key: &PackageKey,
        ingested: Option<&IngestedPackage>,
        name: &OfficeName,
        transit: bool,
        links: &mut LinkTotals<'_>,
        silent: &BTreeSet<NodeName>,
    ) -> OfficeStatus {
        let progress = ingested.and_then(|package| machine.progress(name, package.digest));
        let package_bytes = ingested.map_or(0, |package| package.bytes);
        let came = ingested.is_some_and(|package| machine.came_in_this_run(name, package.digest));
        let remembered = self.remembered.get(key).filter(|_| !came);
        let remembered_chunks = remembered.and_then(|remembered| remembered.offices.get(name)).copied();
        // Nodes of this office, and whether they were heard in this run.
        let enrolled: BTreeMap<&NodeName, bool> = machine
            .nodes()
            .filter(|known| known.node.office == *name)
            .map(|known| (&known.node.name, known.last_seen.is_some()))
            .collect();
        let known = |node: &NodeName| {
            let reported = progress.and_then(|progress| progress.nodes.get(node));
            let is_told_of = progress.is_some() && enrolled.get(node) == Some(&true);
            reported.or_else(|| remembered?.nodes.get(node).filter(|_| !is_told_of))
        };
        let reported = progress.iter().flat_map(|progress| progress.nodes.keys().cloned());
        let enrolled = enrolled.keys().copied().filter(|node| !transit || known(node).is_some());
        let names = enrolled.cloned().chain(reported);
        let states: BTreeMap<NodeName, NodeState> = names
            .map(|node| {
                let state = known(&node).cloned().unwrap_or_default();
                (node, state)
            })
            .collect();
        let has_passed_on = transit && machine.rollout().has_passed_on(name, key);
        let mut nodes: BTreeMap<NodeName, NodeStatus> = BTreeMap::new();
        for (node, state) in states {
            links.add(name, &state);
            let mut status = self.node(key, node.clone(), &state, package_bytes, transit);
            let full = machine.rollout().left_out(name, key).filter(|_| !status.complete);
            status.error = status.error.or(full.map(plan_full));
            let status = if has_passed_on { passed_on(status) } else { status };
            nodes.insert(node.clone(), NodeStatus { unreachable: silent.contains(&node), ..status });
        }
        let chunk_count = ingested.map_or(0, |package| package.lengths.len() as u32);
        let available = progress.and_then(|progress| progress.available_chunks).or(remembered_chunks);
        let available = if has_passed_on { chunk_count } else { available.unwrap_or(0).min(chunk_count) };
        OfficeStatus {
            name: name.clone(),
            targeted: !transit,
            transit,
            percent_available: percent(
                available.into(),
                chunk_count.into(),
                ingested.is_some() && available == chunk_count,
            ),
            nodes: nodes.into_values().collect(),
        }
    }

    fn node(
        &mut self,
        key: &PackageKey,
        name: NodeName,
        state: &NodeState,
        package_bytes: u64,
        transit: bool,
    ) -> NodeStatus {
        let now = Instant::now();
        let measured = self.rates.entry((key.clone(), name.clone())).or_insert(Measured {
            at: now,
            bytes: state.bytes_held,
            rate_bytes_per_second: 0,
        });
        if measured.at + RATE_SPAN <= now {
            let gained = state.bytes_held.saturating_sub(measured.bytes);
            measured.rate_bytes_per_second = rate_bytes_per_second(gained, now - measured.at);
            (measured.at, measured.bytes) = (now, state.bytes_held);
        }
        let complete = state.complete || (transit && package_bytes > 0 && state.bytes_held >= package_bytes);
        let rate = if complete { 0 } else { measured.rate_bytes_per_second };
        NodeStatus {
            name,
            bytes: state.bytes_held,
            percent: percent(state.bytes_held, package_bytes, complete),
            rate_bytes_per_second: rate,
            eta_seconds: eta_seconds(package_bytes.saturating_sub(state.bytes_held), rate).filter(|_| !complete),
            source: main_source(state),
            complete,
            unreachable: false,
            error: state.error.clone().map(|(reason, message)| StatusError { reason, message }),
            waits: state.waits.clone().map(|(reason, message)| StatusError { reason, message }),
            wan_bytes_received: state.wan_bytes_received,
            lan_bytes_received: state.lan_bytes_received,
        }
    }
}

/// The office below needs nothing more of the package, so this node deletes what it held of it: it has done its part,
/// however much passed through it.
fn passed_on(status: NodeStatus) -> NodeStatus {
    NodeStatus {
        bytes: 0,
        percent: 100,
        rate_bytes_per_second: 0,
        eta_seconds: None,
        complete: true,
        error: None,
        waits: None,
        ..status
    }
}

fn main_source(state: &NodeState) -> Option<ContentSource> {
    [
        (state.bytes_from_origin, ContentSource::Origin),
        (state.bytes_from_parent, ContentSource::Parent),
        (state.bytes_from_office, ContentSource::Office),
        (state.bytes_from_local, ContentSource::Local),
    ]
    .into_iter()
    .filter(|(bytes, _)| *bytes > 0)
    .max_by_key(|(bytes, _)| *bytes)
    .map(|(_, source)| source)
}

/// Packages by state, for the server's own metrics.
pub(super) fn count(metrics: &Metrics, snapshot: &StatusSnapshot) {
    for state in PackageState::ALL {
        let count = snapshot.packages.iter().filter(|package| package.state == state).count();
        metrics.packages(state).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// The office's plan, or the one of an office above, has no room for the package.
fn plan_full(full: &FullPlan) -> StatusError {
    let message = format!(
        "Office {}: {} packages are meant for it, more than a plan has room for ({PACKAGES_MAX} at most, less if they \
         have very many files): this one is left out; select the office in fewer PackageDistributions, or raise \
         spec.priority of this one",
        full.office, full.meant
    );
    StatusError { reason: "PlanFull".to_owned(), message }
}

/// What keeps a package from being distributed although nothing failed.
fn waits_for(decision: RolloutDecision) -> Option<StatusError> {
    let (reason, message) = match decision {
        RolloutDecision::NoOfficeSelected => (NO_OFFICE_SELECTED, "spec.offices selects no office".to_owned()),
        RolloutDecision::WaitsForSchedule { until } => {
            ("WaitsForSchedule", format!("waits until {until}, as spec.schedule.notBefore says"))
        }
        RolloutDecision::Paused => ("Paused", "paused, as spec.rollout.paused says".to_owned()),
        RolloutDecision::WaitsForIngest | RolloutDecision::Distributes => return None,
    };
    Some(StatusError { reason: reason.to_owned(), message })
}

#[cfg(test)]
mod tests;
