//! Two operator processes, of which the one that leads is killed or paused again and again while it has work to do. The
//! audit log shows whether it wrote after the other took over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use peerdist_crds::Office;
use peerdist_e2e_cluster::audit::Write;
use peerdist_e2e_cluster::objects::{NAMESPACE, settings_text};
use peerdist_e2e_cluster::process::Process;
use peerdist_e2e_cluster::waiting::eventually;
use serde_json::{Value, json};

use crate::scene::{LEASE, LEASE_NAMESPACE, Scene};

/// Names of the two, and of the users under which the audit log knows them.
const NAMES: [&str; 2] = ["first", "second"];
/// Rounds of each kind when nobody says otherwise.
const ROUNDS: u32 = 3;
/// How many rounds of each kind.
const ROUNDS_VARIABLE: &str = "PEERDIST_E2E_ROUNDS";
/// Edits right before the signal, so that it hits an operator that writes.
const EDITS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violence {
    Kill,
    Pause,
}

/// The two operators; one of them may be down.
struct Pair {
    folder: PathBuf,
    kubeconfigs: [PathBuf; 2],
    running: [Option<Process>; 2],
}

impl Pair {
    fn new(scene: &Scene) -> Result<Self> {
        let folder = scene.plane.folder().to_owned();
        std::fs::write(folder.join("settings.yaml"), settings_text("example/peerdist:1"))?;
        let kubeconfigs = [scene.plane.kubeconfig(NAMES[0])?, scene.plane.kubeconfig(NAMES[1])?];
        let mut pair = Self { folder, kubeconfigs, running: [None, None] };
        pair.start_missing()?;
        Ok(pair)
    }

    fn start_missing(&mut self) -> Result<()> {
        let program = Path::new(env!("CARGO_BIN_EXE_peerdist-e2e-operator"));
        let settings = self.folder.join("settings.yaml");
        for ((slot, name), kubeconfig) in self.running.iter_mut().zip(NAMES).zip(&self.kubeconfigs) {
            if slot.is_none() {
                *slot = Some(Process::start_operator(program, name, kubeconfig, &settings, &[])?);
            }
        }
        Ok(())
    }

    fn process(&mut self, index: usize) -> Result<&mut Process> {
        self.running[index].as_mut().context("the operator runs")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_paused_operator_writes_nothing_after_the_other_took_over() -> Result<()> {
    let rounds = match std::env::var(ROUNDS_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{ROUNDS_VARIABLE}={text}: expected a number"))?,
        Err(_) => ROUNDS,
    };
    let mut scene = Scene::new().await?;
    install_lease(&scene).await?;
    let mut pair = Pair::new(&scene)?;
    scene.apply_offices().await?;
    put_store(&scene, "/var/lib/peerdist").await?;
    shows(&scene, "/var/lib/peerdist").await?;
    scene.settled().await?;
    let before = state(&scene).await?;
    for round in 0..rounds {
        for violence in [Violence::Kill, Violence::Pause] {
            let done = suffer(&mut scene, &mut pair, violence, round).await;
            done.with_context(|| format!("{violence:?}, round {round}"))?;
            ensure!(state(&scene).await? == before, "{violence:?}, round {round}: another end state");
        }
    }
    println!("{rounds} kills and {rounds} pauses: no accepted write after a takeover");
    Ok(())
}

/// As the chart does: with the name of the installation, and nobody who holds it.
async fn install_lease(scene: &Scene) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(scene.hand.client.clone(), LEASE_NAMESPACE);
    let metadata = json!({"name": LEASE, "annotations": {"peerdist.io/installation": NAMESPACE}});
    api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": metadata}))?).await?;
    Ok(())
}

async fn suffer(scene: &mut Scene, pair: &mut Pair, violence: Violence, round: u32) -> Result<()> {
    let leader = leader(scene).await?;
    let other = 1 - leader;
    // At another point of the work in each round.
    for edit in 0..EDITS {
        put_store(scene, &format!("/var/lib/peerdist/{round}-{edit}")).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(37 * round % 200))).await;
    }
    match violence {
        Violence::Kill => pair.process(leader)?.kill()?,
        Violence::Pause => pair.process(leader)?.pause()?,
    }
    put_store(scene, "/var/lib/peerdist/late").await?;
    eventually("the other leads", async || Ok(holder(scene).await? == Some(other))).await?;
    shows(scene, "/var/lib/peerdist/late").await?;
    if violence == Violence::Pause {
        pair.process(leader)?.go_on()?;
        ends_by_itself(pair.process(leader)?).await?;
    }
    pair.running[leader] = None;
    put_store(scene, "/var/lib/peerdist").await?;
    shows(scene, "/var/lib/peerdist").await?;
    let writes = all_writes(scene).await?;
    let taken = writes.iter().position(|write| write.by == NAMES[other] && write.resource == "leases");
    let taken = taken.context("the takeover stands in the audit log")?;
    let late: Vec<&Write> = writes[taken..].iter().filter(|write| write.by == NAMES[leader]).collect();
    ensure!(late.is_empty(), "writes of the old holder after the takeover: {late:?}");
    pair.start_missing()
}

/// Who slept through its time finds that out and ends with an error, so that it starts anew.
async fn ends_by_itself(process: &mut Process) -> Result<()> {
    let mut ended = None;
    let waited = eventually("it ends without the lease", async || {
        ended = process.ended()?;
        Ok(ended.is_some())
    });
    waited.await.with_context(|| process.last_lines())?;
    ensure!(ended.is_some_and(|status| !status.success()), "who loses the lease ends with an error");
    Ok(())
}

/// Everything that was accepted from both until nothing more comes, elections included.
async fn all_writes(scene: &mut Scene) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let fresh = scene.audit.new_accepted()?;
        let quiet = fresh.iter().all(|write| write.resource == "leases");
        writes.extend(fresh);
        if quiet {
            return Ok(writes);
        }
    }
}

async fn leader(scene: &Scene) -> Result<usize> {
    eventually("one of the two leads", async || Ok(holder(scene).await?.is_some())).await?;
    holder(scene).await?.context("the lease is held")
}

async fn holder(scene: &Scene) -> Result<Option<usize>> {
    let holder = scene.lease_holder().await?;
    Ok(NAMES.iter().position(|name| holder.starts_with(&format!("{name}-"))))
}

async fn put_store(scene: &Scene, path: &str) -> Result<()> {
    let spec = json!({"parent": "hub", "subnets": ["10.42.0.0/24"], "storage": {"path": path}});
    scene.apply_office("store", spec).await?;
    Ok(())
}

/// Waits until DaemonSet and status say so.
async fn shows(scene: &Scene, path: &str) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(scene.hand.client.clone(), NAMESPACE);
    eventually(&format!("the DaemonSet has the path {path}"), async || {
        let Some(set) = api.get_opt("peerdist-office-store").await? else { return Ok(false) };
        let pod = set.spec.template.spec.unwrap_or_default();
        let variables = pod.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
        Ok(variables
            .filter(|variable| variable.name == "PEERDIST_ROOT")
            .any(|root| root.value.as_deref() == Some(path)))
    })
    .await?;
    scene.office_says("store", "Accepted", "True", "Valid").await
}

/// All that the operator made, without what changes with each write.
async fn state(scene: &Scene) -> Result<Value> {
    let client = || scene.hand.client.clone();
    let sets = Api::<DaemonSet>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
    let servers = Api::<StatefulSet>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
    let accounts = Api::<ServiceAccount>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
    let maps = Api::<ConfigMap>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
    let secrets = Api::<Secret>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
    let offices = scene.offices.list(&Default::default()).await?;
    let said = |office: &Office| {
        let conditions = office.status.iter().flat_map(|status| &status.conditions);
        conditions.map(|said| json!([said.type_, said.status, said.reason, said.message])).collect::<Value>()
    };
    let nodes = Api::<Node>::all(client()).list(&Default::default()).await?;
    Ok(json!({
        "daemonSets": sets.items.iter().map(|set| json!([set.metadata.name, set.annotations().get("peerdist.io/applied"), set.spec.template])).collect::<Value>(),
        "servers": servers.items.iter().map(|set| json!([set.metadata.name, set.metadata.owner_references, set.spec])).collect::<Value>(),
        "accounts": accounts.items.iter().map(|account| json!([account.metadata.name, account.metadata.labels])).collect::<Value>(),
        "maps": maps.items.iter().map(|map| json!([map.metadata.name, map.data])).collect::<Value>(),
        "secrets": secrets.items.iter().map(|secret| json!([secret.metadata.name, secret.data])).collect::<Value>(),
        "offices": offices.items.iter().map(|office| json!([office.metadata.name, said(office)])).collect::<Value>(),
        "nodes": nodes.items.iter().map(|node| json!([node.metadata.name, node.metadata.labels])).collect::<Value>(),
    }))
}
