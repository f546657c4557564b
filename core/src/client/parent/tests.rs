//! Whom of the parent office a node asks when nothing comes.

use super::super::fixture::{CHUNKS, client, drain, node, plan, planned, prepare, take_plan};
use super::*;
use crate::chunk_set::ChunkRun;
use crate::client::{Event, Output};
use crate::distribution::Priority;
use crate::message::{Assignment, Grant, Holder, Message};
use crate::office::OfficeType;
use crate::peer::Peer;

/// A node of a VPN office that is to fetch a package from `central-1`, as the plan says.
fn fetching() -> (Client, Instant, Digest) {
    let (mut client, now) = client(OfficeType::Vpn);
    let packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    take_plan(&mut client, now, &mut plan(OfficeType::Vpn, packages));
    prepare(&mut client, now, digest, 0);
    (client, now, digest)
}

/// Lets that much time pass. Returns who was asked in it.
fn asked_within(client: &mut Client, now: &mut Instant, time: Duration) -> Vec<String> {
    let end = *now + time;
    let mut asked = Vec::new();
    while *now < end {
        *now = client.poll_timeout().max(*now + Duration::from_millis(1)).min(end);
        client.handle_timeout(*now);
        asked.extend(drain(client).into_iter().filter_map(|output| match output {
            Output::Send { to, message: Message::Fetch(_), .. } => Some(to.node()?.name.to_string()),
            _ => None,
        }));
    }
    asked.dedup();
    asked
}

fn waits(client: &Client) -> Option<&str> {
    client.progress().find_map(|package| Some(package.state.waits.as_ref()?.0.as_str()))
}

fn claim(client: &mut Client, now: Instant, name: &str, term: Term) {
    let message = Message::RendezvousClaim { term, plan_revision: 1 };
    client.message(now, Peer::Node(node("central", name)), message).unwrap();
}

#[test]
fn silence_of_the_parent_is_said_and_ends_with_a_chunk() {
    let (mut client, mut now, digest) = fetching();
    assert_eq!(asked_within(&mut client, &mut now, PARENT_PATIENCE * 2), ["central-1"]);
    assert_eq!(waits(&client), Some(PARENT_SILENT));
    let holder = Holder::Node(node("central", "central-1"));
    let runs = vec![ChunkRun { first: 0, count: 1 }];
    let granted = vec![Assignment { holder, runs, lost_holders: Vec::new() }];
    let grant = Grant { digest, granted, given_before: Vec::new(), not_yet: Vec::new() };
    client.message(now, Peer::Node(node("central", "central-1")), Message::Grant(grant)).unwrap();
    now += Duration::from_secs(1);
    client.handle_timeout(now);
    let transfer = *client.transfers.keys().next().expect("the chunk is wanted");
    client.handle(now, Event::ChunkStored { transfer, index: 0 });
    asked_within(&mut client, &mut now, Duration::from_secs(1));
    assert_eq!(waits(&client), None);
}

#[test]
fn claimant_that_delivers_nothing_gives_way_to_the_node_of_the_plan_and_to_later_claimants() {
    let (mut client, mut now, _) = fetching();
    claim(&mut client, now, "central-9", Term::MAX);
    drain(&mut client);
    let asked = asked_within(&mut client, &mut now, PARENT_PATIENCE * 2 - Duration::from_secs(5));
    assert_eq!(asked, ["central-9", "central-1"]);
    claim(&mut client, now, "central-2", 7);
    let asked = asked_within(&mut client, &mut now, Duration::from_secs(10));
    assert_eq!(asked, ["central-2"]);
}

#[test]
fn claim_of_a_lower_term_is_not_heard_while_the_claimant_is_trusted() {
    let (mut client, now, _) = fetching();
    claim(&mut client, now, "central-2", 7);
    claim(&mut client, now, "central-3", 6);
    assert_eq!(client.parent_node(now).unwrap().name, node("central", "central-2").name);
}

#[test]
fn claim_of_a_node_that_is_left_alone_is_no_news() {
    let (mut client, mut now, _) = fetching();
    claim(&mut client, now, "central-9", 5);
    asked_within(&mut client, &mut now, PARENT_PATIENCE + Duration::from_secs(5));
    drain(&mut client);
    claim(&mut client, now, "central-9", 6);
    let told = drain(&mut client)
        .into_iter()
        .any(|output| matches!(output, Output::Send { message: Message::Inventory(_), .. }));
    assert!(!told, "it asks for nothing that it claims once more");
    claim(&mut client, now, "central-2", 7);
    claim(&mut client, now, "central-9", 8);
    assert_eq!(client.parent_node(now).unwrap().name, node("central", "central-2").name);
}

#[test]
fn parent_that_answers_that_it_lacks_the_chunks_is_not_called_silent() {
    let (mut client, mut now, digest) = fetching();
    claim(&mut client, now, "central-9", 5);
    let promise = |client: &mut Client, now: &mut Instant, time: Duration| {
        for _ in 0..time.as_secs() {
            if asked_within(client, now, Duration::from_secs(1)) == ["central-9"] {
                let not_yet = vec![ChunkRun { first: 0, count: CHUNKS }];
                let grant = Grant { digest, granted: Vec::new(), given_before: Vec::new(), not_yet };
                client.message(*now, Peer::Node(node("central", "central-9")), Message::Grant(grant)).unwrap();
            }
        }
    };
    promise(&mut client, &mut now, PARENT_PATIENCE * 3);
    assert_eq!(waits(&client), Some(PARENT_LACKS));
    assert_eq!(client.parent_node(now).unwrap().name, node("central", "central-9").name);
    promise(&mut client, &mut now, PROMISES_PATIENCE - PARENT_PATIENCE * 3 + Duration::from_secs(20));
    assert_ne!(
        client.parent_node(now).unwrap().name,
        node("central", "central-9").name,
        "promises alone bring nothing"
    );
}

#[test]
fn another_parent_office_is_asked_at_once() {
    let (mut client, mut now, _) = fetching();
    claim(&mut client, now, "central-9", 5);
    assert_eq!(asked_within(&mut client, &mut now, Duration::from_secs(1)), ["central-9"]);
    let mut edited = client.plan().unwrap().clone();
    edited.parent = Some(node("hub", "hub-1").office);
    edited.parent_nodes = vec![node("hub", "hub-1")];
    take_plan(&mut client, now, &mut edited);
    assert_eq!(asked_within(&mut client, &mut now, Duration::from_secs(1)), ["hub-1"]);
}
