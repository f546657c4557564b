//! What the database knows of nodes, and forgets.

use peerdist_core::digest::Digest;
use peerdist_core::names::DistributionKey;
use tempfile::TempDir;

use super::*;
use crate::database::{self, PackageRow};

const OFFICES: [&str; 2] = ["central", "store"];

/// A database with a package, of which one node of each office has everything.
struct Recorded {
    recorder: Recorder,
    database: Arc<dyn MetadataStore>,
    key: PackageKey,
    _folder: TempDir,
}

fn node(office: &str) -> NodeRef {
    let name = format!("{office}-1").parse().unwrap();
    NodeRef { name, office: office.parse().unwrap(), address: "127.0.0.1".parse().unwrap() }
}

impl Recorded {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = database::open(None, folder.path()).await.unwrap();
        let distribution = DistributionKey { namespace: "retail".parse().unwrap(), name: "pos-app".parse().unwrap() };
        let key = PackageKey { distribution, version: "1".parse().unwrap() };
        let row = PackageRow { key: key.clone(), sequence: 1, digest: Digest::of(b"root") };
        database.put_package(&row).await.unwrap();
        let mut recorded = Self { recorder: Recorder::new(database.clone()), database, key, _folder: folder };
        OFFICES.iter().for_each(|office| recorded.recorder.enrolled(&node(office)));
        recorded.all_complete();
        recorded
    }

    fn all_complete(&mut self) {
        for office in OFFICES {
            self.recorder.completed(self.key.clone(), node(office).name, 1);
        }
    }

    /// Who has it by the database, after it is wanted of these offices alone.
    async fn complete_where_wanted(&mut self, offices: &[&str]) -> Vec<String> {
        let offices: BTreeSet<OfficeName> = offices.iter().map(|office| office.parse().unwrap()).collect();
        self.recorder.wanted([(self.key.clone(), offices)].into());
        self.recorder.unwanted_is_forgotten().await;
        let rows = self.database.package_nodes(&self.key).await.unwrap();
        rows.into_iter().filter(|row| row.complete).map(|row| row.node.to_string()).collect()
    }
}

#[tokio::test]
async fn what_nodes_had_of_a_package_counts_no_more_where_it_is_not_wanted() {
    let mut recorded = Recorded::new().await;
    assert_eq!(recorded.complete_where_wanted(&OFFICES).await, ["central-1", "store-1"]);
    assert_eq!(recorded.complete_where_wanted(&["store"]).await, ["store-1"]);
    recorded.all_complete();
    assert_eq!(recorded.complete_where_wanted(&OFFICES).await, ["central-1", "store-1"], "it came back");
}

#[tokio::test]
async fn node_that_enrols_anew_has_nothing_and_one_that_renews_has_what_it_had() {
    let mut recorded = Recorded::new().await;
    recorded.recorder.renewed(&node("store"));
    assert_eq!(recorded.complete_where_wanted(&OFFICES).await, ["central-1", "store-1"]);
    recorded.recorder.enrolled(&node("store"));
    assert_eq!(recorded.complete_where_wanted(&OFFICES).await, ["central-1"]);
}

#[tokio::test]
async fn nothing_of_a_node_is_recorded_before_an_enrolment_that_waits() {
    let mut recorded = Recorded::new().await;
    let (recorder, key) = (&mut recorded.recorder, recorded.key.clone());
    let (records, mut received) = mpsc::channel(1);
    recorder.records = records;
    recorder.put(Record::Rows(Vec::new()));
    recorder.enrolled(&node("store"));
    assert!(matches!(received.try_recv(), Ok(Record::Rows(_))));
    recorder.completed(key.clone(), node("store").name, 1);
    assert!(matches!(received.try_recv(), Ok(Record::Enrolled(_))));
    assert!(received.is_empty() && recorder.lost.load(Relaxed), "it comes with the next report");
    recorder.completed(key, node("store").name, 2);
    assert!(matches!(received.try_recv(), Ok(Record::Rows(_))));
}
