//! Embedded mode: `peerdist up`. The server and every client run in this process on loopback addresses, with the real
//! port numbers, on objects from a directory. The roles are the same code as in separate processes.
//!
//! [`run`] starts and ends a run; `nodes` starts and stops clients as offices come and go; `progress` merges what the
//! server and the clients know; `standstill` finds what can never arrive; `report` says what happened.

mod nodes;
mod progress;
mod report;
mod standstill;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::{Console, ExitStatus, OutputFormat, Progress, UpOptions};
use crate::desired::{self, DesiredSource, DesiredState, DesiredUpdate, DirectorySource, ObjectError};
use crate::driver::server::{
    AddressRule, BoundServer, FileRule, RETENTION_SECONDS_DEFAULT, RetryPolicy, ServerSettings,
};
use crate::report::RunReport;
use nodes::Nodes;
use progress::Watch;

/// How often progress is shown and the end is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Nodes that could not be started are tried again this often.
const START_RETRY: Duration = Duration::from_secs(5);
/// Most updates of objects that wait for the server.
const UPDATES_MAX: usize = 16;

/// Objects that the embedding process has read and hands on.
struct Relay(mpsc::Receiver<DesiredUpdate>);

impl DesiredSource for Relay {
    async fn next(&mut self) -> DesiredUpdate {
        match self.0.recv().await {
            Some(update) => update,
            None => std::future::pending().await,
        }
    }
}

/// Runs until everything is distributed (`--once`) or `stop`.
pub async fn run(options: UpOptions, console: Console, stop: CancellationToken) -> ExitStatus {
    let started = Instant::now();
    let mut source = DirectorySource::new(&options.directory).keeping_good_objects(&options.state.join("server"));
    let first = source.next().await;
    let Some(state) = first.state.clone() else {
        return refuse(&options, &console, &first.errors);
    };
    match Run::start(&options, &console, state, first, started).await {
        Ok(run) => run.watch(source, &options, console, stop).await,
        Err(StartError { status, reason, message }) => {
            console.line(&format!("peerdist: {message}"));
            print(&options, &console, &RunReport::failed("peerdist up", "", reason, &message));
            status
        }
    }
}

fn refuse(options: &UpOptions, console: &Console, errors: &[ObjectError]) -> ExitStatus {
    errors.iter().for_each(|error| console.line(&format!("peerdist: {error}")));
    print(options, console, &report::of_errors(errors));
    ExitStatus::Unusable
}

fn print(options: &UpOptions, console: &Console, report: &RunReport) {
    match options.output {
        OutputFormat::Text if report.packages.is_empty() => {}
        OutputFormat::Text => println!("{}", report.to_text()),
        OutputFormat::Json => match report.to_json() {
            Ok(json) => println!("{json}"),
            Err(error) => console.line(&format!("peerdist: the report cannot be written: {error}")),
        },
    }
}

/// Why a run did not start.
struct StartError {
    status: ExitStatus,
    reason: &'static str,
    message: String,
}

impl StartError {
    /// As with the roles on their own, an address that cannot be used is a command line that cannot be used. A port
    /// that somebody else holds makes its address unusable, too.
    fn of(error: &impl std::fmt::Display, is_port_in_use: bool, is_address_unusable: bool) -> Self {
        let (status, reason) = match (is_port_in_use, is_address_unusable) {
            (true, _) => (ExitStatus::Unusable, "PortInUse"),
            (false, true) => (ExitStatus::Unusable, "NoSuchAddress"),
            (false, false) => (ExitStatus::Failed, "StartFailed"),
        };
        Self { status, reason, message: error.to_string() }
    }
}

/// Nodes that are missing.
struct Unstarted {
    state: Arc<DesiredState>,
    error: String,
    again_at: Instant,
}

struct Run {
    nodes: Nodes,
    watch: Watch,
    /// What is wrong with the objects as they are now.
    object_errors: Vec<ObjectError>,
    /// The offices as they are now, while some node of them could not be started.
    unstarted: Option<Unstarted>,
    updates: mpsc::Sender<DesiredUpdate>,
    server: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Run {
    async fn start(
        options: &UpOptions,
        console: &Console,
        state: Arc<DesiredState>,
        first: DesiredUpdate,
        started: Instant,
    ) -> Result<Self, StartError> {
        std::fs::create_dir_all(&options.state).map_err(|error| {
            let message = format!("the state directory {} cannot be made: {error}", options.state.display());
            StartError::of(&message, false, false)
        })?;
        let settings = ServerSettings {
            address: options.prefix.server().into(),
            root: options.state.join("server"),
            authority: None,
            join_token_file: options.state.join("join-token"),
            database: None,
            retry: if options.once { RetryPolicy::Once } else { RetryPolicy::KeepTrying },
            sources: AddressRule::any(),
            files: FileRule::any(),
            retention_seconds: RETENTION_SECONDS_DEFAULT,
            cluster: None,
        };
        let server = BoundServer::bind(settings)
            .await
            .map_err(|error| StartError::of(&error, error.is_port_in_use(), error.is_address_unusable()))?;
        let mut nodes = Nodes::new(options, server.database());
        nodes
            .adjust(&state)
            .await
            .map_err(|error| StartError::of(&error, error.is_port_in_use(), error.is_address_unusable()))?;
        let watch = Watch::new(started, state, server.snapshots(), server.overview(), server.metrics());
        for error in &first.errors {
            console.line(&format!("peerdist: {error}"));
        }
        let object_errors = first.errors.clone();
        let (updates, received) = mpsc::channel(UPDATES_MAX);
        drop(updates.send(first).await);
        let stop = CancellationToken::new();
        let server = tokio::spawn(server.run(Relay(received), stop.clone()));
        Ok(Self { nodes, watch, object_errors, unstarted: None, updates, server, stop })
    }

    async fn watch(
        mut self,
        source: DirectorySource,
        options: &UpOptions,
        console: Console,
        stop: CancellationToken,
    ) -> ExitStatus {
        let mut progress = Progress::new(&console);
        let interrupted = self.follow(source, options.once, &console, &mut progress, stop).await;
        let snapshot = self.watch.look(&self.nodes);
        progress.update(&snapshot, Instant::now());
        progress.finish();
        let mut summary = report::make(&self.watch, &self.nodes, &snapshot, &self.object_errors);
        if interrupted && options.once {
            let unfinished = report::of_interrupt(&self.watch, &snapshot);
            for error in &unfinished {
                console.line(&format!("peerdist: {}: {}", error.object, error.message));
            }
            summary.errors.extend(unfinished);
        }
        self.nodes.stop().await;
        self.stop.cancel();
        drop(self.server.await);
        print(options, &console, &summary);
        if summary.errors.is_empty() { ExitStatus::Done } else { ExitStatus::PackageFailed }
    }

    /// Takes edits and shows progress until `stop`, or with `once` until nothing is left to wait for. Returns whether it
    /// was stopped.
    async fn follow(
        &mut self,
        source: DirectorySource,
        once: bool,
        console: &Console,
        progress: &mut Progress,
        stop: CancellationToken,
    ) -> bool {
        let mut news = desired::watch(source, self.stop.clone());
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return true,
                Some(update) = news.recv() => self.take(update, console).await,
                _ = look.tick() => {
                    self.start_missing(console).await;
                    let snapshot = self.watch.look(&self.nodes);
                    progress.update(&snapshot, Instant::now());
                    if once && self.watch.is_over(Instant::now(), &snapshot) {
                        return false;
                    }
                }
            }
        }
    }

    /// An edit: printed when it is bad, and the last good objects stay in force.
    async fn take(&mut self, update: DesiredUpdate, console: &Console) {
        for error in &update.errors {
            console.line(&format!("peerdist: {error}"));
        }
        if let Some(state) = &update.state {
            self.adjust(state.clone(), console).await;
            self.watch.take(state.clone());
        }
        self.object_errors = update.errors.clone();
        drop(self.updates.send(update).await);
    }

    async fn start_missing(&mut self, console: &Console) {
        let due = self.unstarted.as_ref().filter(|unstarted| unstarted.again_at <= Instant::now());
        if let Some(state) = due.map(|unstarted| unstarted.state.clone()) {
            self.adjust(state, console).await;
        }
    }

    /// Nodes as the offices have them. What stands in the way is printed once.
    async fn adjust(&mut self, state: Arc<DesiredState>, console: &Console) {
        let before = self.unstarted.take();
        if let Err(error) = self.nodes.adjust(&state).await {
            let error = error.to_string();
            if before.is_none_or(|before| before.error != error) {
                console.line(&format!("peerdist: {error}"));
            }
            self.unstarted = Some(Unstarted { state, error, again_at: Instant::now() + START_RETRY });
        }
    }
}
