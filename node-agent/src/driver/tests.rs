//! A server and the clients of two offices in one process: what they say of themselves in their logs and metrics, how
//! a client finds a server that its file does not know, and what is said of an address that cannot be used.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use super::client::{BoundClient, ClientSettings, ServerAddress};
use super::server::{AddressRule, BoundServer, FileRule, RETENTION_SECONDS_DEFAULT, RetryPolicy, ServerSettings};
use crate::desired::DirectorySource;
use crate::store::tests::fixture::Root;

const OBJECTS: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {}\n---\n\
                       apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: store}\n\
                       spec: {parent: central}\n---\n\
                       apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
                       metadata: {namespace: retail, name: pos}\n\
                       spec: {version: '1', source: {uri: 'file:content'}}\n";
const PACKAGE_BYTES: usize = 100_000;
/// Far more than two elections and a small package take.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A second subscriber in this process. While there is one only, tracing asks the thread that comes by a message first
/// whether anybody hears it, and takes a no, of a test without a log, for the answer of all.
static DEAF: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(registry().with(LevelFilter::OFF)));

/// The lines of a log.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes in what this thread says, until the guard goes.
    pub(super) fn listen(&self) -> DefaultGuard {
        LazyLock::force(&DEAF);
        let writer = self.clone();
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(tracing::Level::INFO);
        tracing::subscriber::set_default(lines.with_writer(move || writer.clone()).finish())
    }

    /// How many messages begin like this.
    pub(super) fn count_beginning(&self, begin: &str) -> usize {
        let begins = |line: &&Value| line["message"].as_str().is_some_and(|message| message.starts_with(begin));
        self.all().iter().filter(begins).count()
    }

    fn all(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn lines(&self, message: &str) -> Vec<Value> {
        self.all().into_iter().filter(|line| line["message"].as_str() == Some(message)).collect()
    }

    /// Lines with this message, of which no two are equal in these fields.
    fn different(&self, message: &str, fields: [&str; 2]) -> usize {
        let lines = self.lines(message);
        let different = lines.iter().map(|line| fields.map(|field| line[field].to_string()).join(" "));
        let different: BTreeSet<String> = different.collect();
        assert_eq!(different.len(), lines.len(), "{message:?} is said again without news: {lines:?}");
        lines.len()
    }
}

/// Of this process, as in the tests of the transport, which do not use this third number.
fn address(number: u8) -> IpAddr {
    let process = u8::try_from(std::process::id() % 128).unwrap();
    IpAddr::from([127, 64 + process, 91, number])
}

fn server_settings(folder: &Path, address: IpAddr) -> ServerSettings {
    ServerSettings {
        address,
        root: folder.join("server"),
        authority: None,
        join_token_file: folder.join("join-token"),
        database: None,
        retry: RetryPolicy::KeepTrying,
        sources: AddressRule::any(),
        files: FileRule::any(),
        retention_seconds: RETENTION_SECONDS_DEFAULT,
        cluster: None,
    }
}

/// Writes the objects and the content of their package. Returns the folder with them.
fn write_objects(folder: &Path) -> PathBuf {
    let objects = folder.join("objects");
    fs::create_dir_all(objects.join("content")).unwrap();
    fs::write(objects.join("content/data"), vec![7; PACKAGE_BYTES]).unwrap();
    fs::write(objects.join("objects.yaml"), OBJECTS).unwrap();
    objects
}

/// Waits for what is to be.
async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

async fn start_client(
    folder: &Path,
    office: &str,
    number: u8,
    server: ServerAddress,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let settings = ClientSettings {
        server,
        address: address(number),
        office: office.parse().unwrap(),
        node: format!("{office}-1").parse().unwrap(),
        root: folder.join(office),
        join_token_file: folder.join("join-token"),
        trust_file: None,
    };
    let (client, stop) = (BoundClient::bind(settings).await.unwrap(), stop.clone());
    tokio::spawn(async move { client.run(stop).await.unwrap() })
}

/// On one thread, so that every task finds the subscriber of the test.
#[tokio::test]
async fn what_happened_is_in_the_log_once_and_the_server_measures_its_background_traffic() {
    crate::http::install_tls_provider();
    let (log, root, stop) = (Log::default(), Root::new(), CancellationToken::new());
    let (_listening, folder) = (log.listen(), root.0.path());

    let objects = write_objects(folder);
    let server = BoundServer::bind(server_settings(folder, address(1))).await.unwrap();
    let metrics = server.metrics();
    let mut running = vec![tokio::spawn(server.run(DirectorySource::new(&objects), stop.clone()))];
    let found = ServerAddress::fixed(address(1));
    running.push(start_client(folder, "central", 2, found.clone(), &stop).await);
    running.push(start_client(folder, "store", 3, found, &stop).await);

    // Plans for the store are background traffic.
    let delays = metrics.background_queue_delay_seconds();
    let done = || log.lines("package published").len() >= 2 && delays.get_sample_count() > 0;
    wait_until("both nodes publish, and the server sees the queue of its plans", done).await;
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }

    assert_eq!(log.different("started", ["role", "node"]), 3);
    assert_eq!(log.different("stopping", ["role", "node"]), 3);
    assert_eq!(log.different("node enrolled", ["node", "office"]), 2);
    assert_eq!(log.different("enrolled", ["node", "office"]), 2);
    assert_eq!(log.different("package published", ["node", "package"]), 2);
    assert!(log.different("plan taken", ["node", "revision"]) >= 2);
    assert!(log.different("leading the office", ["node", "term"]) >= 2);
    let changed = log.lines("objects changed");
    assert_eq!(changed.len(), 1, "{changed:?}");
    let counts = ["offices", "packages", "refused"].map(|field| changed[0][field].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(0)]);
    let ingested = log.lines("package ingested");
    assert_eq!(ingested.len(), 1, "{ingested:?}");
    assert_eq!(ingested[0]["package"].as_str(), Some("retail/pos 1"));
    assert_eq!(ingested[0]["bytes"].as_u64(), Some(PACKAGE_BYTES as u64));
    assert!(ingested[0]["seconds"].is_f64());
}

/// On one thread, for the log.
#[tokio::test]
async fn server_is_found_through_the_plan_while_the_file_leads_nowhere() {
    crate::http::install_tls_provider();
    let (log, root, stop) = (Log::default(), Root::new(), CancellationToken::new());
    let (_listening, folder) = (log.listen(), root.0.path());

    let objects = write_objects(folder);
    let server = BoundServer::bind(server_settings(folder, address(11))).await.unwrap();
    let mut running = vec![tokio::spawn(server.run(DirectorySource::new(&objects), stop.clone()))];
    let file = folder.join("server-address");
    fs::write(&file, address(11).to_string()).unwrap();
    let found = ServerAddress::wait(file.clone()).await;
    running.push(start_client(folder, "central", 12, found.clone(), &stop).await);
    let plan = folder.join("central/identity/plan");
    wait_until("the client has a plan", || plan.exists()).await;

    fs::write(&file, address(13).to_string()).unwrap();
    wait_until("the file is followed", || log.lines("the server moved").len() == 1).await;
    wait_until("the plan is followed", || found.get() == address(11)).await;
    assert_eq!(log.count_beginning("the server does not answer"), 1);
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn address_that_this_host_lacks_is_named_and_no_port_is_said_to_be_in_use() {
    let root = Root::new();
    // Reserved for documentation: no host has it.
    let absent: IpAddr = "192.0.2.1".parse().unwrap();
    let error = BoundServer::bind(server_settings(root.0.path(), absent)).await.err().unwrap();
    assert!(error.to_string().contains("this host has no address 192.0.2.1"), "{error}");
    assert!(!error.is_port_in_use() && error.is_address_unusable());
}
