//! The controllers of one who leads: caches first, then the planner, then one applier a kind. All of them end together.

use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Config, Error, applier};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::apply::{Applier, Memory};
use crate::context::{Context, Failures, ReconcileError, key};
use crate::http::{Health, Stage};
use crate::metrics::{Kind, Metrics};
use crate::names::FIELD_MANAGER;
use crate::nodes::NodeLabels;
use crate::planner::{Queues, plan};
use crate::settings::Settings;
use crate::status::StatusWriter;
use crate::storage::StoragePrefixes;
use crate::watches::Caches;
use crate::{office, package, vesc};

/// Changes that wait for the planner, and objects that wait for a controller; further ones make the sender wait.
const QUEUE_MAX: usize = 1024;
/// Objects of one kind that are reconciled at a time.
const CONCURRENCY: u16 = 16;
/// The same of Offices. Each is several writes, one after the other, that mostly wait for the API server; many more at a
/// time would wait there so long that some are given up.
const CONCURRENCY_OFFICES: u16 = 32;
/// How long reconciles under way may take after the end was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What controllers need.
pub(super) struct Controllers {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) namespace: String,
    pub(super) identity: String,
    pub(super) storage_prefixes: StoragePrefixes,
    pub(super) metrics: Arc<Metrics>,
}

impl Controllers {
    /// Runs until `stop`, then lets reconciles under way end.
    pub(super) async fn run(self, health: &Health, stop: CancellationToken) -> Result<(), RunError> {
        let Self { client, settings, namespace, identity, storage_prefixes, metrics } = self;
        let (touches, told) = mpsc::channel(QUEUE_MAX);
        let mut watches = JoinSet::new();
        let memory = Memory::default();
        let caches =
            Caches::start(&client, &namespace, settings.identity.root_secret_name(), &touches, &memory, &mut watches);
        drop(touches);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ready = caches.ready() => ready?,
        }
        health.set(Stage::Working(Box::new(caches.clone())));
        tracing::info!("the caches are filled");

        let (fleet, judged) = watch::channel(Arc::default());
        let storage_prefixes =
            storage_prefixes.apart_from(settings.server.file_roots.clone()).apart_from_server(&settings.server.storage);
        let applier = Applier::new(client.clone(), memory);
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity) };
        let context = Arc::new(Context {
            settings,
            namespace,
            statuses: StatusWriter::new(applier.clone(), reporter),
            applier,
            metrics,
            fleet: judged,
            failures: Failures::default(),
            caches: caches.clone(),
        });
        let mut tasks = JoinSet::new();
        let queues = start(&mut tasks, &context, NodeLabels::new(client));
        let mut planner = tokio::spawn(plan(caches, told, queues, fleet, storage_prefixes));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = &mut planner => return Err(RunError::Ended("the planner")),
            _ = tasks.join_next() => return Err(RunError::Ended("a controller")),
            _ = watches.join_next() => return Err(RunError::Ended("a watch")),
        }
        // Without a planner no queue is fed, and the controllers end after what is under way.
        planner.abort();
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            tracing::warn!("reconciles under way did not end in time");
        }
        Ok(())
    }
}

fn start(tasks: &mut JoinSet<()>, context: &Arc<Context>, labels: NodeLabels) -> Queues {
    let caches = &context.caches;
    Queues {
        offices: control(tasks, Kind::Office, &caches.offices, context, |o, c| office::reconcile(o, c).boxed()),
        packages: control(tasks, Kind::PackageDistribution, &caches.packages, context, |o, c| {
            package::reconcile(o, c).boxed()
        }),
        vescs: control(tasks, Kind::VescEndpoint, &caches.vescs, context, |o, c| vesc::reconcile(o, c).boxed()),
        nodes: control(tasks, Kind::Node, &caches.nodes, context, move |o, c| labels.clone().reconcile(o, c).boxed()),
    }
}

type Reconciled = Result<Action, ReconcileError>;

/// Starts the controller of a kind and gives back its queue.
fn control<K>(
    tasks: &mut JoinSet<()>,
    kind: Kind,
    store: &Store<K>,
    context: &Arc<Context>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> BoxFuture<'static, Reconciled> + Send + Sync + 'static,
) -> mpsc::Sender<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let reconcile = Arc::new(reconcile);
    let counted = move |object: Arc<K>, context: Arc<Context>| {
        let reconcile = Arc::clone(&reconcile);
        async move {
            let begun = Instant::now();
            let result = reconcile(Arc::clone(&object), Arc::clone(&context)).await;
            let error = result.as_ref().err().map(ReconcileError::reason);
            context.metrics.reconciled(kind, begun.elapsed().as_secs_f64(), error);
            if error.is_none() {
                context.failures.forget(&key_of(kind, &*object));
            }
            result
        }
        .boxed()
    };
    let retry = move |object: Arc<K>, error: &ReconcileError, context: Arc<Context>| {
        let pause = context.failures.failed(key_of(kind, &*object), error);
        if error.is_conflict() {
            tracing::debug!(%error, kind = kind.as_str(), object = %object.name_any(), ?pause, "reconcile came too early");
        } else {
            tracing::warn!(%error, kind = kind.as_str(), object = %object.name_any(), ?pause, "reconcile failed");
        }
        Action::requeue(pause)
    };
    let config = Config::default().concurrency(if kind == Kind::Office { CONCURRENCY_OFFICES } else { CONCURRENCY });
    let stream = applier(counted, retry, Arc::clone(context), store.clone(), objects(queued), config);
    let context = Arc::clone(context);
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(outcome) = stream.next().await {
            match outcome {
                // What failed is asked for once more after its pause, also when it is gone by then.
                Err(Error::ObjectNotFound(gone)) => {
                    context.failures.forget(&key(kind, gone.namespace.as_deref(), &gone.name));
                }
                Err(Error::RunnerError(error)) => {
                    tracing::error!(%error, kind = kind.as_str(), "a controller failed");
                }
                _ => {}
            }
        }
    });
    queue
}

fn objects<K>(queue: mpsc::Receiver<ObjectRef<K>>) -> impl Stream<Item = Result<ObjectRef<K>, Infallible>>
where
    K: Resource<DynamicType = ()>,
{
    stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|object| (Ok(object), queue)) })
}

fn key_of<K: Resource>(kind: Kind, object: &K) -> String {
    key(kind, object.namespace().as_deref(), &object.name_any())
}
