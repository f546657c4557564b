//! A Prometheus without its operator, with `deploy/prometheus` as shipped, beside the control plane: it scrapes clients,
//! server and operator, evaluates the alerts, and is asked whatever the dashboards ask. What they ask is known by
//! `cargo xtask deploy`.
//!
//! Debian builds Prometheus without discovery of Kubernetes. The test discovers in its place: it writes pods into a file,
//! with the labels that discovery would give them, and everything after that is as shipped.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use peerdist_e2e_cluster::cluster::Cluster;
use peerdist_e2e_cluster::objects::NAMESPACE as PEERDIST;
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_net::shell;
use serde_json::{Value, json};

use crate::sites::Sites;
use crate::user::User;

/// What is shipped for it.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus");
const SCRAPE: &str = "scrape.yaml";
const ALERTS: &str = "alerts.yaml";
/// Where it listens, in the network namespace of the control plane.
const ADDRESS: &str = "127.0.0.1:9090";
/// File with what was discovered.
const TARGETS: &str = "targets.json";
/// What discovers pods as shipped.
const DISCOVERY: &str =
    "    kubernetes_sd_configs:\n      - role: pod\n        namespaces:\n          names: [peerdist]\n";
/// How often is scraped as shipped, and here, where a package is on its way for seconds.
const INTERVAL: &str = "  scrape_interval: 30s\n";
const SHORT_INTERVAL: Duration = Duration::from_secs(2);
/// How discovery names what it found.
const META: &str = "__meta_kubernetes_";
/// Ends what hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// It runs until the value goes.
pub(crate) struct Prometheus {
    process: Process,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts it, and waits until it scrapes every client of these sites, the server and the operator.
    pub(crate) fn start(cluster: &Cluster, user: &User, sites: &Sites) -> Result<Self> {
        let folder = cluster.folder("prometheus")?;
        fs::write(folder.join(SCRAPE), configuration()?).context("cannot write a configuration")?;
        fs::copy(Path::new(SHIPPED).join(ALERTS), folder.join(ALERTS)).context("cannot copy the alerts")?;
        let mut command = shell::mortal(program("PEERDIST_E2E_PROMETHEUS")?);
        command.current_dir(&folder).args([
            "--config.file=scrape.yaml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
        ]);
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let process = Process::start(command, &cluster.folder("logs")?.join("prometheus.log"))?;
        let prometheus = Self { process, folder };
        prometheus.wait_for_targets(user, sites).with_context(|| prometheus.last_words())?;
        Ok(prometheus)
    }

    /// Every query and variable of the dashboards finds something, and the alerts work. A package has to have arrived
    /// since the start and less than a minute ago.
    pub(crate) fn answers(&self, user: &User) -> Result<()> {
        // What happened last is scraped by then.
        std::thread::sleep(2 * SHORT_INTERVAL);
        let url = format!("http://{ADDRESS}");
        let answered = shell::run(&program("PEERDIST_E2E_XTASK")?, &["deploy", "--prometheus", &url])?;
        println!("    {}", answered.trim());
        let alerts = fs::read_to_string(self.folder.join(ALERTS))?;
        let names: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        ensure!(!names.is_empty(), "{ALERTS} has no alert");
        user.eventually("every alert is evaluated, and nothing critical is even pending", || self.evaluates(&names))
    }

    fn wait_for_targets(&self, user: &User, sites: &Sites) -> Result<()> {
        let expected = [("client", sites.all().count()), ("server", 1), ("operator", 1)];
        let scraped = expected.map(|(component, count)| format!("{count} x {component}")).join(", ");
        user.eventually(&format!("Prometheus scrapes {scraped}"), || {
            self.discover(user)?;
            let answer = ask("/api/v1/targets?state=active")?;
            let targets = &answer["data"]["activeTargets"];
            for (component, count) in expected {
                let is_scraped =
                    |target: &&Value| target["labels"]["component"] == component && target["health"] == "up";
                ensure!(list(targets).filter(is_scraped).count() == count, "{targets:#}");
            }
            Ok(())
        })
    }

    fn last_words(&self) -> String {
        format!("Prometheus logged last: {}", self.process.last_lines())
    }

    /// Writes what it is to scrape.
    fn discover(&self, user: &User) -> Result<()> {
        let listed = user.commands.kubectl(&["get", "pods", "--namespace", PEERDIST, "--output=json"])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let targets: Vec<Value> = list(&listed["items"]).flat_map(targets_of).collect();
        ensure_labels_are_there(&targets)?;
        let path = self.folder.join(TARGETS);
        fs::write(&path, Value::from(targets).to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn evaluates(&self, names: &BTreeSet<&str>) -> Result<()> {
        let answer = ask("/api/v1/rules")?;
        let rules: Vec<&Value> = list(&answer["data"]["groups"]).flat_map(|group| list(&group["rules"])).collect();
        let loaded: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["name"].as_str()).collect();
        ensure!(loaded == *names, "{loaded:?} are loaded, expected {names:?}");
        for rule in rules {
            ensure!(rule["health"] == "ok", "not evaluated: {rule:#}");
            ensure!(rule["labels"]["severity"] != "critical" || rule["state"] == "inactive", "{rule:#}");
        }
        Ok(())
    }
}

/// What is shipped, with another interval and another way of discovery.
fn configuration() -> Result<String> {
    let mut text = shipped_configuration()?;
    let seconds = SHORT_INTERVAL.as_secs();
    for (from, to) in [
        (INTERVAL, format!("  scrape_interval: {seconds}s\n  evaluation_interval: {seconds}s\n")),
        (DISCOVERY, format!("    file_sd_configs:\n      - files: [{TARGETS}]\n")),
    ] {
        ensure!(text.contains(from), "{SCRAPE} has {from:?} no more");
        text = text.replace(from, &to);
    }
    Ok(text)
}

fn shipped_configuration() -> Result<String> {
    fs::read_to_string(Path::new(SHIPPED).join(SCRAPE)).with_context(|| format!("cannot read {SCRAPE}"))
}

/// What the role `pod` of discovery makes of a pod: a target for each port of a container.
fn targets_of(pod: &Value) -> Vec<Value> {
    let Some(address) = pod["status"]["podIP"].as_str() else { return Vec::new() };
    let ports = list(&pod["spec"]["containers"]).flat_map(|container| list(&container["ports"]));
    let target = |port: &Value| {
        let found = [
            ("namespace", &pod["metadata"]["namespace"]),
            ("pod_name", &pod["metadata"]["name"]),
            ("pod_node_name", &pod["spec"]["nodeName"]),
            ("pod_container_port_name", &port["name"]),
        ];
        let mut labels: serde_json::Map<String, Value> =
            found.into_iter().map(|(name, value)| (format!("{META}{name}"), value.clone())).collect();
        for (name, value) in pod["metadata"]["labels"].as_object().into_iter().flatten() {
            let name = name.replace(|letter: char| !is_of_name(letter), "_");
            labels.insert(format!("{META}pod_label_{name}"), value.clone());
        }
        json!({"targets": [format!("{address}:{}", port["containerPort"])], "labels": labels})
    };
    ports.map(target).collect()
}

/// What the shipped configuration reads has to be found in at least one target: nobody would give it another label.
fn ensure_labels_are_there(targets: &[Value]) -> Result<()> {
    let text = shipped_configuration()?;
    for name in text.split(|letter| !is_of_name(letter)).filter(|word| word.starts_with(META)) {
        let is_there = targets.iter().any(|target| target["labels"][name].is_string());
        ensure!(is_there, "{SCRAPE} reads {name}, which no pod in {PEERDIST} has");
    }
    Ok(())
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What its API answers. In the first version of HTTP an answer ends with its connection.
fn ask(path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(ADDRESS).context("Prometheus does not listen")?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {ADDRESS}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    ensure!(head.starts_with("HTTP/1.0 200"), "{path}: {head}\n{body}");
    serde_json::from_str(body).with_context(|| format!("{path}: no JSON"))
}

/// A program that `cargo xtask e2e cluster` brings.
fn program(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| format!("{variable} is not set: run `cargo xtask e2e cluster`"))
}
