//! What a member says, and when it believes that its rendezvous point is lost.

use super::*;
use crate::chunk_set::ChunkRun;
use crate::client::event::{NOT_RENDEZVOUS_POINT, Refusal};
use crate::client::fixture::{CHUNKS, client, drain, node, pass, plan, planned, prepare, start, take_plan};
use crate::client::{Event, Output};
use crate::distribution::Priority;
use crate::message::{MemberReport, PlanChanged};
use crate::office::OfficeType;
use crate::peer::ContentClass;
use std::time::Duration;

/// The member `store-1` of the rendezvous point `store-2`, with a package of which it has no chunk.
fn following() -> (Client, Instant) {
    let (mut client, now) = client(OfficeType::Wired);
    let packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    take_plan(&mut client, now, &mut plan(OfficeType::Wired, packages));
    claims(&mut client, now);
    prepare(&mut client, now, digest, 0);
    (client, now)
}

fn claims(client: &mut Client, now: Instant) {
    let claim = Message::RendezvousClaim { term: 4, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), claim).unwrap();
}

/// The next report that says of chunks that they are gone.
fn report_of_loss(client: &mut Client, now: &mut Instant) -> Option<MemberReport> {
    claims(client, *now);
    *now = pass(client, *now, Duration::from_secs(2));
    drain(client).into_iter().find_map(|output| match output {
        Output::Send { message: Message::MemberReport(report), .. } => {
            report.packages.iter().any(|delta| delta.lost == [ChunkRun { first: 0, count: CHUNKS }]).then_some(report)
        }
        _ => None,
    })
}

#[test]
fn loss_is_said_again_when_the_report_did_not_arrive() {
    let (mut client, mut now) = following();
    let report = report_of_loss(&mut client, &mut now).expect("what is lacking is said after a start");
    assert!(report_of_loss(&mut client, &mut now).is_none());
    let (to, message) = (Peer::Node(node("store", "store-2")), Message::MemberReport(report));
    client.handle(now, Event::Undelivered { to, message, refused: Some("busy".to_owned()) });
    assert!(report_of_loss(&mut client, &mut now).is_some());
}

#[test]
fn rendezvous_point_whose_beacons_are_not_heard_lives_as_long_as_it_answers() {
    for (answer, leads) in [(Some(INVENTORY_NEEDED), false), (Some(BUSY), false), (None, true)] {
        let (mut client, mut now) = following();
        let report = report_of_loss(&mut client, &mut now).expect("what is lacking is said after a start");
        claims(&mut client, now);
        for _ in 0..10 {
            now = pass(&mut client, now, Duration::from_secs(1));
            let (to, message) = (Peer::Node(node("store", "store-2")), Message::MemberReport(report.clone()));
            client.handle(now, Event::Undelivered { to, message, refused: answer.map(str::to_owned) });
        }
        assert_eq!(client.is_rendezvous_point(), leads, "{answer:?}");
    }
}

#[test]
fn node_that_was_stopped_does_not_take_its_rendezvous_point_for_lost() {
    let (mut client, now) = following();
    let later = now + Duration::from_secs(60);
    client.handle_timeout(later);
    assert!(!client.is_rendezvous_point(), "its beacons are unread");
    claims(&mut client, later);
    pass(&mut client, later, Duration::from_secs(2));
    assert!(!client.is_rendezvous_point());
    pass(&mut client, later, Duration::from_secs(5));
    assert!(client.is_rendezvous_point(), "it is silent while this node runs");
}

#[test]
fn inventory_is_repeated_less_and_less_often_until_a_report_is_accepted() {
    let (mut client, mut now) = following();
    let leader = Peer::Node(node("store", "store-2"));
    let mut sent = 0;
    for _ in 0..60 {
        claims(&mut client, now);
        now = pass(&mut client, now, Duration::from_secs(1));
        for output in drain(&mut client) {
            let Output::Send { message, .. } = output else { continue };
            sent += usize::from(matches!(message, Message::Inventory(_)));
            if matches!(message, Message::MemberReport(_)) {
                let refused = Some(INVENTORY_NEEDED.to_owned());
                client.handle(now, Event::Undelivered { to: leader.clone(), message, refused });
            }
        }
    }
    assert!((3..=8).contains(&sent), "{sent} inventories in a minute");
    client.handle(now, Event::Delivered { to: leader });
    assert_eq!(client.inventories_unanswered, 0);
}

#[test]
fn rendezvous_point_that_refuses_reports_for_whatever_reason_is_lost() {
    let refused_with = |reason: &str| {
        let (mut client, mut now) = client(OfficeType::WiFi);
        take_plan(&mut client, now, &mut plan(OfficeType::WiFi, Vec::new()));
        let leader = node("store", "store-2");
        let changed = PlanChanged { plan_revision: 1, term: 4, rendezvous_point: Some(leader.clone()) };
        client.message(now, Peer::Server, Message::PlanChanged(changed)).unwrap();
        let mut lost = false;
        for _ in 0..5 {
            now = pass(&mut client, now, Duration::from_secs(1));
            for output in drain(&mut client) {
                let Output::Send { message, .. } = output else { continue };
                lost |= message == Message::RendezvousLost { term: 4 };
                if matches!(message, Message::MemberReport(_)) {
                    let to = Peer::Node(leader.clone());
                    client.handle(now, Event::Undelivered { to, message, refused: Some(reason.to_owned()) });
                }
            }
        }
        lost
    };
    assert!(refused_with(NOT_RENDEZVOUS_POINT));
    assert!(refused_with(Refusal::unexpected().reason), "it is in another office now");
    assert!(!refused_with(INVENTORY_NEEDED));
    assert!(!refused_with(BUSY));
}

/// First chunks of what the member says to have, by reports.
fn reported(client: &mut Client) -> Vec<u32> {
    let reports = drain(client).into_iter().filter_map(|output| match output {
        Output::Send { message: Message::MemberReport(report), .. } => Some(report),
        _ => None,
    });
    reports.flat_map(|report| report.packages).flat_map(|delta| delta.available).map(|run| run.first).collect()
}

#[test]
fn last_word_of_a_member_does_not_wait_for_the_answer_to_the_one_before() {
    let (mut client, now) = following();
    let now = pass(&mut client, now, Duration::from_secs(2));
    claims(&mut client, now);
    let (holder, digest) = (node("store", "store-3"), planned("package", Priority::Normal).digest);
    let transfer = start(&mut client, now, holder, ContentClass::Foreground, digest);
    client.handle(now, Event::ChunkStored { transfer, index: 0 });
    drain(&mut client);
    let now = pass(&mut client, now, Duration::from_millis(500));
    assert_eq!(reported(&mut client), [0]);
    client.handle(now, Event::ChunkStored { transfer, index: 1 });
    let now = pass(&mut client, now, Duration::from_millis(200));
    assert!(reported(&mut client).is_empty(), "it waits for the answer");
    client.report_at_last(now);
    assert_eq!(reported(&mut client), [1]);
}

#[test]
fn last_word_to_a_rendezvous_point_that_knows_nothing_yet_is_the_inventory() {
    let (mut client, now) = following();
    drain(&mut client);
    client.report_at_last(now);
    let is_inventory = |output: &Output| matches!(output, Output::Send { message: Message::Inventory(_), .. });
    assert!(drain(&mut client).iter().any(is_inventory));
}
