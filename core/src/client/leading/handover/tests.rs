//! When the role is given away, and to whom.

use super::*;
use crate::chunk_set::ChunkRun;
use crate::client::Event;
use crate::client::fixture::{client, drain, lead, node, pass, plan, planned, prepare, report, take_plan};
use crate::distribution::Priority;
use crate::message::{Fetch, NodeState};
use crate::names::OfficeName;
use crate::plan::{ChildOffice, Plan};

/// The rendezvous point `store-1` of an office that is to publish an urgent package and another one.
fn leading_two() -> (Client, Instant, Plan, [Digest; 2]) {
    let (mut client, now) = client(OfficeType::Wired);
    let packages = vec![planned("urgent", Priority::High), planned("other", Priority::Normal)];
    let digests = [packages[0].digest, packages[1].digest];
    let mut plan = plan(OfficeType::Wired, packages);
    take_plan(&mut client, now, &mut plan);
    let now = lead(&mut client, now);
    (client, now, plan, digests)
}

fn fill_disk(client: &mut Client, now: Instant, digest: Digest) {
    let (reason, message) = ("DiskFull".to_owned(), "make room".to_owned());
    client.handle(now, Event::PrepareFailed { digest, reason, message, is_final: true });
}

fn fetches() -> NodeState {
    NodeState::default()
}

fn has_it() -> NodeState {
    NodeState { complete: true, ..NodeState::default() }
}

fn lacks_space() -> NodeState {
    NodeState { error: Some(("DiskFull".to_owned(), "make room".to_owned())), ..NodeState::default() }
}

/// Who is asked to lead in the next rounds, which take time.
fn asked(client: &mut Client, now: &mut Instant) -> Vec<NodeName> {
    drain(client);
    *now = pass(client, *now, HANDOVER_INTERVAL);
    drain(client)
        .into_iter()
        .filter_map(|output| match output {
            crate::client::Output::Send { to, message: Message::Handover { .. }, .. } => Some(to.node()?.name.clone()),
            _ => None,
        })
        .collect()
}

fn names(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|name| node("store", name).name).collect()
}

#[test]
fn full_disk_gives_the_role_to_a_member_that_has_the_space() {
    let (mut client, mut now, _, [urgent, other]) = leading_two();
    prepare(&mut client, now, other, 0);
    fill_disk(&mut client, now, urgent);
    report(&mut client, now, "store-2", &[(urgent, lacks_space()), (other, fetches())]);
    report(&mut client, now, "store-3", &[(urgent, fetches()), (other, fetches())]);
    assert_eq!(asked(&mut client, &mut now), names(&["store-3"]));
}

#[test]
fn nothing_moves_while_nobody_has_the_space() {
    let (mut client, mut now, _, [urgent, other]) = leading_two();
    prepare(&mut client, now, other, 0);
    fill_disk(&mut client, now, urgent);
    report(&mut client, now, "store-2", &[(urgent, lacks_space()), (other, fetches())]);
    assert_eq!(asked(&mut client, &mut now), []);
}

#[test]
fn role_does_not_come_back_for_a_less_urgent_package() {
    let (mut client, mut now, _, [urgent, other]) = leading_two();
    prepare(&mut client, now, urgent, 0);
    fill_disk(&mut client, now, other);
    report(&mut client, now, "store-2", &[(urgent, lacks_space()), (other, fetches())]);
    report(&mut client, now, "store-3", &[(urgent, fetches()), (other, lacks_space())]);
    assert_eq!(asked(&mut client, &mut now), [], "store-2 could not take the urgent one");
    report(&mut client, now, "store-3", &[(urgent, has_it()), (other, lacks_space())]);
    report(&mut client, now, "store-2", &[(urgent, lacks_space()), (other, fetches())]);
    assert_eq!(asked(&mut client, &mut now), names(&["store-2"]), "nobody lacks the urgent one any more");
}

#[test]
fn node_that_every_member_can_do_without_keeps_the_role() {
    let (mut client, mut now, _, [urgent, other]) = leading_two();
    prepare(&mut client, now, other, 0);
    fill_disk(&mut client, now, urgent);
    report(&mut client, now, "store-2", &[(urgent, has_it()), (other, fetches())]);
    assert_eq!(asked(&mut client, &mut now), []);
}

#[test]
fn full_disk_gives_the_role_away_for_the_sake_of_a_child_office_too() {
    let (mut client, now, mut plan, [urgent, other]) = leading_two();
    let child = node("kiosk", "kiosk-1");
    let (name, office_type, nodes) = (child.office.clone(), OfficeType::Wired, vec![child.clone()]);
    plan.children = vec![ChildOffice { name, office_type, nodes }];
    plan.packages[0].granted_children = [0].into_iter().collect();
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, other, 0);
    fill_disk(&mut client, now, urgent);
    let mut later = pass(&mut client, now, HANDOVER_INTERVAL);
    report(&mut client, later, "store-2", &[(urgent, has_it()), (other, fetches())]);
    let runs = vec![ChunkRun { first: 0, count: 1 }];
    let (lost_holders, delivered_by) = (Vec::new(), Vec::new());
    let fetch = Fetch { term: 1, digest: urgent, runs, lost_holders, delivered_by };
    assert!(client.message(later, Peer::Node(child), Message::Fetch(fetch)).is_err());
    assert_eq!(asked(&mut client, &mut later), names(&["store-2"]));
}

#[test]
fn member_that_does_not_take_the_role_is_left_out_for_a_while() {
    let (mut client, mut now, _, [urgent, other]) = leading_two();
    prepare(&mut client, now, other, 0);
    fill_disk(&mut client, now, urgent);
    for expected in [vec!["store-3"], vec!["store-2"], vec![]] {
        report(&mut client, now, "store-2", &[(urgent, fetches())]);
        report(&mut client, now, "store-3", &[(urgent, fetches())]);
        assert_eq!(asked(&mut client, &mut now), names(&expected));
        for name in expected {
            let (to, message) = (Peer::Node(node("store", name)), Message::Handover { term: client.term() });
            client.handle(now, Event::Undelivered { to, message, refused: None });
        }
    }
    now = pass(&mut client, now, DECLINED);
    report(&mut client, now, "store-3", &[(urgent, fetches())]);
    assert_eq!(asked(&mut client, &mut now), names(&["store-3"]));
}

#[test]
fn member_takes_the_role_from_the_one_it_follows_only() {
    let (mut client, now) = client(OfficeType::Wired);
    let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
    let handover = || Message::Handover { term: 4 };
    assert!(client.message(now, Peer::Node(node("store", "store-3")), handover()).is_err());
    assert!(client.message(now, Peer::Node(node("store", "store-2")), Message::Handover { term: 3 }).is_err());
    let mut stranger = node("store", "store-2");
    stranger.office = OfficeName::new("elsewhere").unwrap();
    assert!(client.message(now, Peer::Node(stranger), handover()).is_err());
    assert!(!client.is_rendezvous_point());
    client.message(now, Peer::Node(node("store", "store-2")), handover()).unwrap();
    assert!(client.is_rendezvous_point());
    assert_eq!(client.term(), 5);
}
