//! The server: it turns the objects into a plan for every office, gives each chunk once to the Central Office, knows
//! the rendezvous points, and gathers progress. Ingest, signatures, storage and sockets are the driver's.

mod event;
mod leaving;
mod listing;
mod numbering;
mod offices;
mod planning;
mod progress;
mod settling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::chunk_set::runs_of;
use crate::client::serving::begin_serving;
use crate::client::{NOT_GRANTED, NOT_READY, Refusal};
use crate::digest::Digest;
use crate::distribution::{Distribution, PackageSource, Unpack};
use crate::message::{Grant, Message, Revision, SignedBytes, Term, TransferId, Want};
use crate::names::{DistributionKey, NodeName, OfficeName, PackageKey, Version};
use crate::office::{OfficeTree, OfficeType};
use crate::peer::{MessageClass, NodeRef};
use crate::plan::Plan;
use crate::rollout::Rollout;
use crate::swarm::ledger::Ledger;
use crate::swarm::office_view::ChunkLengths;

pub use event::{ServerEvent, ServerOutput};
use listing::Listings;
use numbering::Overtaken;
pub use progress::OfficeProgress;
use settling::Settling;

/// Regular look at schedules and silent offices.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// Most transfers that the server sends at once.
pub const SERVING_MAX: usize = 1024;
/// A WiFi office whose members know of a rendezvous point has so long to name it after the server's start.
const CLAIM_PATIENCE: Duration = Duration::from_secs(15);

/// What the server is told at its start.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its addresses, for plans.
    pub addresses: Vec<IpAddr>,
    /// How long nodes keep an old version after it stopped being current.
    pub retention_seconds: u64,
    /// Plans get revisions above this; must be at least the highest ever given out.
    pub last_revision: Revision,
}

/// A package in the library.
#[derive(Debug, Clone)]
pub struct IngestedPackage {
    /// Its names.
    pub key: PackageKey,
    /// Digest of its root.
    pub digest: Digest,
    /// The signed root.
    pub root: SignedBytes,
    /// Length of each chunk.
    pub lengths: ChunkLengths,
    /// Sum of its file sizes.
    pub bytes: u64,
}

/// An enrolled node.
#[derive(Debug, Clone)]
pub struct KnownNode {
    /// Who it is.
    pub node: NodeRef,
    /// When it was last heard in this run.
    pub last_seen: Option<Instant>,
    /// The newest plan that it has, as far as this run heard.
    pub plan_revision: Revision,
    /// The newest plan of which it has deleted what that does not list, by its own word in this run.
    pub confirmed_revision: Revision,
}

impl KnownNode {
    /// For how long nothing was heard of it. Whom this run has not heard yet had time since its start.
    pub fn silence(&self, started: Instant, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_seen.unwrap_or(started))
    }
}

#[derive(Debug, Clone)]
struct RendezvousPoint {
    node: NodeRef,
    term: Term,
}

/// The machine.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    started: Instant,
    tree: Option<OfficeTree>,
    distributions: BTreeMap<DistributionKey, Distribution>,
    library: BTreeMap<PackageKey, IngestedPackage>,
    /// Versions in the library, in the order in which they became current.
    ingested: BTreeMap<DistributionKey, Vec<Version>>,
    /// What was ordered and is not in the library: under way, or given up.
    ingesting: BTreeMap<PackageKey, (PackageSource, Unpack)>,
    rollout: Rollout,
    plans: BTreeMap<OfficeName, Plan>,
    listings: Listings,
    revision: Revision,
    nodes: BTreeMap<NodeName, KnownNode>,
    rendezvous_points: BTreeMap<OfficeName, RendezvousPoint>,
    progress: BTreeMap<(OfficeName, Digest), OfficeProgress>,
    settling: Settling,
    central_ledger: Ledger,
    serving: BTreeSet<(NodeName, TransferId)>,
    /// Offices of which nodes came or left since their plan was made, or beside which another rendezvous point leads.
    newcomers: BTreeSet<OfficeName>,
    overtaken: BTreeMap<OfficeName, Overtaken>,
    /// The number up to which plans may be those of another server, by what nodes have told.
    told_until: Revision,
    /// The first number above that which the plan of each office got.
    first_above_told: BTreeMap<OfficeName, Revision>,
    /// Offices whose plans get another number although nothing else in them has changed.
    renumbered: BTreeSet<OfficeName>,
    housekeeping_at: Instant,
    look_again_at: Option<Timestamp>,
    outputs: VecDeque<ServerOutput>,
}

impl Server {
    /// A server without objects.
    pub fn new(now: Instant, config: ServerConfig) -> Self {
        Self {
            revision: config.last_revision,
            config,
            started: now,
            tree: None,
            distributions: BTreeMap::new(),
            library: BTreeMap::new(),
            ingested: BTreeMap::new(),
            ingesting: BTreeMap::new(),
            rollout: Rollout::default(),
            plans: BTreeMap::new(),
            listings: Listings::default(),
            nodes: BTreeMap::new(),
            rendezvous_points: BTreeMap::new(),
            progress: BTreeMap::new(),
            settling: Settling::default(),
            central_ledger: Ledger::default(),
            serving: BTreeSet::new(),
            newcomers: BTreeSet::new(),
            overtaken: BTreeMap::new(),
            told_until: 0,
            first_above_told: BTreeMap::new(),
            renumbered: BTreeSet::new(),
            housekeeping_at: now,
            look_again_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened. `wall` is the time of day, for schedules.
    pub fn handle(&mut self, now: Instant, wall: Timestamp, event: ServerEvent) {
        match event {
            ServerEvent::Desired { tree, distributions } => {
                let is_first = self.tree.replace(tree).is_none();
                self.distributions = distributions;
                if is_first {
                    self.settle_by_memory(now);
                }
                self.replan(wall);
            }
            ServerEvent::Ingested(package) => {
                self.take_package(package);
                self.replan(wall);
            }
            ServerEvent::Removed(packages) => {
                for (key, digest) in packages {
                    self.forget_package(&key, digest);
                }
                self.replan(wall);
            }
            ServerEvent::SignedAnew(roots) => {
                for (key, root) in roots {
                    self.library.entry(key).and_modify(|package| package.root = root);
                }
                self.plans.clear();
                self.plan_offices();
            }
            ServerEvent::Remembered { package, complete } => self.settling.remember(package, complete),
            // A certificate that is renewed changes nothing.
            ServerEvent::Renewed { node } if self.is_known(&node) => {}
            ServerEvent::Enrolled { node } => {
                self.forget_what_it_had(&node.name);
                self.take_node(node);
            }
            ServerEvent::Renewed { node } => self.take_node(node),
            ServerEvent::Left(nodes) => self.forget_nodes(&nodes),
            ServerEvent::ServeEnded { to, transfer } => {
                self.serving.remove(&(to, transfer));
            }
        }
        self.housekeeping_at = self.housekeeping_at.min(now + HOUSEKEEPING_INTERVAL);
    }

    /// Takes in a message of a node whose identity is proven.
    ///
    /// # Errors
    /// [`Refusal`] is the reply to the node when the message is not honoured.
    pub fn message(&mut self, now: Instant, from: &NodeRef, message: Message) -> Result<(), Refusal> {
        let newcomers = &mut self.newcomers;
        let known = self.nodes.entry(from.name.clone()).or_insert_with(|| {
            // Its certificate is still good, and plans do not name it any more.
            newcomers.insert(from.office.clone());
            KnownNode { node: from.clone(), last_seen: None, plan_revision: 0, confirmed_revision: 0 }
        });
        known.last_seen = Some(now);
        if let Message::Hello(hello) = &message {
            known.confirmed_revision = hello.confirmed_revision;
        }
        self.note_plan_of(now, from, &message);
        match message {
            Message::Hello(hello) => self.take_hello(now, from, &hello),
            Message::RendezvousClaim { term, plan_revision } => self.take_claim(from, term, plan_revision),
            Message::RendezvousLost { term } => self.take_lost(from, term),
            Message::OfficeReport(report) => self.take_office_report(from, report),
            Message::Complete { digest, bytes, plan_revision } => {
                self.take_complete(from, digest, bytes, plan_revision)
            }
            Message::Want(want) => self.take_want(from, want),
            _ => Err(Refusal::unexpected()),
        }
    }

    /// Acts on deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant, wall: Timestamp) {
        if self.housekeeping_at > now {
            return;
        }
        self.housekeeping_at = now + HOUSEKEEPING_INTERVAL;
        let passes_on_otherwise = self.look_who_settled(now);
        if passes_on_otherwise || self.look_again_at.is_some_and(|at| at <= wall) {
            self.replan(wall);
        }
        self.number_anew(now);
        self.plan_for_newcomers();
    }

    /// Next thing to do.
    pub fn poll(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// When [`Server::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        self.housekeeping_at
    }

    /// Whether a node may read the manifest of a package from the server: nodes of the Central Office.
    pub fn may_read_manifest(&self, peer: &NodeRef, digest: &Digest) -> bool {
        self.is_central(&peer.office) && self.package_of(*digest).is_some()
    }

    /// The offices.
    pub fn tree(&self) -> Option<&OfficeTree> {
        self.tree.as_ref()
    }

    /// The distributions wanted now.
    pub fn distributions(&self) -> &BTreeMap<DistributionKey, Distribution> {
        &self.distributions
    }

    /// What was decided, and why.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// A package of the library.
    pub fn package(&self, key: &PackageKey) -> Option<&IngestedPackage> {
        self.library.get(key)
    }

    /// All packages of the library.
    pub fn packages(&self) -> impl Iterator<Item = &IngestedPackage> {
        self.library.values()
    }

    /// The package of the library with this digest.
    pub fn package_of(&self, digest: Digest) -> Option<&IngestedPackage> {
        self.library.values().find(|package| package.digest == digest)
    }

    /// The names of the package with this digest.
    pub fn key_of(&self, digest: Digest) -> Option<&PackageKey> {
        self.package_of(digest).map(|package| &package.key)
    }

    /// Enrolled nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &KnownNode> {
        self.nodes.values()
    }

    fn is_known(&self, node: &NodeRef) -> bool {
        self.nodes.get(&node.name).is_some_and(|known| known.node == *node)
    }

    /// Whether the node is one of them.
    pub fn knows(&self, node: &NodeName) -> bool {
        self.nodes.contains_key(node)
    }

    /// Progress of a package in an office, if any was reported.
    pub fn progress(&self, office: &OfficeName, digest: Digest) -> Option<&OfficeProgress> {
        self.progress.get(&(office.clone(), digest))
    }

    /// The rendezvous point of an office.
    pub fn rendezvous_point(&self, office: &OfficeName) -> Option<(&NodeRef, Term)> {
        self.rendezvous_points.get(office).map(|point| (&point.node, point.term))
    }

    /// Type of an office, and whether it is the Central Office: what enrolment tells a node.
    pub fn office(&self, name: &OfficeName) -> Option<(OfficeType, bool)> {
        let tree = self.tree.as_ref()?;
        Some((tree.office(name)?.office_type, tree.is_central(name)))
    }

    fn is_central(&self, office: &OfficeName) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.is_central(office))
    }

    fn take_node(&mut self, node: NodeRef) {
        self.newcomers.insert(node.office.clone());
        self.forget_replaced(&node);
        let known = KnownNode { node, last_seen: None, plan_revision: 0, confirmed_revision: 0 };
        self.nodes.insert(known.node.name.clone(), known);
    }

    fn take_package(&mut self, package: IngestedPackage) {
        self.ingesting.remove(&package.key);
        let versions = self.ingested.entry(package.key.distribution.clone()).or_default();
        if !versions.contains(&package.key.version) {
            versions.push(package.key.version.clone());
        }
        self.library.insert(package.key.clone(), package);
    }

    /// Should an object name it again, it has to be brought in again.
    fn forget_package(&mut self, key: &PackageKey, digest: Digest) {
        if self.library.get(key).is_none_or(|package| package.digest != digest) {
            return;
        }
        self.library.remove(key);
        self.settling.forget_package(key);
        self.listings.forget_package(digest);
        if let Some(versions) = self.ingested.get_mut(&key.distribution) {
            versions.retain(|version| *version != key.version);
        }
        self.ingested.retain(|_, versions| !versions.is_empty());
    }

    fn take_want(&mut self, from: &NodeRef, want: Want) -> Result<(), Refusal> {
        if !self.is_central(&from.office) {
            return Err(Refusal::new(NOT_GRANTED, "the server sends content to nodes of the Central Office only"));
        }
        let planned = self
            .plans
            .get(&from.office)
            .is_some_and(|plan| plan.packages.iter().any(|package| package.digest == want.digest && !package.paused));
        if !planned {
            return Err(Refusal::new(NOT_GRANTED, "the package is not in force for the Central Office"));
        }
        let Some(capacity) = self.package_of(want.digest).map(|package| package.lengths.len() as u32) else {
            return Err(Refusal::new(NOT_READY, "the package is not in the library"));
        };
        begin_serving(&mut self.serving, SERVING_MAX, &from.name, want.transfer)?;
        let answer = self.central_ledger.ask(want.digest, &from.name, &want.runs, capacity, &want.lost_holders);
        if answer.open.is_empty() {
            self.serving.remove(&(from.name.clone(), want.transfer));
        } else {
            for &index in &answer.open {
                self.central_ledger.give(want.digest, &from.name, index, capacity);
            }
            self.outputs.push_back(ServerOutput::Serve {
                to: from.clone(),
                transfer: want.transfer,
                digest: want.digest,
                runs: runs_of(answer.open),
                pace: want.pace,
            });
        }
        if !answer.given_before.is_empty() {
            let given_before = answer.given_before.into_iter().map(|(node, chunks)| (node, runs_of(chunks))).collect();
            let grant = Grant { digest: want.digest, granted: Vec::new(), given_before, not_yet: Vec::new() };
            self.send_small(from, Message::Grant(grant));
        }
        Ok(())
    }

    fn send_small(&mut self, to: &NodeRef, message: Message) {
        self.outputs.push_back(ServerOutput::Send { to: to.clone(), class: MessageClass::Small, message });
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests;
