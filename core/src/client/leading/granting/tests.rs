//! What complaints lead to: they concern those who make them, and nobody else goes without.

use super::*;
use crate::chunk_set::ChunkRun;
use crate::client::fixture::{
    CHUNKS, client, drain, lead, node, pass, plan, planned, prepare_chunks, report, take_plan,
};
use crate::client::{Event, Output};
use crate::distribution::Priority;
use crate::message::{MemberReport, NodeState, PackageDelta};
use crate::peer::Peer;
use crate::plan::ChildOffice;
use crate::swarm::avoidance::AVOID_UNREACHABLE;

const ALL: ChunkRun = ChunkRun { first: 0, count: CHUNKS };

/// The rendezvous point `store-1` with a package, whose only holder is `store-2`, and two child offices.
fn leading() -> (Client, Instant, Digest) {
    leading_with(CHUNKS)
}

fn leading_with(chunks: u32) -> (Client, Instant, Digest) {
    let (mut client, now, digest) = leading_alone(chunks, 0);
    has(&mut client, now, "store-2", digest, ChunkRun { first: 0, count: chunks });
    (client, now, digest)
}

/// The rendezvous point with a package of so many chunks, of which so many are here, and two child offices.
fn leading_alone(chunks: u32, chunks_here: u32) -> (Client, Instant, Digest) {
    let (mut client, now) = client(OfficeType::Wired);
    let mut packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    let children = ["depot", "kiosk"].map(|office| node(office, office));
    packages[0].granted_children = (0..children.len()).collect();
    let mut plan = plan(OfficeType::Wired, packages);
    plan.children = children
        .into_iter()
        .map(|child| ChildOffice { name: child.office.clone(), office_type: OfficeType::Wired, nodes: vec![child] })
        .collect();
    take_plan(&mut client, now, &mut plan);
    let now = lead(&mut client, now);
    prepare_chunks(&mut client, now, digest, &vec![1_000; chunks as usize], chunks_here);
    (client, now, digest)
}

/// The member has these chunks.
fn has(client: &mut Client, now: Instant, member: &str, digest: Digest, run: ChunkRun) {
    report(client, now, member, &[(digest, NodeState::default())]);
    let (lost, coming) = (Vec::new(), Vec::new());
    let delta = PackageDelta { digest, available: vec![run], lost, coming, state: NodeState::default() };
    let said = MemberReport { boot_id: 2, plan_revision: 2, term: client.term(), packages: vec![delta] };
    client.message(now, Peer::Node(node("store", member)), Message::MemberReport(said)).unwrap();
}

/// How many chunks are granted to the child.
fn granted(client: &mut Client, now: Instant, child: &str, digest: Digest) -> u32 {
    drain(client);
    asks(client, now, child, digest, ALL, &[]);
    granted_since(client)
}

fn asks(client: &mut Client, now: Instant, child: &str, digest: Digest, run: ChunkRun, delivered_by: &[&str]) {
    let delivered_by = delivered_by.iter().map(|name| node("store", name).name).collect();
    let fetch = Fetch { term: 1, digest, runs: vec![run], lost_holders: Vec::new(), delivered_by };
    client.message(now, Peer::Node(node(child, child)), Message::Fetch(fetch)).unwrap();
}

fn granted_since(client: &mut Client) -> u32 {
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

#[test]
fn pauses_of_a_holder_do_not_grow_for_a_child_that_it_served_in_between() {
    for (delivered_by, expected) in [(&[][..], 0), (&["store-1"][..], CHUNKS)] {
        let (mut client, mut now, digest) = leading_alone(CHUNKS, CHUNKS);
        for round in 0..2 {
            complain(&mut client, now, node("kiosk", "kiosk"), "store-1", UnservedReason::Unreachable, digest);
            now = pass(&mut client, now, AVOID_UNREACHABLE);
            if round == 0 {
                asks(&mut client, now, "kiosk", digest, ALL, delivered_by);
            }
        }
        assert_eq!(granted(&mut client, now, "kiosk", digest), expected);
    }
}

#[test]
fn chunks_of_an_avoided_holder_do_not_hide_those_of_others_from_a_child_that_waits() {
    let chunks = 2 * RUNS_MAX as u32;
    let (mut client, mut now, digest) = leading_with(chunks);
    complain(&mut client, now, node("kiosk", "kiosk"), "store-2", UnservedReason::Refused, digest);
    asks(&mut client, now, "kiosk", digest, ChunkRun { first: 0, count: chunks }, &[]);
    assert_eq!(granted_since(&mut client), 0);
    has(&mut client, now, "store-3", digest, ChunkRun { first: chunks - 2, count: 2 });
    now = pass(&mut client, now, std::time::Duration::from_secs(1));
    assert_eq!(granted_since(&mut client), 2, "at {now:?}");
}

#[test]
fn nothing_of_a_package_is_kept_that_is_not_planned_any_more() {
    let (mut client, now, digest) = leading();
    assert_eq!(granted(&mut client, now, "kiosk", digest), CHUNKS);
    let mut edited = client.plan().cloned().unwrap();
    edited.packages.clear();
    take_plan(&mut client, now, &mut edited);
    let leading = client.leading.as_ref().unwrap();
    assert!(leading.view.members().all(|member| member.packages.is_empty()));
    assert!(leading.links.values().all(|ledger| ledger.is_empty()));
}
