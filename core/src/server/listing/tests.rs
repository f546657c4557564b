//! What counts of a package that went and came back.

use std::time::Instant;

use jiff::Timestamp;

use super::*;
use crate::distribution::Distribution;
use crate::message::{Hello, Message, NodeState, OfficePackage};
use crate::names::Version;
use crate::server::tests::{desired, desired_with_store, distribution, ingested, selecting};
use crate::server::{IngestedPackage, ServerConfig, ServerEvent};

const BYTES: u64 = 100;

/// A server with the office `central`, and node `a` in it.
struct Office {
    server: Server,
    name: OfficeName,
    now: Instant,
}

impl Office {
    fn new() -> Self {
        let (now, config) =
            (Instant::now(), ServerConfig { addresses: Vec::new(), last_revision: 7, retention_seconds: 0 });
        Self { server: Server::new(now, config), name: OfficeName::new("central").unwrap(), now }
    }

    fn tell(&mut self, event: ServerEvent) {
        self.outputs_of(event);
    }

    fn outputs_of(&mut self, event: ServerEvent) -> Vec<ServerOutput> {
        self.server.handle(self.now, Timestamp::UNIX_EPOCH, event);
        std::iter::from_fn(|| self.server.poll()).collect()
    }

    /// For each version of which the database is told where it is wanted: where that is.
    fn told_of(&mut self, event: ServerEvent) -> Vec<(String, Vec<String>)> {
        let outputs = self.outputs_of(event);
        let told = outputs.into_iter().filter_map(|output| match output {
            ServerOutput::Wanted(wanted) => Some(wanted),
            _ => None,
        });
        let words = |(key, offices): (PackageKey, BTreeSet<OfficeName>)| {
            (key.version.to_string(), offices.iter().map(ToString::to_string).collect())
        };
        told.flatten().map(words).collect()
    }

    fn bring_in(&mut self, app: &Distribution) {
        let ServerEvent::Ingested(package) = ingested(app) else { unreachable!() };
        self.tell(ServerEvent::Ingested(IngestedPackage { digest: digest(app), ..package }));
    }

    /// A node says something. Returns the reports that are for the database.
    fn says(&mut self, node: &str, message: Message) -> Vec<OfficeReport> {
        let from = NodeRef {
            name: NodeName::new(node).unwrap(),
            office: self.name.clone(),
            address: "127.0.0.1".parse().unwrap(),
        };
        self.server.message(self.now, &from, message).unwrap();
        let outputs = std::iter::from_fn(|| self.server.poll());
        outputs
            .filter_map(|output| match output {
                ServerOutput::OfficeReported { report, .. } => Some(report),
                _ => None,
            })
            .collect()
    }

    fn completes(&mut self, app: &Distribution, plan_revision: Option<Revision>) {
        self.says("a", Message::Complete { digest: digest(app), bytes: BYTES, plan_revision });
    }

    /// Another node leads, and reports that `a` is complete.
    fn is_reported_complete(&mut self, app: &Distribution, plan_revision: Revision) -> Vec<OfficeReport> {
        let state = NodeState { complete: true, bytes_held: BYTES, wan_bytes_received: BYTES, ..NodeState::default() };
        let nodes = [(NodeName::new("a").unwrap(), state)].into_iter().collect();
        let package = OfficePackage { digest: digest(app), available: bytes::Bytes::from_static(&[1]), nodes };
        let report = OfficeReport { term: 1, plan_revision, packages: vec![package] };
        self.says("b", Message::OfficeReport(report))
    }

    fn is_complete(&self, app: &Distribution) -> bool {
        let progress = self.server.progress(&self.name, digest(app));
        progress.and_then(|progress| progress.nodes.values().next()).is_some_and(|state| state.complete)
    }

    fn revision(&self) -> Revision {
        self.server.plan_revisions()[&self.name]
    }
}

fn digest(app: &Distribution) -> Digest {
    Digest::of(app.version.as_str().as_bytes())
}

fn version(text: &str) -> Distribution {
    Distribution { version: Version::new(text).unwrap(), ..distribution("app", "/app") }
}

fn hello(plan_revision: Revision) -> Message {
    Message::Hello(Hello { boot_id: 1, plan_revision, term: 0, confirmed_revision: plan_revision })
}

#[test]
fn nothing_is_known_of_a_package_that_was_deleted_and_made_anew() {
    let (mut office, app) = (Office::new(), version("1"));
    office.tell(desired(&[&app]));
    office.bring_in(&app);
    let before = office.revision();
    office.completes(&app, Some(before));
    assert!(office.is_complete(&app));
    office.tell(desired(&[]));
    office.is_reported_complete(&app, before);
    office.tell(desired(&[&app]));
    assert!(!office.is_complete(&app), "nodes have let go of it");

    // What was on its way meanwhile.
    office.completes(&app, Some(before));
    let passed_on = office.is_reported_complete(&app, before);
    assert!(!office.is_complete(&app));
    assert!(passed_on.iter().all(|report| report.packages.is_empty()), "the database would remember it");

    office.completes(&app, Some(office.revision()));
    assert!(office.is_complete(&app));
}

#[test]
fn node_that_did_not_see_it_go_is_complete_once_it_knows_the_plan_with_which_it_came_back() {
    let (mut office, app) = (Office::new(), version("1"));
    for objects in [&[&app][..], &[], &[&app]] {
        office.tell(desired(objects));
        if office.server.package(&app.package()).is_none() {
            office.bring_in(&app);
        }
    }
    let revision = office.revision();
    office.says("a", hello(revision - 1));
    let passed_on = office.is_reported_complete(&app, revision);
    assert!(!office.is_complete(&app), "it may still delete it");
    let states = passed_on.iter().flat_map(|report| &report.packages).flat_map(|package| package.nodes.iter());
    assert_eq!(states.map(|(_, state)| (state.complete, state.bytes_held)).collect::<Vec<_>>(), [(false, BYTES)]);
    office.says("a", hello(revision));
    office.is_reported_complete(&app, revision);
    assert!(office.is_complete(&app));
}

#[test]
fn going_back_to_a_version_waits_for_the_nodes_again() {
    let mut office = Office::new();
    for app in ["1", "2"].map(version) {
        office.tell(desired(&[&app]));
        office.bring_in(&app);
        office.completes(&app, Some(office.revision()));
    }
    office.tell(desired(&[&version("1")]));
    assert!(!office.is_complete(&version("1")));
    office.completes(&version("1"), Some(office.revision()));
    assert!(office.is_complete(&version("1")));
}

#[test]
fn database_is_told_of_what_fewer_offices_want_before_the_plans_go_out() {
    let (mut office, [first, second]) = (Office::new(), ["1", "2"].map(version));
    let told = |version: &str, offices: &[&str]| {
        vec![(version.to_owned(), offices.iter().map(|&office| office.to_owned()).collect::<Vec<_>>())]
    };
    office.tell(desired_with_store(&[&first]));
    office.bring_in(&first);
    office.says("a", hello(office.revision()));
    assert!(office.told_of(desired_with_store(&[&first])).is_empty());
    assert_eq!(office.told_of(desired_with_store(&[&selecting("central", &first)])), told("1", &["central"]));
    assert!(office.told_of(desired_with_store(&[&first])).is_empty(), "more want it");
    assert!(office.told_of(desired_with_store(&[&second])).is_empty(), "it stays until the next is there");
    office.bring_in(&second);
    let outputs = office.outputs_of(desired_with_store(&[&first]));
    let place = |is: fn(&ServerOutput) -> bool| outputs.iter().position(is).unwrap();
    let told_at = place(|output| matches!(output, ServerOutput::Wanted(_)));
    assert!(told_at < place(|output| matches!(output, ServerOutput::SendPlan { .. })));
    assert_eq!(office.told_of(desired_with_store(&[])), told("1", &[]));
}

#[test]
fn database_is_told_at_first_of_all_that_the_library_has() {
    let (mut office, [first, second]) = (Office::new(), ["1", "2"].map(version));
    office.bring_in(&first);
    office.bring_in(&second);
    let told = office.told_of(desired(&[&second]));
    assert_eq!(told, [("1".to_owned(), vec![]), ("2".to_owned(), vec!["central".to_owned()])]);
    assert!(office.told_of(desired(&[&second])).is_empty());
}

#[test]
fn word_about_what_is_in_the_first_plan_of_a_run_counts_whatever_plan_its_sender_knows() {
    let (mut office, app) = (Office::new(), version("1"));
    office.bring_in(&app);
    office.tell(desired(&[&app]));
    assert!(!office.server.came_in_this_run(&office.name, digest(&app)));
    office.says("a", hello(1));
    office.is_reported_complete(&app, 1);
    assert!(office.is_complete(&app));
}

#[test]
fn another_key_of_the_plans_changes_nothing_of_what_counts() {
    let (mut office, app) = (Office::new(), version("1"));
    office.tell(desired(&[&app]));
    office.bring_in(&app);
    let since = office.revision();
    office.tell(ServerEvent::SignedAnew(BTreeMap::new()));
    assert!(office.revision() > since);
    office.completes(&app, Some(since));
    assert!(office.is_complete(&app));
    assert!(office.server.came_in_this_run(&office.name, digest(&app)));
}

#[test]
fn client_of_an_earlier_release_is_believed() {
    let (mut office, app) = (Office::new(), version("1"));
    office.tell(desired(&[&app]));
    office.bring_in(&app);
    office.completes(&app, None);
    assert!(office.is_complete(&app));
}

#[test]
fn renewed_certificate_changes_nothing_of_what_counts() {
    let (mut office, app) = (Office::new(), version("1"));
    office.tell(desired(&[&app]));
    office.bring_in(&app);
    office.says("a", hello(office.revision()));
    let node = office.server.nodes().next().unwrap().node.clone();
    office.tell(ServerEvent::Renewed { node: node.clone() });
    office.is_reported_complete(&app, office.revision());
    assert!(office.is_complete(&app));
    let elsewhere = NodeRef { address: "127.0.0.9".parse().unwrap(), ..node };
    office.tell(ServerEvent::Renewed { node: elsewhere.clone() });
    assert_eq!(office.server.nodes().next().unwrap().node, elsewhere);
}
