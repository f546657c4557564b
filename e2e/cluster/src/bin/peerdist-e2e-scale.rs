//! How much memory and time the operator takes for a large fleet, started by `cargo xtask bench operator`: 1,000 offices
//! on 10,000 nodes, with etcd, an API server, kwok and the operator on one machine. No controllers run, so DaemonSets get
//! no pods. Both figures stand beside their goals; nothing is asserted, since they are of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use peerdist_crds::Office;
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::fake_nodes::FakeNodes;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE, object, settings_text};
use peerdist_e2e_cluster::process::Process;
use peerdist_operator::names::ASSIGNED_OFFICE_LABEL;
use serde_json::json;

/// Size of the fleet.
const OFFICES: usize = 1_000;
const NODES_PER_OFFICE: usize = 10;
/// Nodes that are read at a time.
const PAGE: u32 = 1_000;
/// Requests at a time while the fleet is written.
const REQUESTS: usize = 32;
/// Time between two looks at how far the operator is. Each of them is work for the API server that it does not have for
/// the operator meanwhile.
const LOOK: Duration = Duration::from_secs(2);
/// It is given up after this time.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the operator runs on among beating nodes before its memory is read.
const AFTERWARDS: Duration = Duration::from_secs(30);
/// How the chart starts the operator.
const CHART: &str = include_str!("../../../../charts/peerdist/templates/operator.yaml");
/// What the names of variables for the allocator begin with.
const ALLOCATOR_PREFIX: &str = "MALLOC_";
/// Goals.
const SECONDS_GOAL: u32 = 60;
const MEBIBYTES_GOAL: u32 = 64;

#[tokio::main]
async fn main() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let client = plane.admin().await?;
    let hand = Hand { client: client.clone() };
    hand.install().await?;
    let fleet = Fleet { client };
    let began = Instant::now();
    fleet.add_nodes().await?;
    println!("{} nodes made in {:.0} s", OFFICES * NODES_PER_OFFICE, began.elapsed().as_secs_f64());
    let _nodes = FakeNodes::start(plane.folder(), &plane.kubeconfig("admin")?)?;
    fleet.wait_for_nodes().await?;
    println!("all of them ready after {:.0} s", began.elapsed().as_secs_f64());
    fleet.add_offices().await?;

    let settings = plane.folder().join("settings.yaml");
    fs::write(&settings, settings_text("example/peerdist:1"))?;
    let kubeconfig = plane.kubeconfig("operator")?;
    let program = program()?;
    let variables = allocator_variables()?;
    let start = || Process::start_operator(&program, "operator", &kubeconfig, &settings, &variables);

    let mut operator = start()?;
    let first = fleet.wait_until_reconciled(&mut operator).await?;
    tokio::time::sleep(AFTERWARDS).await;
    report("from nothing", first, &operator)?;
    operator.kill()?;

    fleet.edit_all().await?;
    let mut operator = start()?;
    let again = fleet.wait_until_reconciled(&mut operator).await?;
    tokio::time::sleep(AFTERWARDS).await;
    report("started again after an edit of every office", again, &operator)
}

struct Fleet {
    client: Client,
}

impl Fleet {
    async fn add_nodes(&self) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let one = async |number: usize| -> Result<()> {
            let (office, till) = (number / NODES_PER_OFFICE, number % NODES_PER_OFFICE);
            let name = node_name(office, till);
            let labels = json!({"office": format!("{office}"), "kubernetes.io/hostname": name, "region": "somewhere"});
            let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
            api.create(&PostParams::default(), &node).await?;
            let address = format!("10.{}.{}.{}", office / 256, office % 256, till + 1);
            let addresses = [("InternalIP", &address), ("Hostname", &name)];
            let addresses = addresses.map(|(kind, address)| json!({"type": kind, "address": address}));
            let status = json!({"status": {"addresses": addresses}});
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
            Ok(())
        };
        stream::iter(0..OFFICES * NODES_PER_OFFICE)
            .map(one)
            .buffer_unordered(REQUESTS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// Until every node says that it is ready.
    async fn wait_for_nodes(&self) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let (began, last) = (Instant::now(), node_name(OFFICES - 1, NODES_PER_OFFICE - 1));
        while began.elapsed() < PATIENCE {
            // They become ready one after the other: the last one is asked before all of them are.
            if is_ready(&api.get(&last).await?) && api.list(&ListParams::default()).await?.iter().all(is_ready) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        anyhow::bail!("after {} s not all nodes are ready", PATIENCE.as_secs())
    }

    /// The first office is the root of all; every other one selects by subnet or by label, in turn.
    async fn add_offices(&self) -> Result<()> {
        self.apply_offices("/var/lib/peerdist").await
    }

    /// Something that every DaemonSet has to follow.
    async fn edit_all(&self) -> Result<()> {
        self.apply_offices("/var/lib/peerdist/moved").await
    }

    async fn apply_offices(&self, path: &str) -> Result<()> {
        let hand = Hand { client: self.client.clone() };
        let api: Api<Office> = Api::all(self.client.clone());
        let one = async |number: usize| -> Result<()> {
            let mut spec = json!({"storage": {"path": path}});
            if is_by_subnet(number) {
                spec["subnets"] = json!([format!("10.{}.{}.0/24", number / 256, number % 256)]);
            } else {
                spec["nodeSelector"] = json!({"matchLabels": {"office": format!("{number}")}});
            }
            if number > 0 {
                spec["parent"] = json!(office_name(0));
            }
            hand.apply(&api, object("Office", &office_name(number), spec)).await?;
            Ok(())
        };
        one(0).await?;
        stream::iter(1..OFFICES).map(one).buffer_unordered(REQUESTS).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// From now until every Office has the operator's word on its newest edit, its DaemonSet follows it, and its nodes bear
    /// its label where it is theirs by that.
    async fn wait_until_reconciled(&self, operator: &mut Process) -> Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = operator.ended()? {
                anyhow::bail!("the operator ended with {status}:\n{}", operator.last_lines());
            }
            if self.is_reconciled().await? {
                return Ok(began.elapsed());
            }
            tokio::time::sleep(LOOK).await;
        }
        anyhow::bail!("not reconciled after {} s:\n{}", PATIENCE.as_secs(), operator.last_lines())
    }

    async fn is_reconciled(&self) -> Result<bool> {
        let offices = Api::<Office>::all(self.client.clone()).list(&ListParams::default()).await?;
        let told = |office: &Office| {
            let status = office.status.as_ref();
            status.is_some_and(|status| status.observed_generation == office.metadata.generation)
        };
        if offices.items.len() < OFFICES || !offices.iter().all(told) {
            return Ok(false);
        }
        let daemon_sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let made = daemon_sets.list_metadata(&ListParams::default()).await?;
        let newest = offices.iter().filter_map(|office| office.metadata.generation).max();
        let follows = |made: &PartialObjectMeta<DaemonSet>| made.metadata.generation >= newest;
        // They are looked at last: a look at thousands of nodes is work that the API server does not have otherwise.
        Ok(made.items.len() == OFFICES && made.iter().all(follows) && self.nodes_are_labelled().await?)
    }

    /// Whether the nodes of offices by subnet have the labels of their offices, and no others have one.
    async fn nodes_are_labelled(&self) -> Result<bool> {
        let numbers = (0..OFFICES).filter(|number| is_by_subnet(*number));
        let nodes = |office| (0..NODES_PER_OFFICE).map(move |till| (node_name(office, till), office_name(office)));
        let mut missing: BTreeMap<String, String> = numbers.flat_map(nodes).collect();
        let api: Api<Node> = Api::all(self.client.clone());
        let mut next = Some(ListParams::default().labels(ASSIGNED_OFFICE_LABEL).limit(PAGE));
        while let Some(parameters) = next.take() {
            let page = api.list_metadata(&parameters).await?;
            for node in &page {
                let wanted = missing.remove(&node.name_any());
                if node.labels().get(ASSIGNED_OFFICE_LABEL) != wanted.as_ref() {
                    return Ok(false);
                }
            }
            let token = page.metadata.continue_.filter(|token| !token.is_empty());
            next = token.map(|token| parameters.continue_token(&token));
        }
        Ok(missing.is_empty())
    }
}

fn office_name(number: usize) -> String {
    format!("office-{number:04}")
}

fn node_name(office: usize, till: usize) -> String {
    format!("node-{office:04}-{till}")
}

/// The others select their nodes by label.
fn is_by_subnet(office: usize) -> bool {
    !office.is_multiple_of(2)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn report(what: &str, time: Duration, operator: &Process) -> Result<()> {
    let (now, peak) = (memory(operator, "VmRSS")?, memory(operator, "VmHWM")?);
    println!(
        "{what}: all reconciled after {:.0} s (goal: at most {SECONDS_GOAL}), resident {now:.0} MiB, at most {peak:.0} MiB \
         (goal: at most {MEBIBYTES_GOAL})",
        time.as_secs_f64()
    );
    Ok(())
}

/// Names and values of the variables that the chart gives the allocator, from its lines.
fn allocator_variables() -> Result<Vec<(&'static str, &'static str)>> {
    let named =
        |line: &'static str| line.trim().strip_prefix("- name: ").filter(|name| name.starts_with(ALLOCATOR_PREFIX));
    let pair = |(line, next): (&'static str, &'static str)| {
        Some((named(line)?, next.trim().strip_prefix("value: ")?.trim_matches('"')))
    };
    let variables: Vec<_> = CHART.lines().zip(CHART.lines().skip(1)).filter_map(pair).collect();
    ensure!(!variables.is_empty(), "the chart gives the operator no variable {ALLOCATOR_PREFIX}*");
    Ok(variables)
}

/// A figure of the process in MiB.
fn memory(process: &Process, name: &str) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(process.id().to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no such figure of the process")?;
    Ok(kibibytes.parse::<f64>()? / 1_024.0)
}

/// Beside this program, where the build put it.
fn program() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("peerdist-operator");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask bench operator`", program.display());
    Ok(program)
}
