//! What `kubectl wait` and `helm --wait` make of the conditions: neither comes back before an object is ready in its
//! newest generation, and Helm gives up on one that nobody but its author can help. The programs are those that users
//! have; which counts lead to which condition is tested beside the operator's code.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use peerdist_e2e_cluster::commands::Commands;
use peerdist_e2e_cluster::objects::object;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::scene::Scene;

/// How long tools wait for what does not come.
const IN_VAIN: &str = "12s";
/// Ends a tool that hangs.
const PATIENCE: &str = "60s";
/// Namespace of the packages, and of what Helm remembers.
const NAMESPACE: &str = "retail";
/// What operators give to clients.
const IMAGE: &str = "example/peerdist:1";

/// A tool at work, and what it prints.
type Tool = JoinHandle<Result<String>>;

/// A user who brings one object by a chart, and waits for it.
struct User {
    commands: Arc<Commands>,
    chart: PathBuf,
    kind: &'static str,
    name: &'static str,
}

/// Both tools at work.
struct Waiting {
    helm: Tool,
    kubectl: Tool,
}

impl User {
    async fn new(scene: &Scene, kind: &'static str, name: &'static str) -> Result<Self> {
        let commands = Arc::new(Commands::new(&scene.plane.kubeconfig("admin")?)?);
        // The list of kinds by which tools go comes a moment after the kinds are served.
        eventually(&format!("kubectl knows the kind {kind}"), async || {
            let commands = Arc::clone(&commands);
            spawn_blocking(move || commands.kubectl(&["get", kind])).await??;
            Ok(true)
        })
        .await?;
        let chart = scene.plane.folder().join("charts").join(name);
        fs::create_dir_all(chart.join("templates"))?;
        fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"))?;
        Ok(Self { commands, chart, kind, name })
    }

    /// Brings the object in this form and waits for nothing.
    async fn put(&self, spec: Value) -> Result<()> {
        // JSON is YAML, and without a pair of opening braces it is no template.
        let template = object(self.kind, self.name, spec).to_string();
        fs::write(self.chart.join("templates/object.yaml"), template)?;
        self.helm(None).await??;
        Ok(())
    }

    fn wait(&self, timeout: &'static str) -> Waiting {
        Waiting { helm: self.helm(Some(timeout)), kubectl: self.kubectl(timeout) }
    }

    /// Both tools look at the object until their time is over; Helm tells what it waited for.
    async fn waits_in_vain(&self, expected: &str) -> Result<()> {
        let Waiting { helm, kubectl } = self.wait(IN_VAIN);
        let (helm, kubectl) = (complaint(helm.await?)?, complaint(kubectl.await?)?);
        let waited = format!("status: InProgress, message: {expected}");
        ensure!(helm.contains(&waited) && helm.contains("deadline exceeded"), "expected {waited:?}: {helm}");
        ensure!(kubectl.contains("timed out waiting for the condition"), "{kubectl}");
        Ok(())
    }

    /// Brings the chart as it is, and waits if that is asked for.
    fn helm(&self, timeout: Option<&'static str>) -> Tool {
        let (commands, chart, name) = (Arc::clone(&self.commands), self.chart.clone(), self.name);
        spawn_blocking(move || {
            let chart = chart.to_string_lossy();
            let upgrade = ["upgrade", "--install", name, &chart, "--namespace", NAMESPACE];
            let waiting = timeout.into_iter().flat_map(|timeout| ["--wait", "--timeout", timeout]);
            commands.helm(&upgrade.into_iter().chain(waiting).collect::<Vec<&str>>())
        })
    }

    fn kubectl(&self, timeout: &'static str) -> Tool {
        let (commands, resource) = (Arc::clone(&self.commands), format!("{}/{}", self.kind, self.name));
        spawn_blocking(move || {
            let timeout = format!("--timeout={timeout}");
            commands.kubectl(&["wait", "--for=condition=Ready", &resource, "--namespace", NAMESPACE, &timeout])
        })
    }
}

impl Waiting {
    /// Both come back because the object is ready.
    async fn succeed(self) -> Result<()> {
        let Self { helm, kubectl } = self;
        helm.await??;
        kubectl.await??;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_wait_until_an_office_has_a_node_that_runs_its_client() -> Result<()> {
    let scene = Scene::new().await?;
    let shop = User::new(&scene, "Office", "shop").await?;
    shop.put(json!({"parent": "hub", "nodeSelector": {"matchLabels": {"site": "shop"}}})).await?;
    // No operator has looked at it yet: without any condition it would be taken for ready.
    shop.waits_in_vain("Office generation is 1, but latest observed generation is -1").await?;

    let operator = scene.operator("first", IMAGE).await?;
    scene.apply_offices().await?;
    scene.office_says("shop", "Ready", "False", "RolloutPending").await?;
    scene.hand.report_daemon_set("peerdist-office-shop", 0).await?;
    scene.office_says("shop", "Ready", "False", "NoNodes").await?;
    shop.waits_in_vain("no node of the cluster belongs to the office").await?;

    let waiting = shop.wait(PATIENCE);
    scene.hand.add_node("shop-1", ("site", "shop"), "10.43.0.1").await?;
    scene.hand.report_daemon_set("peerdist-office-shop", 1).await?;
    waiting.succeed().await?;
    operator.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_wait_for_the_newest_version_of_a_package_whatever_is_said_of_the_last_one() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = scene.operator("first", IMAGE).await?;
    scene.apply_offices().await?;
    scene.office_says("hub", "Ready", "False", "RolloutPending").await?;
    scene.office_says("store", "Ready", "False", "RolloutPending").await?;
    scene.run_pods().await?;
    let app = User::new(&scene, "PackageDistribution", "app").await?;
    app.put(version("1")).await?;
    let waiting = app.wait(PATIENCE);
    scene.report_package("app", everywhere()).await?;
    waiting.succeed().await?;
    operator.stop().await?;

    // Ready and complete, but of the first version, and nobody is there to take that back.
    app.put(version("2")).await?;
    app.waits_in_vain("PackageDistribution generation is 2, but latest observed generation is 1").await?;

    let operator = scene.operator("second", IMAGE).await?;
    scene.package_says("app", "Ready", "False", "NotReported").await?;
    app.waits_in_vain("the server has reported this generation neither as signed nor as failed").await?;

    // The server tries again by itself, so that tools go on waiting.
    let failure = json!({"reason": "SourceMissing", "message": "nothing is there"});
    scene.report_package("app", json!({"failure": failure})).await?;
    scene.package_says("app", "Ready", "False", "SourceMissing").await?;
    app.waits_in_vain("nothing is there").await?;

    let waiting = app.wait(PATIENCE);
    scene.report_package("app", everywhere()).await?;
    waiting.succeed().await?;
    helm_gives_up_on_what_has_to_be_edited(&scene).await?;
    operator.stop().await
}

/// Before its time is over, and with the words of the condition.
async fn helm_gives_up_on_what_has_to_be_edited(scene: &Scene) -> Result<()> {
    let refused = User::new(scene, "PackageDistribution", "refused").await?;
    refused.put(json!({"version": "1", "source": {"uri": "s3://bucket/key"}})).await?;
    helm_says(&refused, "spec.source.uri: ").await?;

    let forged = User::new(scene, "PackageDistribution", "forged").await?;
    forged.put(version("1")).await?;
    let failure = json!({"reason": "DigestMismatch", "message": "it is another file", "needsEdit": true});
    scene.report_package("forged", json!({"failure": failure})).await?;
    scene.package_says("forged", "Stalled", "True", "DigestMismatch").await?;
    helm_says(&forged, "it is another file").await
}

async fn helm_says(user: &User, message: &str) -> Result<()> {
    let helm = complaint(user.helm(Some(PATIENCE)).await?)?;
    ensure!(helm.contains(&format!("status: Failed, message: {message}")), "{helm}");
    ensure!(!helm.contains("deadline exceeded"), "{helm}");
    Ok(())
}

/// What a tool says that fails, as it should.
fn complaint(tool: Result<String>) -> Result<String> {
    match tool {
        Ok(printed) => bail!("it came back as if all were well: {printed}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn version(version: &str) -> Value {
    json!({"version": version, "source": {"uri": "https://example.com/app.tar"}})
}

/// What the server counts when the nodes of hub and store hold the package.
fn everywhere() -> Value {
    let nodes = json!({"targeted": 3, "complete": 3, "failed": 0, "unreachable": 0});
    json!({"digest": "blake3:00", "percent": 100, "nodes": nodes})
}
