//! What complaints lead to: they concern those who make them, and nobody else goes without.

use super::*;
use crate::chunk_set::ChunkRun;
use crate::client::fixture::{CHUNKS, client, drain, lead, node, plan, planned, prepare, report, take_plan};
use crate::client::{Event, Output};
use crate::distribution::Priority;
use crate::message::{MemberReport, NodeState, PackageDelta};
use crate::peer::Peer;
use crate::plan::ChildOffice;

const ALL: ChunkRun = ChunkRun { first: 0, count: CHUNKS };

/// The rendezvous point `store-1` with a package, whose only holder is `store-2`, and two child offices.
fn leading() -> (Client, Instant, Digest) {
    let (mut client, now) = client(OfficeType::Wired);
    let mut packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    let children = ["kiosk", "depot"].map(|office| node(office, office));
    packages[0].granted_children = children.iter().map(|child| child.office.clone()).collect();
    let mut plan = plan(OfficeType::Wired, packages);
    plan.children = children
        .into_iter()
        .map(|child| ChildOffice { name: child.office.clone(), office_type: OfficeType::Wired, nodes: vec![child] })
        .collect();
    take_plan(&mut client, now, &mut plan);
    let now = lead(&mut client, now);
    prepare(&mut client, now, digest, 0);
    report(&mut client, now, "store-2", &[(digest, NodeState::default())]);
    let (lost, coming) = (Vec::new(), Vec::new());
    let delta = PackageDelta { digest, available: vec![ALL], lost, coming, state: NodeState::default() };
    let said = MemberReport { boot_id: 2, plan_revision: 2, term: client.term(), packages: vec![delta] };
    client.message(now, Peer::Node(node("store", "store-2")), Message::MemberReport(said)).unwrap();
    (client, now, digest)
}

/// How many chunks are granted to the child.
fn granted(client: &mut Client, now: Instant, child: &str, digest: Digest) -> u32 {
    drain(client);
    let fetch = Fetch { term: 1, digest, runs: vec![ALL], lost_holders: Vec::new() };
    client.message(now, Peer::Node(node(child, child)), Message::Fetch(fetch)).unwrap();
    let grants = drain(client).into_iter().filter_map(|output| match output {
        Output::Send { message: Message::Grant(grant), .. } => Some(grant.granted),
        _ => None,
    });
    grants.flatten().flat_map(|order| order.runs).map(|run| run.count).sum()
}

fn complain(client: &mut Client, now: Instant, from: NodeRef, holder: &str, reason: UnservedReason, digest: Digest) {
    let holder = Some(node("store", holder).name);
    let unserved = Unserved { digest, holder, runs: vec![ALL], reason };
    client.message(now, Peer::Node(from), Message::Unserved(unserved)).unwrap();
}

#[test]
fn complaint_of_a_child_takes_a_holder_from_that_child_only() {
    for reason in [UnservedReason::Unreachable, UnservedReason::Refused, UnservedReason::Corrupt] {
        let (mut client, now, digest) = leading();
        complain(&mut client, now, node("kiosk", "kiosk"), "store-2", reason, digest);
        assert_eq!(granted(&mut client, now, "kiosk", digest), 0);
        assert_eq!(granted(&mut client, now, "depot", digest), CHUNKS);
    }
}

#[test]
fn child_that_complains_about_strangers_is_not_remembered() {
    let (mut client, now, digest) = leading();
    for number in 0..10_000 {
        let holder = format!("stranger-{number}");
        complain(&mut client, now, node("kiosk", "kiosk"), &holder, UnservedReason::Unreachable, digest);
    }
    let leading = client.leading.as_ref().unwrap();
    assert_eq!(leading.avoided_for_children.iter(now).count(), 0);
}

#[test]
fn complaint_of_a_member_takes_nothing_from_the_others() {
    for (holder, reason) in [
        ("store-1", UnservedReason::Missing),
        ("store-2", UnservedReason::Missing),
        ("store-2", UnservedReason::Unreachable),
        ("store-2", UnservedReason::Corrupt),
    ] {
        let (mut client, now, digest) = leading();
        report(&mut client, now, "store-3", &[(digest, NodeState::default())]);
        client.handle(now, Event::ServeEnded { to: node("store", "store-3").name, transfer: 1 });
        complain(&mut client, now, node("store", "store-3"), holder, reason.clone(), digest);
        assert_eq!(granted(&mut client, now, "depot", digest), CHUNKS, "{holder} {reason:?}");
    }
}
