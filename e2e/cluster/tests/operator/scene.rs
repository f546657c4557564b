//! A control plane with three nodes and an operator in this process, and the small verbs that the tests speak in.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use peerdist_e2e_cluster::audit::{Audit, Write};
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE, object, settings_text};
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_operator::run::{Operator, RunError};
use peerdist_operator::settings::Settings;
use peerdist_operator::storage::StoragePrefixes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where the Lease is.
pub(crate) const LEASE_NAMESPACE: &str = "kube-system";
/// Its name.
pub(crate) const LEASE: &str = "peerdist-operator";
/// Without a write for this long, the operator has nothing more to do.
const QUIET: Duration = Duration::from_secs(3);

/// The control plane and what was done to it.
pub(crate) struct Scene {
    pub(crate) plane: ControlPlane,
    pub(crate) hand: Hand,
    pub(crate) audit: Audit,
    pub(crate) offices: Api<Office>,
    pub(crate) packages: Api<PackageDistribution>,
    pub(crate) vescs: Api<VescEndpoint>,
}

/// An operator in this process.
pub(crate) struct Running {
    stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
    /// Where it tells its health.
    pub(crate) url: String,
}

impl Running {
    /// As on SIGTERM.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}

impl Scene {
    /// Three nodes: one of the hub, two in the subnet of the store.
    pub(crate) async fn new() -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let client = plane.admin().await?;
        let hand = Hand { client: client.clone() };
        hand.install().await?;
        hand.add_node("hub-1", ("site", "hub"), "10.1.0.1").await?;
        hand.add_node("till-1", ("kind", "till"), "10.42.0.1").await?;
        hand.add_node("till-2", ("kind", "till"), "10.42.0.2").await?;
        let audit = Audit::new(&plane.audit_log());
        Ok(Self {
            plane,
            hand,
            audit,
            offices: Api::all(client.clone()),
            packages: Api::namespaced(client.clone(), "retail"),
            vescs: Api::namespaced(client, "retail"),
        })
    }

    /// Starts an operator that gives clients this image.
    pub(crate) async fn operator(&self, identity: &str, image: &str) -> Result<Running> {
        self.operator_in(NAMESPACE, identity, image).await
    }

    /// Starts an operator that makes everything in this namespace.
    pub(crate) async fn operator_in(&self, namespace: &str, identity: &str, image: &str) -> Result<Running> {
        let http = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", http.local_addr()?);
        let operator = Operator {
            config: self.plane.operator_config().await?,
            settings: Settings::parse(&settings_text(image))?,
            namespace: namespace.to_owned(),
            lease_namespace: LEASE_NAMESPACE.to_owned(),
            lease_name: LEASE.to_owned(),
            storage_prefixes: StoragePrefixes::default(),
            identity: identity.to_owned(),
            http,
        };
        let stop = CancellationToken::new();
        Ok(Running { stop: stop.clone(), task: tokio::spawn(operator.run(stop)), url })
    }

    /// Who holds the Lease; empty if nobody does.
    pub(crate) async fn lease_holder(&self) -> Result<String> {
        let api: Api<Lease> = Api::namespaced(self.hand.client.clone(), LEASE_NAMESPACE);
        let lease = api.get_opt(LEASE).await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
    }

    /// The hub by label and the store by subnet.
    pub(crate) async fn apply_offices(&self) -> Result<()> {
        self.apply_office("hub", json!({"nodeSelector": {"matchLabels": {"site": "hub"}}})).await?;
        self.apply_office("store", json!({"parent": "hub", "subnets": ["10.42.0.0/24"]})).await?;
        Ok(())
    }

    pub(crate) async fn apply_office(&self, name: &str, spec: Value) -> Result<Office, kube::Error> {
        self.hand.apply(&self.offices, object("Office", name, spec)).await
    }

    pub(crate) async fn apply_package(&self, name: &str, spec: Value) -> Result<PackageDistribution, kube::Error> {
        self.hand.apply(&self.packages, object("PackageDistribution", name, spec)).await
    }

    /// Waits for a condition of an Office.
    pub(crate) async fn office_says(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<()> {
        let conditions = |office: &Office| office.status.as_ref().map(|status| status.conditions.clone());
        object_says(&self.offices, conditions, name, [kind, status, reason]).await
    }

    /// Waits for a condition of a PackageDistribution.
    pub(crate) async fn package_says(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<()> {
        let conditions =
            |package: &PackageDistribution| package.status.as_ref().map(|status| status.conditions.clone());
        object_says(&self.packages, conditions, name, [kind, status, reason]).await
    }

    /// Waits for a condition of a VescEndpoint.
    pub(crate) async fn vesc_says(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<()> {
        let conditions = |vesc: &VescEndpoint| vesc.status.as_ref().map(|status| status.conditions.clone());
        object_says(&self.vescs, conditions, name, [kind, status, reason]).await
    }

    /// Waits until an Office is refused, with messages that name the field.
    pub(crate) async fn office_is_refused(&self, name: &str, field: &str, reason: &str) -> Result<()> {
        self.office_says(name, "Accepted", "False", reason).await?;
        self.office_says(name, "Ready", "False", reason).await?;
        let status = self.offices.get(name).await?.status.unwrap_or_default();
        name_field(&status.conditions, field, reason)
    }

    /// The same of a PackageDistribution.
    pub(crate) async fn package_is_refused(&self, name: &str, field: &str, reason: &str) -> Result<()> {
        self.package_says(name, "Accepted", "False", reason).await?;
        self.package_says(name, "Ready", "False", reason).await?;
        let status = self.packages.get(name).await?.status.unwrap_or_default();
        name_field(&status.conditions, field, reason)
    }

    /// Brings both offices to Ready, as controllers and kubelets would.
    pub(crate) async fn run_pods(&self) -> Result<()> {
        self.hand.report_daemon_set("peerdist-office-hub", 1).await?;
        self.hand.report_daemon_set("peerdist-office-store", 2).await?;
        self.hand.report_server("10.1.0.1").await?;
        self.office_says("hub", "Ready", "True", "NodesReady").await?;
        self.office_says("store", "Ready", "True", "NodesReady").await
    }

    /// Reports what the server would about the newest generation of a package, under its own field manager.
    pub(crate) async fn report_package(&self, name: &str, mut status: Value) -> Result<()> {
        status["progressGeneration"] = json!(self.packages.get(name).await?.metadata.generation);
        let progress = json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "PackageDistribution", "metadata": {"name": name},
            "status": status,
        });
        let parameters = PatchParams::apply("peerdist-server").force();
        self.packages.patch_status(name, &parameters, &Patch::Apply(progress)).await?;
        Ok(())
    }

    /// Waits until the operator has nothing more to do, and gives back all it wrote since the last time.
    pub(crate) async fn settled(&mut self) -> Result<Vec<Write>> {
        self.audit.settled(QUIET).await
    }
}

/// Every condition with the reason of a refusal begins with the field at fault, save Stalled where it is false: that one
/// only says that another object may help.
fn name_field(conditions: &[Condition], field: &str, reason: &str) -> Result<()> {
    let begins = format!("{field}: ");
    for condition in conditions.iter().filter(|condition| condition.reason == reason) {
        let may_pass = condition.type_ == "Stalled" && condition.status == "False";
        ensure!(may_pass || condition.message.starts_with(&begins), "expected {field} in {condition:?}");
    }
    Ok(())
}

/// Waits for a condition of this type, status and reason, about the newest generation.
async fn object_says<K>(
    api: &Api<K>,
    conditions: impl Fn(&K) -> Option<Vec<Condition>>,
    name: &str,
    wanted: [&str; 3],
) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{} {name}: {}", K::kind(&()), wanted.join(" ")), async || {
        let object = api.get(name).await?;
        Ok(says(&conditions(&object).unwrap_or_default(), object.meta().generation, wanted))
    })
    .await
}

fn says(conditions: &[Condition], generation: Option<i64>, [kind, status, reason]: [&str; 3]) -> bool {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.is_some_and(|condition| {
        condition.status == status && condition.reason == reason && condition.observed_generation == generation
    })
}
