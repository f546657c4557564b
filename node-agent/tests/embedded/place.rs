//! One run of `peerdist up` after the other in a folder of its own: starting, watching, interrupting, and what it said.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const DONE: i32 = 0;
pub(crate) const UNUSABLE: i32 = 2;
pub(crate) const PACKAGE_FAILED: i32 = 3;

/// Long enough for a busy machine; nothing is concluded from how long something takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often something is looked at that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const CLIENT_HTTP_PORT: u16 = 9761;

/// Manifests, sources and state of one test.
pub(crate) struct Place {
    folder: TempDir,
    prefix: u8,
}

impl Place {
    /// On the network 127.`prefix`.
    pub(crate) fn new(prefix: u8) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), prefix };
        fs::create_dir(place.path("manifests")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, folders above it included, and gives its path.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts the objects in force by a rename, as careful editors do.
    pub(crate) fn objects(&self, text: &str) {
        let draft = self.write("manifests/draft", text.as_bytes());
        fs::rename(draft, self.path("manifests/objects.yaml")).unwrap();
    }

    /// The address of something in this folder, as an object would name it.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.path("state/server")
    }

    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.path("state/nodes").join(name)
    }

    /// The active version of a package on a node.
    pub(crate) fn current(&self, node: &str, package: &str) -> PathBuf {
        self.node(node).join("packages/demo").join(package).join("current")
    }

    pub(crate) fn assert_file(&self, node: &str, package: &str, file: &str, expected: &[u8]) {
        let path = self.current(node, package).join(file);
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == expected, "{} has other bytes", path.display());
    }

    /// `peerdist up` with a report as JSON; the state, which a test may hold against anything, starts empty.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let up = ["up", "--output", "json", "--prefix"].map(str::to_owned);
        let paths = ["--state".to_owned(), text(&self.path("state")), text(&self.path("manifests"))];
        up.into_iter().chain([format!("127.{}", self.prefix)]).chain(paths).collect()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerdist"));
        command.args(self.arguments());
        command
    }

    /// Runs until everything is distributed or has failed.
    pub(crate) fn once(&self) -> Ended {
        self.start_once().wait()
    }

    /// Starts such a run.
    pub(crate) fn start_once(&self) -> Run {
        let mut command = self.command();
        command.arg("--once");
        Run::start(command)
    }

    /// Starts a run that goes on until it is interrupted.
    pub(crate) fn start(&self) -> Run {
        Run::start(self.command())
    }

    /// A counter of a node, summed over the series whose labels contain `label`. Zero while the node does not answer.
    pub(crate) fn counter(&self, office: u8, node: u8, name: &str, label: &str) -> u64 {
        let text = self.metrics(office, node).unwrap_or_default();
        let rows = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    fn metrics(&self, office: u8, node: u8) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::new(127, self.prefix, office, node), CLIENT_HTTP_PORT)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Keeps from a command what configures a peerdist in the shell of whoever runs the tests. What the test itself says
/// stays.
pub(crate) fn without_settings_of_the_shell(command: &mut Command) -> &mut Command {
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in settings_to_remove(command, names) {
        command.env_remove(name);
    }
    command
}

fn settings_to_remove(command: &Command, mut names: Vec<OsString>) -> Vec<OsString> {
    names.retain(|name| is_setting(name) && command.get_envs().all(|(said, _)| said != name));
    names
}

/// Of peerdist itself, or of its logs and traces.
fn is_setting(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name == b"RUST_LOG" || name.starts_with(b"PEERDIST_") || name.starts_with(b"OTEL_")
}

#[test]
fn settings_of_the_shell_are_removed_and_those_of_a_test_are_not() {
    let mut command = Command::new("peerdist");
    command.env("PEERDIST_ONCE", "yes");
    let shell = ["PATH", "PEERDIST_ONCE", "PEERDIST_ROOT", "RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT", "HOME"];
    let removed = settings_to_remove(&command, shell.map(OsString::from).to_vec());
    assert_eq!(removed, ["PEERDIST_ROOT", "RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
}

/// A process that runs, killed when the test gives it up.
pub(crate) struct Run {
    child: Child,
    report: Option<JoinHandle<String>>,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Run {
    pub(crate) fn start(mut command: Command) -> Self {
        without_settings_of_the_shell(&mut command);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let report = thread::spawn(move || {
            let mut report = String::new();
            stdout.read_to_string(&mut report).unwrap();
            report
        });
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, report: Some(report), said, listener: Some(listener) }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits for something to be so, while the process runs.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended before {what}: {}", self.said());
            assert!(begin.elapsed() < PATIENCE, "never {what}: {}", self.said());
            thread::sleep(LOOK_INTERVAL);
        }
    }

    pub(crate) fn until_said(&mut self, words: &str) {
        let said = self.said.clone();
        self.until(&format!("saying {words:?}"), || said.lock().unwrap().contains(words));
    }

    /// Ctrl-C, and what it came to.
    pub(crate) fn interrupt(self) -> Ended {
        self.end_by(Signal::INT)
    }

    /// What service managers send, and what it came to.
    pub(crate) fn terminate(self) -> Ended {
        self.end_by(Signal::TERM)
    }

    fn end_by(self, signal: Signal) -> Ended {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
        self.wait()
    }

    pub(crate) fn wait(mut self) -> Ended {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.said());
            thread::sleep(LOOK_INTERVAL);
        };
        self.listener.take().unwrap().join().unwrap();
        let report = self.report.take().unwrap().join().unwrap();
        Ended::new(status, &report, self.said())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A run that is over.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) said: String,
}

impl Ended {
    fn new(status: ExitStatus, report: &str, said: String) -> Self {
        let parsed = serde_json::from_str(report).unwrap_or_else(|error| panic!("{error} in {report:?}: {said}"));
        Self { code: status.code(), report: parsed, said }
    }

    pub(crate) fn errors(&self) -> &[Value] {
        self.report["errors"].as_array().unwrap()
    }

    /// Expects exactly one error about the object, with this field and reason, whose message has these words; it must
    /// also have been said aloud.
    pub(crate) fn assert_error(&self, object: &str, field: &str, reason: &str, words: &[&str]) {
        let about: Vec<&Value> = self.errors().iter().filter(|error| error["object"] == object).collect();
        let [error] = about[..] else { panic!("{object}: expected one error in {:#?}", self.errors()) };
        assert_eq!((error["field"].as_str(), error["reason"].as_str()), (Some(field), Some(reason)), "{error}");
        let message = error["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word:?} is missing in {message:?}");
        }
        assert!(self.said.contains(words[0]), "nobody heard of {message:?}: {}", self.said);
    }

    /// The report's row of a package in an office.
    pub(crate) fn office(&self, package: &str, office: &str) -> &Value {
        let find = |list: &'static str, within: &Value, name: &str| {
            let rows = within[list].as_array().unwrap();
            rows.iter().position(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {within:#}"))
        };
        let packages = find("packages", &self.report, package);
        let package = &self.report["packages"][packages];
        &package["offices"][find("offices", package, office)]
    }

    pub(crate) fn assert_complete(&self, package: &str, office: &str, nodes: u64) {
        let row = self.office(package, office);
        assert_eq!((row["nodes"].as_u64(), row["complete"].as_u64()), (Some(nodes), Some(nodes)), "{package}: {row}");
    }

    /// Payload of a package that arrived in an office.
    pub(crate) fn received(&self, package: &str, office: &str) -> u64 {
        let row = self.office(package, office);
        row["wanBytesReceived"].as_u64().unwrap() + row["lanBytesReceived"].as_u64().unwrap()
    }

    /// UDP payload of all content, whatever it was.
    pub(crate) fn content_bytes(&self) -> u64 {
        let classes = ["foreground_content", "background_content"].map(|class| &self.report["classes"][class]);
        classes
            .iter()
            .map(|class| class["bytesSent"].as_u64().unwrap() + class["bytesReceived"].as_u64().unwrap())
            .sum()
    }
}
