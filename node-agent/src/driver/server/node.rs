//! The loop of the server: messages, objects and finished work become events for the machine; what it wants is done
//! here or by a task that reports back.

mod members;
mod restoring;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::message::{Message, Revision};
use peerdist_core::names::DistributionKey;
use peerdist_core::peer::{ContentClass, MessageClass, NodeRef};
use peerdist_core::plan::Plan;
use peerdist_core::ports::Role;
use peerdist_core::server::{IngestedPackage, Server, ServerConfig, ServerEvent, ServerOutput};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::enrolment::Entitlement;
use super::evictions::Evictions;
use super::ingest::{Ingests, Tools};
use super::recording::Recorder;
use super::reviews::Reviews;
use super::secrets::Secrets;
use super::{CHECK_OBJECTS, IngestOverview, ServerSettings, enrolment, keys, leaving, snapshot};
use crate::cluster::{Cluster, ClusterNodes, RefusalTeller, SecretReader, Standing, TokenReviewer};
use crate::database::MetadataStore;
use crate::desired::{self, DesiredSource, DesiredState, DesiredUpdate, PackageObject};
use crate::driver::client::manifests;
use crate::driver::messages::{self, Incoming};
use crate::driver::sending::{Sending, send_chunks};
use crate::http::Readiness;
use crate::metrics::Metrics;
use crate::source::{Ingest, KnownSecrets};
use crate::status::StatusSnapshot;
use crate::store::NodeStore;
use crate::transport::{Authority, IncomingMessage, JoinToken, Transport};

/// Most events of tasks that wait for the machine.
const EVENTS_MAX: usize = 1024;
/// How often the snapshot is made anew.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(300);
/// How often old versions in the library are looked at, and the own certificate.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What the loop works with.
pub(super) struct Parts {
    pub(super) settings: ServerSettings,
    pub(super) store: Arc<NodeStore>,
    pub(super) authority: Arc<Authority>,
    /// What newcomers show outside of a cluster.
    pub(super) token: Option<JoinToken>,
    /// Checks the tokens of pods, in a cluster.
    pub(super) reviewer: Option<TokenReviewer>,
    /// Tells whom it refused, in a cluster.
    pub(super) refusals: Option<(Cluster, RefusalTeller)>,
    /// Who has left, in a cluster.
    pub(super) nodes: Option<ClusterNodes>,
    /// How things stand, for the objects of a cluster.
    pub(super) standings: watch::Sender<Standing>,
    pub(super) transport: Arc<Transport>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) database: Arc<dyn MetadataStore>,
    pub(super) readiness: Readiness,
    pub(super) snapshots: watch::Sender<Arc<StatusSnapshot>>,
    pub(super) overview: IngestOverview,
    /// The highest revision that a plan may have already.
    pub(super) last_revision: Revision,
}

pub(super) struct Node {
    parts: Parts,
    machine: Server,
    ingests: Ingests,
    /// Secrets that came with the objects.
    secrets: watch::Sender<Arc<KnownSecrets>>,
    recorder: Recorder,
    desired: Option<Arc<DesiredState>>,
    snapshot: snapshot::Maker,
    started: Instant,
    evictions: Evictions,
    /// The objects of the cluster behind the desired state.
    objects: Arc<BTreeMap<DistributionKey, PackageObject>>,
    events: mpsc::Sender<ServerEvent>,
    received: mpsc::Receiver<ServerEvent>,
    /// Enrolments whose token was reviewed.
    reviews: Reviews,
    keys: keys::Follower,
    /// When a node with a plan that this server cannot follow was told of last.
    plan_ahead_told: Option<Instant>,
}

impl Node {
    pub(super) fn new(parts: Parts) -> Self {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let now = Instant::now();
        let config = ServerConfig {
            addresses: vec![parts.settings.address],
            retention_seconds: parts.settings.retention_seconds,
            last_revision: parts.last_revision,
        };
        let (key, settings) = (parts.authority.manifest_key(), &parts.settings);
        let (secrets, known_secrets) = watch::channel(Arc::default());
        let ingests = Ingests::new(Tools {
            store: parts.store.clone(),
            database: parts.database.clone(),
            metrics: parts.metrics.clone(),
            policy: settings.retry,
            ingest: Ingest::new(
                parts.store.clone(),
                key,
                settings.retry,
                settings.sources.clone(),
                settings.files.clone(),
            ),
            secrets: match &settings.cluster {
                Some(cluster) => Secrets::Cluster(SecretReader::new(cluster.clone())),
                None => Secrets::Objects(known_secrets),
            },
            overview: parts.overview.clone(),
            events: events.clone(),
            places: Arc::default(),
        });
        Self {
            machine: Server::new(now, config),
            ingests,
            secrets,
            recorder: Recorder::new(parts.database.clone()),
            desired: None,
            snapshot: snapshot::Maker::new(now),
            started: now,
            evictions: Evictions::default(),
            objects: Arc::default(),
            events,
            received,
            reviews: Reviews::new(parts.reviewer.clone()),
            keys: keys::Follower::default(),
            plan_ahead_told: None,
            parts,
        }
    }

    pub(super) async fn run(mut self, desired: impl DesiredSource + 'static, stop: CancellationToken) {
        self.restore().await;
        let mut news = desired::watch(desired, stop.clone());
        let transport = self.parts.transport.clone();
        let mut show = tokio::time::interval(SNAPSHOT_INTERVAL);
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        let mut keys = tokio::time::interval(keys::LOOK_INTERVAL);
        let mut left = tokio::time::interval(leaving::LOOK_INTERVAL);
        loop {
            let deadline = tokio::time::Instant::from_std(self.machine.poll_timeout());
            let mut span = Span::none();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(update) = news.recv() => self.take_objects(update),
                Some(message) = transport.next_message() => {
                    span = messages::span_of(&message.envelope, message.address);
                    self.take_message(message);
                }
                Some(event) = self.received.recv() => self.handle(event),
                Some((asked, entitlement, reply)) = self.reviews.next() => self.enrol(asked, &entitlement, reply),
                () = tokio::time::sleep_until(deadline) => {
                    self.machine.handle_timeout(Instant::now(), Timestamp::now());
                }
                _ = show.tick() => self.show(),
                _ = upkeep.tick() => self.keep_up(),
                _ = keys.tick() => self.follow_keys(),
                _ = left.tick() => self.forget_who_left(),
            }
            let _in_trace = span.enter();
            while let Some(output) = self.machine.poll() {
                self.act(output);
            }
        }
        tracing::info!(role = "server", "stopping");
        self.ingests.stop();
        self.show();
    }

    fn handle(&mut self, mut event: ServerEvent) {
        if let ServerEvent::Ingested(package) = &mut event {
            // The library keeps the signature of its time.
            package.root = keys::signed_by(&package.root, &self.parts.authority.manifest_key());
        }
        if let ServerEvent::Removed(packages) = &event {
            for (key, _) in packages {
                self.recorder.removed(key);
                self.snapshot.forget(key);
            }
        }
        self.machine.handle(Instant::now(), Timestamp::now(), event);
    }

    fn take_objects(&mut self, update: DesiredUpdate) {
        // A cluster tells of its objects whenever one of them changes.
        let told = self.parts.overview.object_errors();
        for error in update.errors.iter().filter(|error| !told.contains(error)) {
            tracing::error!(object = %error.object, field = %error.field, reason = %error.reason, "{}", error.message);
        }
        let refused = update.errors.len();
        self.parts.overview.set_object_errors(update.errors);
        let Some(state) = update.state else {
            if self.desired.is_none() {
                self.parts.readiness.set(CHECK_OBJECTS, Err("the objects cannot be used".to_owned()));
            }
            return;
        };
        self.parts.readiness.set(CHECK_OBJECTS, Ok(()));
        self.secrets.send_if_modified(|known| {
            let is_other = *known != state.secrets;
            known.clone_from(&state.secrets);
            is_other
        });
        self.say_changed(&state, refused);
        self.ingests.objects_changed(&state.distributions);
        self.ingests.check_sources(&state.distributions, refused);
        self.desired = Some(state.clone());
        self.objects = Arc::new(state.objects.packages.clone());
        let (tree, distributions) = (state.offices.clone(), state.distributions.clone());
        self.handle(ServerEvent::Desired { tree, distributions });
    }

    /// A cluster tells of its objects also when nothing about what people want has changed, for example when a status
    /// was written.
    fn say_changed(&self, state: &DesiredState, refused: usize) {
        let is_same =
            |known: &DesiredState| known.offices == state.offices && known.distributions == state.distributions;
        if !self.desired.as_deref().is_some_and(is_same) {
            let (offices, packages) = (state.offices.offices().count(), state.distributions.len());
            tracing::info!(offices, packages, refused, "objects changed");
        }
    }

    fn take_message(&mut self, incoming: IncomingMessage) {
        let IncomingMessage { from, address, envelope, reply, .. } = incoming;
        match messages::parse(envelope) {
            Ok(Incoming::Enrol(enrol)) => {
                let asked = enrolment::Asked { from, address, enrol };
                if let Some((asked, reply)) = self.reviews.begin(asked, reply) {
                    let entitlement = Entitlement::without_review(self.parts.token.as_ref(), &asked);
                    self.enrol(asked, &entitlement, reply);
                }
            }
            Ok(Incoming::Manifest(request)) => {
                let node = messages::node_of(&from, address);
                let digest = Digest::try_from(&request.digest[..]);
                let allowed = matches!((&node, &digest), (Some(node), Ok(digest)) if self.machine.may_read_manifest(node, digest));
                if !allowed {
                    return reply.refuse("not-granted", "this node may not read this manifest from the server");
                }
                tokio::spawn(manifests::answer(self.parts.store.clone(), request, reply));
            }
            Ok(Incoming::Message(message)) => {
                let Some(node) = messages::node_of(&from, address) else {
                    return reply.refuse("unexpected", "only clients speak to the server");
                };
                self.record_again(&node);
                self.look_for_plan_beyond_belief(&node, &message);
                match self.machine.message(Instant::now(), &node, message) {
                    Ok(()) => reply.accept(),
                    Err(refusal) => reply.refuse(refusal.reason, &refusal.message),
                }
            }
            Err(error) => reply.refuse("malformed", &error.to_string()),
        }
    }

    fn act(&mut self, output: ServerOutput) {
        match output {
            ServerOutput::Send { to, class, message } => self.send(to, class, message),
            ServerOutput::SendPlan { to, class, plan } => self.send_plan(to, class, plan),
            ServerOutput::Ingest { distribution } => self.ingests.start(distribution),
            ServerOutput::CancelIngest { key } => self.ingests.cancel(&key),
            ServerOutput::Serve { to, transfer, digest, runs, pace } => {
                let (transport, store, events) =
                    (self.parts.transport.clone(), self.parts.store.clone(), self.events.clone());
                let serving = async move {
                    let class = ContentClass::Foreground;
                    let sending = Sending { to: to.address, class, transfer, digest, runs, pace };
                    match send_chunks(transport.bulk(), &store, sending).await {
                        Ok(damaged) if !damaged.is_empty() => {
                            tracing::error!(%digest, "the library is damaged: run peerdist verify");
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(to = %to, %error, "transfer ended"),
                    }
                    drop(events.send(ServerEvent::ServeEnded { to: to.name, transfer }).await);
                };
                tokio::spawn(serving.in_current_span());
            }
            ServerOutput::Wanted(wanted) => self.recorder.wanted(wanted),
            ServerOutput::NodeCompleted { node, digest, bytes } => {
                if let Some(key) = self.machine.key_of(digest) {
                    self.recorder.completed(key.clone(), node.name, bytes);
                }
            }
            ServerOutput::OfficeReported { office, report } => {
                for package in report.packages {
                    if let Some(IngestedPackage { key, lengths, .. }) = self.machine.package_of(package.digest) {
                        self.recorder.reported(key, lengths.len() as u32, &office, package);
                    }
                }
            }
        }
    }

    fn send(&self, to: NodeRef, class: MessageClass, message: Message) {
        let transport = self.parts.transport.clone();
        let span = messages::span_of_sending(&message, &to, None);
        // Nodes let go of what a plan leaves out: a server that is started anew must not count on it.
        let forgotten = matches!(message, Message::Plan(_)).then(|| self.recorder.unwanted_is_forgotten());
        let sending = async move {
            if let Some(forgotten) = forgotten {
                forgotten.await;
            }
            if let Err(failure) = messages::send(&transport, to.address, Role::Client, class, &message).await {
                // Level-driven: whoever missed it says so with its next hello or report.
                tracing::debug!(to = %to, ?failure, "message did not arrive");
            }
        };
        tokio::spawn(sending.instrument(span));
    }

    fn send_plan(&self, to: NodeRef, class: MessageClass, plan: Plan) {
        let signed = plan.sign(&self.parts.authority.manifest_key());
        self.send(to, class, Message::Plan(signed));
    }
}
