//! The loop of one node: everything that happens becomes an event for the machine, everything it wants is done here
//! or by a task that reports back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ed25519_dalek::VerifyingKey;
use peerdist_core::client::{BroadcastRequest, Client, ClientConfig, ControlSignal, Event, Output, StoredPackage};
use peerdist_core::digest::Digest;
use peerdist_core::message::{Message, SignedBytes, decode_node, encode_node};
use peerdist_core::names::{NodeName, PackageKey};
use peerdist_core::peer::{MessageClass, Peer};
use peerdist_core::plan::{Plan, PlanError, decode_office_type};
use peerdist_core::ports::{Role, TransferClass};
use peerdist_core::signature::SignatureError;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::broadcast::Request;
use peerdist_telemetry::join_package_trace;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::following::Following;
use super::kept_plan::KeptPlan;
use super::receiving::Expected;
use super::{CHECK_PLAN, ClientSettings, manifests, receiving, storing};
use crate::driver::in_turn::InTurn;
use crate::driver::messages::{self, Incoming, SendFailure};
use crate::driver::progress::{NodeProgress, PackageOnNode, count_queue_delay};
use crate::driver::sending::{Sending, send_chunks};
use crate::http::Readiness;
use crate::metrics::{Metrics, PackageState, TransferErrorReason};
use crate::store::{NodeStore, StoreLimits};
use crate::transport::broadcast::BroadcastError;
use crate::transport::{IncomingMessage, Transport};

/// A package that cannot be deleted, because the disk is too full to note it for example, is tried again after this.
const DELETE_RETRY: Duration = Duration::from_secs(10);
/// Most events of tasks that wait for the machine; tasks wait when it is full.
const EVENTS_MAX: usize = 1024;
/// Events that the machine takes in before the node looks at anything else.
const EVENTS_AT_ONCE: usize = 64;
/// How often progress is shown to the process and the metrics.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);
/// Longest time for the last report of a node that ends.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time between two requests for keys, whoever sends plans with unknown ones.
const KEYS_INTERVAL: Duration = Duration::from_secs(60);
/// How often the certificate's age is looked at, and the roots that the trust file names.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(600);

/// What tasks of the node share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) settings: Arc<ClientSettings>,
    pub(super) store: Arc<NodeStore>,
    pub(super) transport: Arc<Transport>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) flush: Arc<tokio::sync::Notify>,
    pub(super) progress: NodeProgress,
    pub(super) renewing: Arc<tokio::sync::Mutex<()>>,
}

/// Why a node does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The server was set up anew: nothing that this node has proves anything to it.
    ServerReplaced,
}

impl Context {
    /// The keys whose signatures count now.
    pub(super) fn trusted(&self) -> Vec<VerifyingKey> {
        self.transport.identity().manifest_keys()
    }

    /// Tells the machine; the node has stopped when nobody listens any more.
    pub(super) async fn tell(&self, event: Event) {
        drop(self.events.send(event).await);
    }
}

pub(super) struct Node {
    context: Context,
    kept_plan: KeptPlan,
    machine: Client,
    expected: Expected,
    received: mpsc::Receiver<Event>,
    /// Work of the store, by package.
    in_turn: InTurn<Digest>,
    readiness: Readiness,
    /// When somebody's plan bore an unknown key for the last time that counted.
    keys_asked_for: Option<Instant>,
    following: Following,
}

impl Node {
    pub(super) fn new(
        settings: ClientSettings,
        enrolled: proto::EnrolReply,
        store: Arc<NodeStore>,
        transport: Arc<Transport>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        progress: NodeProgress,
    ) -> Self {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let config = ClientConfig {
            me: settings.me(),
            boot_id: rand::random::<u32>().into(),
            office_type: decode_office_type(enrolled.office_type).unwrap_or(peerdist_core::office::OfficeType::Wired),
            central: enrolled.central,
            term: 0,
            seed: rand::random(),
        };
        let stored = store
            .inventory()
            .into_iter()
            .map(|package| StoredPackage {
                distribution: package.key.distribution,
                digest: package.digest,
                published: package.published,
            })
            .collect();
        let machine = Client::new(Instant::now(), config, stored);
        let context = Context {
            settings: Arc::new(settings),
            store,
            transport,
            metrics,
            events,
            flush: Arc::new(tokio::sync::Notify::new()),
            progress,
            renewing: Arc::default(),
        };
        let kept_plan = KeptPlan::new(&context.settings.root);
        let mut node = Self {
            context,
            kept_plan,
            machine,
            expected: Expected::default(),
            received,
            in_turn: InTurn::default(),
            readiness,
            keys_asked_for: None,
            following: Following::default(),
        };
        if let Some((signed, plan)) = node.kept_plan.load(&node.context.trusted()) {
            node.take_plan(signed, plan);
        }
        node
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.context.settings.node
    }

    /// Runs until `stop`, or until there is another server, whose word this node cannot take before it enrols there.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Ended {
        let flusher = tokio::spawn(storing::flush_when_due(self.context.clone(), stop.clone()));
        let receiver = tokio::spawn(receiving::accept(self.context.clone(), self.expected.clone(), stop.clone()));
        let transport = self.context.transport.clone();
        let mut show = tokio::time::interval(SHOW_INTERVAL);
        let mut renewal = tokio::time::interval(RENEWAL_CHECK_INTERVAL);
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut ended = Ended::Stopped;
        loop {
            let deadline = tokio::time::Instant::from_std(self.machine.poll_timeout());
            let mut span = Span::none();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(message) = transport.next_message() => {
                    span = messages::span_of(&message.envelope, message.address);
                    self.take_message(message);
                }
                (_, broadcast) = next_broadcast(&transport) => self.take_broadcast(broadcast),
                1.. = self.received.recv_many(&mut events, EVENTS_AT_ONCE) => {
                    events.drain(..).for_each(|event| self.machine.handle(Instant::now(), event));
                }
                () = tokio::time::sleep_until(deadline) => self.machine.handle_timeout(Instant::now()),
                _ = show.tick() => self.show(),
                _ = renewal.tick() => {
                    if self.context.settings.server_is_another(&transport) {
                        stop.cancel();
                        ended = Ended::ServerReplaced;
                        break;
                    }
                    self.renew_if_due();
                }
            }
            let _in_trace = span.enter();
            while let Some(output) = self.machine.poll() {
                self.act(output);
            }
            self.following.look(&self.context.settings.node, &self.machine);
        }
        tracing::info!(role = "client", node = %self.name(), "stopping");
        self.show();
        if matches!(ended, Ended::Stopped) {
            self.report_at_last().await;
        }
        // Nobody takes events any more: who has one to tell must not wait for a place.
        self.received.close();
        drop(receiver.await);
        drop(flusher.await);
        ended
    }

    /// Tells the rendezvous point, or the server, what came since the last report.
    async fn report_at_last(&mut self) {
        self.machine.report_at_last(Instant::now());
        let mut sent = JoinSet::new();
        while let Some(output) = self.machine.poll() {
            let Output::Send { to, class, message } = output else { continue };
            if matches!(message, Message::MemberReport(_) | Message::OfficeReport(_) | Message::Inventory(_)) {
                sent.spawn(sending(self.context.clone(), to, class, message));
            }
        }
        // Who does not answer now is going away too.
        drop(tokio::time::timeout(LAST_REPORT_TIMEOUT, sent.join_all()).await);
    }

    fn take_message(&mut self, incoming: IncomingMessage) {
        let Some(from) = messages::peer_of(&incoming.from, incoming.address) else {
            return incoming.reply.refuse("unexpected", "only the server and clients speak to a client");
        };
        let now = Instant::now();
        match messages::parse(incoming.envelope) {
            Ok(Incoming::Message(Message::Plan(signed))) => match Plan::open(&signed, &self.context.trusted()) {
                Ok(plan) => {
                    self.take_plan(signed, plan);
                    incoming.reply.accept();
                }
                Err(error) => {
                    if error == PlanError::Signature(SignatureError::UntrustedKey) {
                        self.ask_for_keys(now);
                    }
                    incoming.reply.refuse("plan", &error.to_string());
                }
            },
            Ok(Incoming::Message(message)) => match self.machine.message(now, from, message) {
                Ok(()) => incoming.reply.accept(),
                Err(refusal) => incoming.reply.refuse(refusal.reason, &refusal.message),
            },
            Ok(Incoming::Manifest(request)) => {
                let digest = Digest::try_from(&request.digest[..]);
                let allowed = match (&from, &digest) {
                    (Peer::Node(node), &Ok(digest)) => self.machine.may_read_manifest(now, node, digest),
                    _ => false,
                };
                if !allowed {
                    return incoming.reply.refuse("not-granted", "this peer may not read this manifest here");
                }
                tokio::spawn(manifests::answer(self.context.store.clone(), request, incoming.reply));
            }
            Ok(Incoming::Enrol(_)) => incoming.reply.refuse("unexpected", "only the server enrols nodes"),
            Err(error) => incoming.reply.refuse("malformed", &error.to_string()),
        }
    }

    /// Hands a plan to the machine. Only one that it puts into force counts here: an older one and one of another
    /// office, however well signed, change nothing.
    fn take_plan(&mut self, signed: SignedBytes, plan: Plan) {
        let before = self.machine.plan().map(|plan| plan.revision);
        self.machine.handle(Instant::now(), Event::Plan { signed: signed.clone(), plan });
        let Some(plan) = self.machine.plan().filter(|plan| Some(plan.revision) != before) else { return };
        let limit_bytes = (plan.storage_limit_bytes > 0).then_some(plan.storage_limit_bytes);
        tracing::info!(node = %self.name(), revision = plan.revision, packages = plan.packages.len(), "plan taken");
        self.context.store.set_limits(StoreLimits { limit_bytes });
        self.context.settings.server.take_plan(&plan.server_addresses);
        self.readiness.set(CHECK_PLAN, Ok(()));
        self.kept_plan.keep(plan.revision, &signed);
    }

    fn take_broadcast(&mut self, broadcast: proto::Broadcast) {
        let Some(Ok(from)) = broadcast.sender.map(decode_node) else { return };
        let request = match broadcast.request {
            Some(Request::Beacon(beacon)) => {
                BroadcastRequest::Beacon { term: beacon.term, plan_revision: beacon.plan_revision }
            }
            Some(Request::WhoIsRendezvousPoint(_)) => BroadcastRequest::WhoIsRendezvousPoint,
            Some(Request::WhoHas(question)) => BroadcastRequest::WhoHas {
                question: question.question,
                digests: question.digests.iter().filter_map(|digest| Digest::try_from(&digest[..]).ok()).collect(),
            },
            None => return,
        };
        self.machine.handle(Instant::now(), Event::Broadcast { from, request });
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send { to, class, message } => self.send(to, class, message),
            Output::Broadcast(request) => self.broadcast(request),
            Output::Prepare { planned, from } => {
                let (digest, package) = (planned.digest, &planned.key);
                let span = tracing::info_span!("prepare", node = %self.name(), %package);
                join_package_trace(&span, package);
                let preparing = manifests::prepare(self.context.clone(), planned, from).instrument(span);
                self.in_turn.spawn(digest, preparing);
            }
            Output::Expect { transfer, from, class, digest, runs } => {
                let package = self.machine.key_of(digest).cloned();
                self.expected.expect(transfer, from, class, digest, package, &runs);
            }
            Output::Steer { transfer, signal } => self.steer(transfer, signal),
            Output::Serve { to, class, transfer, digest, runs, pace } => {
                let context = self.context.clone();
                let serving = async move {
                    let sending = Sending { to: to.address, class, transfer, digest, runs, pace };
                    match send_chunks(context.transport.bulk(), &context.store, sending).await {
                        Ok(damaged) if !damaged.is_empty() => {
                            context.tell(Event::ChunksLost { digest, runs: damaged }).await;
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(to = %to, %error, "transfer ended"),
                    }
                    context.tell(Event::ServeEnded { to: to.name, transfer }).await;
                };
                tokio::spawn(serving.in_current_span());
            }
            Output::Flush => self.context.flush.notify_one(),
            Output::Publish { digest } => {
                let package = self.machine.key_of(digest);
                let span = tracing::info_span!("publish", node = %self.name(), package = package.map(display));
                if let Some(package) = package {
                    join_package_trace(&span, package);
                }
                self.in_turn.spawn(digest, storing::publish(self.context.clone(), digest).instrument(span));
            }
            Output::Delete { digest } => {
                let (context, node) = (&self.context, self.name().clone());
                let deleting =
                    storing::delete(context.store.clone(), context.events.clone(), node, digest, DELETE_RETRY);
                self.in_turn.spawn(digest, deleting);
            }
            Output::Prune { distribution, versions, retention_seconds } => {
                let context = self.context.clone();
                tokio::spawn(storing::prune_and_tell(context, distribution, versions, retention_seconds));
            }
        }
    }

    fn steer(&mut self, transfer: u64, signal: ControlSignal) {
        self.expected.steer(transfer, signal);
    }

    fn send(&self, to: Peer, class: MessageClass, message: Message) {
        let span = messages::span_of_sending(&message, &to, self.package_of(&message));
        tokio::spawn(sending(self.context.clone(), to, class, message).instrument(span));
    }

    /// The package that a message is about, if it is about one.
    fn package_of(&self, message: &Message) -> Option<&PackageKey> {
        let digest = match message {
            Message::Want(want) => want.digest,
            Message::Complete { digest, .. } => *digest,
            _ => return None,
        };
        self.machine.key_of(digest)
    }

    fn broadcast(&self, request: BroadcastRequest) {
        let request = match request {
            BroadcastRequest::Beacon { term, plan_revision } => Request::Beacon(proto::Beacon { term, plan_revision }),
            BroadcastRequest::WhoIsRendezvousPoint => {
                Request::WhoIsRendezvousPoint(proto::RendezvousQuestion { question: rand::random() })
            }
            BroadcastRequest::WhoHas { question, digests } => {
                let digests = digests.iter().map(|digest| bytes::Bytes::copy_from_slice(digest.as_bytes())).collect();
                Request::WhoHas(proto::HolderQuestion { question, digests })
            }
        };
        let sender = Some(encode_node(&self.context.settings.me()));
        let message = proto::Broadcast { sender, boot_id: 0, counter: 0, request: Some(request) };
        let (transport, metrics) = (self.context.transport.clone(), self.context.metrics.clone());
        tokio::spawn(async move {
            if let Some(broadcaster) = transport.broadcaster()
                && let Err(error) = broadcaster.send(message).await
            {
                tracing::debug!(%error, "broadcast was not sent");
                if matches!(error, BroadcastError::Send { .. }) {
                    metrics.class_counters().add_error(TransferClass::Broadcast, TransferErrorReason::Local);
                }
            }
        });
    }

    /// Keys change while a node is away. The server gives those in force with every certificate; the plan comes again.
    fn ask_for_keys(&mut self, now: Instant) {
        if self.keys_asked_for.is_none_or(|asked| now >= asked + KEYS_INTERVAL) {
            self.keys_asked_for = Some(now);
            self.renew_certificate();
        }
    }

    fn renew_if_due(&self) {
        let identity = self.context.transport.identity();
        let token = self.context.settings.token().ok().flatten();
        let roots_come = token.is_some_and(|token| !identity.trusts_all(token.pins()));
        if roots_come || identity.renewal_due(SystemTime::now()) {
            self.renew_certificate();
        }
    }

    fn renew_certificate(&self) {
        let context = self.context.clone();
        tokio::spawn(async move {
            // Two at once would write the same files.
            let Ok(_renewing) = context.renewing.try_lock() else { return };
            let renewed = context.renew().await;
            context.transport.identity().tolerate_expired_peers(renewed.is_err());
            if let Err(error) = renewed {
                tracing::warn!(%error, "the certificate could not be renewed and is tried again");
            }
        });
    }

    fn show(&self) {
        let mut counts: BTreeMap<PackageState, i64> = PackageState::ALL.into_iter().map(|state| (state, 0)).collect();
        let mut packages = BTreeMap::new();
        for package in self.machine.progress() {
            *counts.entry(label(&package)).or_default() += 1;
            packages.insert(
                package.planned.digest,
                PackageOnNode { key: package.planned.key.clone(), state: package.state.clone(), phase: package.phase },
            );
        }
        for (state, count) in counts {
            self.context.metrics.packages(state).set(count);
        }
        count_queue_delay(&self.context.transport, &self.context.metrics);
        self.context.progress.replace(packages);
    }
}

async fn sending(context: Context, to: Peer, class: MessageClass, message: Message) {
    let (address, role): (IpAddr, Role) = match &to {
        Peer::Server => (context.settings.server.get(), Role::Server),
        Peer::Node(node) => (node.address, Role::Client),
    };
    let sent = messages::send(&context.transport, address, role, class, &message).await;
    match sent {
        Ok(()) if matches!(message, Message::MemberReport(_)) => context.tell(Event::Delivered { to }).await,
        Ok(()) => {}
        Err(failure) => {
            if to == Peer::Server && failure.is_silence() {
                context.settings.server.silent(address);
            }
            let refused = SendFailure::refused(failure);
            context.tell(Event::Undelivered { to, message, refused }).await;
        }
    }
}

fn label(package: &peerdist_core::client::PackageProgress<'_>) -> PackageState {
    if package.state.error.is_some() {
        PackageState::Failed
    } else if package.planned.paused {
        PackageState::Paused
    } else if package.state.complete {
        PackageState::Complete
    } else if package.phase == "planned" {
        PackageState::Pending
    } else if !package.planned.target {
        PackageState::Transit
    } else {
        PackageState::Transferring
    }
}

async fn next_broadcast(transport: &Transport) -> (IpAddr, proto::Broadcast) {
    match transport.broadcaster() {
        Some(broadcaster) => broadcaster.next_broadcast().await,
        None => std::future::pending().await,
    }
}
