//! What a new plan makes of packages that came, were replaced, or went.

use std::time::Duration;

use super::*;
use crate::client::fixture::{
    CHUNKS, client, client_with, drain, node, pass, plan, planned, prepare, stored, take_plan,
};
use crate::client::{DISK_FULL, Event, Output};
use crate::distribution::Priority;
use crate::message::Message;
use crate::names::Version;
use crate::peer::Peer;

/// Another version of the distribution `package`.
fn version(number: &str) -> PlannedPackage {
    let mut package = planned("package", Priority::Normal);
    (package.key.version, package.digest) = (Version::new(number).unwrap(), Digest::of(number.as_bytes()));
    package
}

fn plan_with(package: PlannedPackage) -> Plan {
    plan(OfficeType::Vpn, vec![package])
}

/// What the client has deleted, and what it has prepared.
fn orders(client: &mut Client) -> (Vec<Digest>, Vec<Digest>) {
    let (mut deleted, mut prepared) = (Vec::new(), Vec::new());
    for output in drain(client) {
        match output {
            Output::Delete { digest } => deleted.push(digest),
            Output::Prepare { planned, .. } => prepared.push(planned.digest),
            _ => {}
        }
    }
    (deleted, prepared)
}

fn has_no_space(client: &mut Client, now: Instant, digest: Digest) {
    let (reason, message) = (DISK_FULL.to_owned(), "make room".to_owned());
    client.handle(now, Event::PrepareFailed { digest, reason, message, is_final: true });
}

/// A client with a published package, the time, and its plan.
fn client_that_published(package: &PlannedPackage) -> (Client, Instant, Plan) {
    let (mut client, now) = client(OfficeType::Vpn);
    let mut plan = plan_with(package.clone());
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, package.digest, CHUNKS);
    client.handle(now, Event::Published { digest: package.digest });
    (client, now, plan)
}

#[test]
fn unfinished_version_makes_room_for_its_successor_and_a_published_one_does_not() {
    let [first, second, third] = ["1", "2", "3"].map(version);
    let (mut client, mut now, mut plan) = client_that_published(&first);
    plan.packages = vec![second.clone()];
    take_plan(&mut client, now, &mut plan);
    orders(&mut client);
    has_no_space(&mut client, now, second.digest);
    now = pass(&mut client, now, Duration::from_secs(5));
    assert_eq!(orders(&mut client), (vec![], vec![]), "consumers use the first one");
    now = pass(&mut client, now, Duration::from_secs(30));
    assert_eq!(orders(&mut client), (vec![], vec![second.digest]));
    prepare(&mut client, now, second.digest, CHUNKS / 2);
    plan.packages = vec![third.clone()];
    take_plan(&mut client, now, &mut plan);
    assert_eq!(orders(&mut client), (vec![], vec![third.digest]), "what is there of the second one is of use");
    has_no_space(&mut client, now, third.digest);
    pass(&mut client, now, Duration::from_secs(5));
    assert_eq!(orders(&mut client), (vec![second.digest], vec![third.digest]));
}

#[test]
fn published_version_that_is_damaged_stays_until_its_successor_is_published() {
    let [first, second] = ["1", "2"].map(version);
    let (mut client, now, mut plan) = client_that_published(&first);
    let runs = vec![crate::chunk_set::ChunkRun { first: 0, count: 1 }];
    client.handle(now, Event::ChunksLost { digest: first.digest, runs });
    plan.packages = vec![second.clone()];
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, second.digest, 0);
    assert_eq!(orders(&mut client).0, []);
}

#[test]
fn unfinished_version_goes_when_the_object_went_back_to_the_published_one() {
    let [first, second] = ["1", "2"].map(version);
    let (mut client, mut now, mut plan) = client_that_published(&first);
    orders(&mut client);
    plan.packages = vec![second.clone()];
    take_plan(&mut client, now, &mut plan);
    now = pass(&mut client, now, Duration::from_secs(1));
    assert_eq!(orders(&mut client), (vec![], vec![second.digest]));
    plan.packages = vec![first];
    take_plan(&mut client, now, &mut plan);
    pass(&mut client, now, Duration::from_secs(1));
    assert_eq!(orders(&mut client).0, [second.digest]);
}

#[test]
fn version_that_retention_deleted_is_not_deleted_again() {
    let [first, second, third] = ["1", "2", "3"].map(version);
    let on_disk = vec![stored(&first, true), stored(&second, true)];
    let (mut client, now) = client_with(OfficeType::Vpn, on_disk);
    let mut plan = plan_with(third);
    take_plan(&mut client, now, &mut plan);
    client.handle(now, Event::Pruned { digest: first.digest });
    orders(&mut client);
    plan.packages = Vec::new();
    take_plan(&mut client, now, &mut plan);
    let deleted = orders(&mut client).0;
    assert!(deleted.contains(&second.digest) && !deleted.contains(&first.digest), "{deleted:?}");
}

#[test]
fn unfinished_version_of_an_earlier_run_goes_when_its_successor_is_prepared() {
    let [first, second, third] = ["1", "2", "3"].map(version);
    let on_disk = vec![stored(&first, true), stored(&second, false)];
    let (mut client, now) = client_with(OfficeType::Vpn, on_disk);
    take_plan(&mut client, now, &mut plan_with(third.clone()));
    assert_eq!(orders(&mut client), (vec![], vec![third.digest]));
    prepare(&mut client, now, third.digest, 0);
    assert_eq!(orders(&mut client).0, [second.digest]);
    take_plan(&mut client, now, &mut Plan { revision: 2, ..plan(OfficeType::Vpn, Vec::new()) });
    assert_eq!(orders(&mut client).0, [third.digest, first.digest]);
}

#[test]
fn library_that_lost_a_package_takes_it_from_no_node() {
    let [package, of_earlier_run] = ["1", "2"].map(version);
    let (mut client, now) = client_with(OfficeType::Vpn, vec![stored(&of_earlier_run, true)]);
    let mut plan = plan_with(package.clone());
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, package.digest, CHUNKS);
    client.handle(now, Event::Published { digest: package.digest });
    orders(&mut client);
    (plan.awaited, plan.packages) = (vec![package.key.clone()], Vec::new());
    take_plan(&mut client, now, &mut plan);
    assert_eq!(orders(&mut client), (vec![], vec![]));
    plan.awaited = Vec::new();
    take_plan(&mut client, now, &mut plan);
    let mut deleted = orders(&mut client).0;
    deleted.sort();
    let mut expected = vec![package.digest, of_earlier_run.digest];
    expected.sort();
    assert_eq!(deleted, expected, "nobody means it for the office any more");
}

#[test]
fn what_the_library_lost_while_it_was_prepared_stays() {
    let package = version("1");
    let (mut client, now) = client_with(OfficeType::Vpn, vec![stored(&package, false)]);
    let mut plan = plan_with(package.clone());
    take_plan(&mut client, now, &mut plan);
    assert_eq!(orders(&mut client), (vec![], vec![package.digest]));
    (plan.awaited, plan.packages) = (vec![package.key.clone()], Vec::new());
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, package.digest, CHUNKS / 2);
    has_no_space(&mut client, now, package.digest);
    assert_eq!(orders(&mut client), (vec![], vec![]));
}

#[test]
fn transit_copy_is_offered_again_when_the_library_has_the_package_again() {
    let transit = PlannedPackage { target: false, ..version("1") };
    let (mut client, now) = client_with(OfficeType::Wired, vec![stored(&transit, false)]);
    let mut plan = Plan { awaited: vec![transit.key.clone()], ..plan(OfficeType::Wired, Vec::new()) };
    take_plan(&mut client, now, &mut plan);
    let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
    (plan.awaited, plan.packages) = (Vec::new(), vec![transit.clone()]);
    take_plan(&mut client, now, &mut plan);
    pass(&mut client, now, Duration::from_secs(1));
    assert_eq!(orders(&mut client), (vec![], vec![transit.digest]));
}

#[test]
fn unfinished_version_goes_where_another_node_brings_its_successor() {
    let [first, second] = ["1", "2"].map(version);
    let (mut client, now) = client_with(OfficeType::Wired, vec![stored(&first, false)]);
    take_plan(&mut client, now, &mut plan(OfficeType::Wired, vec![PlannedPackage { target: false, ..second }]));
    assert_eq!(orders(&mut client), (vec![], vec![]), "it may lead and use what it has");
    let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
    pass(&mut client, now, Duration::from_secs(1));
    assert_eq!(orders(&mut client), (vec![first.digest], vec![]));
}

#[test]
fn edited_type_of_the_office_counts() {
    let (mut client, now) = client(OfficeType::Wired);
    let mut plan = plan(OfficeType::Wired, vec![planned("package", Priority::Normal)]);
    take_plan(&mut client, now, &mut plan);
    let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), claim.clone()).unwrap();
    assert!(!client.is_rendezvous_point());
    plan.office_type = OfficeType::Vpn;
    take_plan(&mut client, now, &mut plan);
    assert!(client.is_rendezvous_point(), "each node of a VPN office is its own");
    plan.office_type = OfficeType::Wired;
    take_plan(&mut client, now, &mut plan);
    client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
    pass(&mut client, now, Duration::from_secs(1));
    assert!(!client.is_rendezvous_point());
}

#[test]
fn version_that_is_wanted_again_before_its_successor_came_is_said_to_be_published_again() {
    let [first, second] = ["1", "2"].map(version);
    let (mut client, now, mut plan) = client_that_published(&first);
    plan.packages = vec![second];
    take_plan(&mut client, now, &mut plan);
    drain(&mut client);
    plan.packages = vec![first.clone()];
    take_plan(&mut client, now, &mut plan);
    let told = drain(&mut client).into_iter().find_map(|output| match output {
        Output::Send { message: Message::Complete { digest, plan_revision, .. }, .. } => Some((digest, plan_revision)),
        _ => None,
    });
    assert_eq!(told, Some((first.digest, Some(plan.revision))));
}
