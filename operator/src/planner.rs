//! Turns word of changes into reconciles: gathers changes for a moment, judges the fleet once for all of them, and
//! tells each controller which of its objects to look at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use peerdist_crds::{Office, PackageDistribution, VescEndpoint};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::fleet::{Fleet, Verdict};
use crate::held::HeldNode;
use crate::names::label_value;
use crate::storage::StoragePrefixes;
use crate::watches::{Caches, Touch, grounds, node_views, server_office};

/// How long changes are gathered after the first one.
const GATHERING: Duration = Duration::from_millis(100);
/// The same in a large fleet, or on a busy machine, where a round takes long itself.
const GATHERING_MAX: Duration = Duration::from_secs(1);
/// Up to that, changes are gathered so many times as long as the round before took: judging leaves time to the rest.
const GATHERING_PER_ROUND: u32 = 3;

/// Where each controller takes its work from.
pub(crate) struct Queues {
    pub(crate) offices: mpsc::Sender<ObjectRef<Office>>,
    pub(crate) packages: mpsc::Sender<ObjectRef<PackageDistribution>>,
    pub(crate) vescs: mpsc::Sender<ObjectRef<VescEndpoint>>,
    pub(crate) nodes: mpsc::Sender<ObjectRef<HeldNode>>,
}

/// What was told since the last round.
#[derive(Debug, Default, PartialEq)]
struct Pending {
    everything: bool,
    fleet: bool,
    all_packages: bool,
    central: bool,
    offices: BTreeSet<String>,
    /// Offices of which clients cannot start, by the value of their label.
    starting: BTreeSet<String>,
    /// Offices whose DaemonSets select other nodes than before.
    standing: BTreeSet<String>,
    packages: BTreeSet<(String, String)>,
    vescs: BTreeSet<(String, String)>,
}

impl Pending {
    fn add(&mut self, touch: Touch) {
        match touch {
            Touch::Everything => self.everything = true,
            Touch::Fleet => self.fleet = true,
            Touch::Server => self.central = true,
            Touch::Networks => {
                self.fleet = true;
                self.central = true;
            }
            Touch::Counts(office) | Touch::ServerGone(office) => {
                self.all_packages = true;
                self.offices.insert(office);
            }
            Touch::Standing(office) => {
                self.all_packages = true;
                self.standing.insert(office.clone());
                self.offices.insert(office);
            }
            Touch::Starting(label) => {
                self.starting.insert(label);
            }
            Touch::Office(office) => {
                self.offices.insert(office);
            }
            Touch::Package(namespace, name) => {
                self.packages.insert((namespace, name));
            }
            Touch::Vesc(namespace, name) => {
                self.vescs.insert((namespace, name));
            }
        }
    }
}

/// Runs until nobody tells or nobody listens any more.
pub(crate) async fn plan(
    caches: Caches,
    mut touches: mpsc::Receiver<Touch>,
    queues: Queues,
    fleet: watch::Sender<Arc<Fleet>>,
    storage_prefixes: StoragePrefixes,
) {
    let mut pending = Pending { everything: true, ..Pending::default() };
    loop {
        let begun = Instant::now();
        if tell(pending, &caches, &queues, &fleet, &storage_prefixes).await.is_none() {
            return;
        }
        let gathering = (begun.elapsed() * GATHERING_PER_ROUND).clamp(GATHERING, GATHERING_MAX);
        let Some(first) = touches.recv().await else { return };
        pending = Pending::default();
        pending.add(first);
        let end = Instant::now() + gathering;
        while let Ok(Some(touch)) = timeout_at(end, touches.recv()).await {
            pending.add(touch);
        }
    }
}

/// `None`: nobody listens any more.
async fn tell(
    mut pending: Pending,
    caches: &Caches,
    queues: &Queues,
    fleet: &watch::Sender<Arc<Fleet>>,
    storage_prefixes: &StoragePrefixes,
) -> Option<()> {
    if pending.everything || pending.fleet || concerns_nodes(&pending, &fleet.borrow()) {
        judge(&mut pending, caches, fleet, storage_prefixes);
        let nodes: Vec<String> = fleet.borrow().assignments().keys().cloned().collect();
        for node in nodes {
            queues.nodes.send(ObjectRef::new(&node)).await.ok()?;
        }
    }
    if pending.everything {
        pending.offices.extend(caches.offices.state().iter().map(|office| office.name_any()));
        pending.vescs.extend(caches.vescs.state().iter().map(|vesc| key(&**vesc)));
    }
    if pending.everything || pending.all_packages {
        pending.packages.extend(caches.packages.state().iter().map(|package| key(&**package)));
    }
    if !pending.starting.is_empty() {
        let names = caches.offices.state().into_iter().map(|office| office.name_any()).collect::<Vec<_>>();
        pending.offices.extend(names.into_iter().filter(|name| pending.starting.contains(&label_value(name))));
    }
    if pending.central {
        // A Central Office that is refused keeps its server.
        let central = fleet.borrow().central().map(str::to_owned);
        pending.offices.extend(central.or_else(|| server_office(caches).map(|office| office.name)));
    }
    for office in &pending.offices {
        queues.offices.send(ObjectRef::new(office)).await.ok()?;
    }
    for (namespace, name) in &pending.packages {
        queues.packages.send(ObjectRef::new(name).within(namespace)).await.ok()?;
    }
    for (namespace, name) in &pending.vescs {
        queues.vescs.send(ObjectRef::new(name).within(namespace)).await.ok()?;
    }
    Some(())
}

/// The nodes of an accepted office are those of its spec; a refused one keeps those that its DaemonSet selects.
fn concerns_nodes(pending: &Pending, fleet: &Fleet) -> bool {
    pending.standing.iter().any(|office| matches!(fleet.verdict(office), Some(Verdict::Refused(_))))
}

/// Judges the fleet anew. Offices that are judged differently are looked at, and so are all packages then.
fn judge(
    pending: &mut Pending,
    caches: &Caches,
    fleet: &watch::Sender<Arc<Fleet>>,
    storage_prefixes: &StoragePrefixes,
) {
    let offices = caches.offices.state();
    let nodes = caches.nodes.state();
    let grounds = grounds(caches, storage_prefixes);
    let judged = Fleet::new(offices.iter().map(|office| &**office), node_views(&nodes), &grounds);
    let changed = judged.changed(&fleet.borrow());
    // An edit that leaves the verdict as it is still has a generation to be observed.
    let unseen = offices.iter().filter(|office| {
        let observed = office.status.as_ref().and_then(|status| status.observed_generation);
        observed != office.metadata.generation
    });
    pending.offices.extend(unseen.map(|office| office.name_any()));
    pending.all_packages |= !changed.is_empty();
    pending.offices.extend(changed);
    fleet.send_replace(Arc::new(judged));
}

fn key<K: kube::Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store::{Writer, store};
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::fleet::tests::{office, site};

    struct Listeners {
        offices: mpsc::Receiver<ObjectRef<Office>>,
        packages: mpsc::Receiver<ObjectRef<PackageDistribution>>,
        _vescs: mpsc::Receiver<ObjectRef<VescEndpoint>>,
        nodes: mpsc::Receiver<ObjectRef<HeldNode>>,
    }

    fn queues() -> (Queues, Listeners) {
        let (offices, office_queue) = mpsc::channel(16);
        let (packages, package_queue) = mpsc::channel(16);
        let (vescs, vesc_queue) = mpsc::channel(16);
        let (nodes, node_queue) = mpsc::channel(16);
        let listeners =
            Listeners { offices: office_queue, packages: package_queue, _vescs: vesc_queue, nodes: node_queue };
        (Queues { offices, packages, vescs, nodes }, listeners)
    }

    fn caches(offices: &mut Writer<Office>) -> Caches {
        let package = serde_json::json!({
            "metadata": {"name": "app", "namespace": "retail"}, "spec": {"version": "1", "source": {"uri": "x"}},
        });
        let (packages, mut writer) = store();
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(package).unwrap()));
        Caches {
            offices: offices.as_reader(),
            packages,
            vescs: store().0,
            nodes: store().0,
            config_maps: store().0,
            service_accounts: store().0,
            daemon_sets: store().0,
            stateful_sets: store().0,
            server_pods: store().0,
            pending_pods: store().0,
            root_secret: store().0,
            identity_secret: store().0,
            service_networks: store().0,
        }
    }

    fn drained<K: kube::Resource<DynamicType = ()>>(queue: &mut mpsc::Receiver<ObjectRef<K>>) -> Vec<String> {
        std::iter::from_fn(|| queue.try_recv().ok()).map(|object| object.name).collect()
    }

    #[tokio::test]
    async fn an_edit_leads_to_the_offices_that_are_judged_differently_and_to_all_packages() {
        let mut writer = Writer::default();
        let seen = |mut office: Office| {
            office.status = Some(peerdist_crds::OfficeStatus { observed_generation: Some(1), ..Default::default() });
            office
        };
        for object in [office("hub", 1, site("hub", None)), office("a", 2, site("a", Some("hub")))] {
            writer.apply_watcher_event(&Event::Apply(seen(object)));
        }
        let caches = caches(&mut writer);
        let (queues, mut listeners) = queues();
        let fleet = watch::Sender::new(Arc::new(Fleet::default()));
        let prefixes = StoragePrefixes::default();
        let everything = Pending { everything: true, ..Pending::default() };
        tell(everything, &caches, &queues, &fleet, &prefixes).await.unwrap();
        assert_eq!(drained(&mut listeners.offices), ["a", "hub"]);
        assert_eq!(drained(&mut listeners.packages), ["app"]);

        writer.apply_watcher_event(&Event::Apply(seen(office("b", 3, site("b", Some("a"))))));
        let change = || Pending { fleet: true, ..Pending::default() };
        tell(change(), &caches, &queues, &fleet, &prefixes).await.unwrap();
        assert_eq!(drained(&mut listeners.offices), ["b"]);
        assert_eq!(drained(&mut listeners.packages), ["app"]);

        tell(change(), &caches, &queues, &fleet, &prefixes).await.unwrap();
        assert!(drained(&mut listeners.offices).is_empty() && drained(&mut listeners.packages).is_empty());
        assert!(drained(&mut listeners.nodes).is_empty());
    }

    #[tokio::test]
    async fn what_changes_at_the_server_leads_to_the_office_that_has_it_although_it_is_refused() {
        let mut caches = caches(&mut Writer::default());
        let (stateful_sets, mut writer) = store();
        caches.stateful_sets = stateful_sets;
        let owner = serde_json::json!({"apiVersion": "a", "kind": "Office", "name": "hub", "uid": "u"});
        let metadata = serde_json::json!({"name": "peerdist-server", "ownerReferences": [owner]});
        let set = serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap();
        writer.apply_watcher_event(&Event::Apply(set));
        let (queues, mut listeners) = queues();
        let fleet = watch::Sender::new(Arc::new(Fleet::default()));
        let change = Pending { central: true, ..Pending::default() };
        tell(change, &caches, &queues, &fleet, &StoragePrefixes::default()).await.unwrap();
        assert_eq!(drained(&mut listeners.offices), ["hub"]);
    }

    #[test]
    fn changes_of_one_object_are_one_reconcile() {
        let mut pending = Pending::default();
        for _ in 0..3 {
            pending.add(Touch::Office("a".to_owned()));
            pending.add(Touch::Counts("a".to_owned()));
        }
        assert_eq!(pending.offices.len(), 1);
        assert!(pending.all_packages && !pending.fleet);
        let mut pending = Pending::default();
        pending.add(Touch::ServerGone("hub".to_owned()));
        assert!(pending.all_packages && pending.offices.contains("hub"), "deleted packages wait for it");
    }
}
