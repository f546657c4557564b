//! Who answers a broadcast question, and when.

use super::super::event::{BroadcastRequest, Event, Output};
use super::super::fixture::{client, drain, node, plan, planned, prepare, take_plan};
use super::*;
use crate::distribution::Priority;
use crate::names::NodeName;
use crate::office::OfficeType;

fn ask(client: &mut Client, now: Instant, asker: &str, question: u64) {
    let digests = vec![planned("package", Priority::Normal).digest];
    let request = BroadcastRequest::WhoHas { question, digests };
    client.handle(now, Event::Broadcast { from: node("store", asker), request });
}

fn answers(client: &mut Client) -> Vec<(String, u64)> {
    drain(client)
        .into_iter()
        .filter_map(|output| match output {
            Output::Send { to, message: Message::HoldersFound(found), .. } => {
                Some((to.node()?.name.to_string(), found.question))
            }
            _ => None,
        })
        .collect()
}

/// A node that holds the package under a plan that names these nodes.
fn holder(answerers: &[&str]) -> (Client, Instant) {
    let (mut client, now) = client(OfficeType::Wired);
    let packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    let mut plan = plan(OfficeType::Wired, packages);
    plan.answerers = answerers.iter().map(|name| NodeName::new(name).unwrap()).collect();
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, digest, 1);
    (client, now)
}

#[test]
fn named_node_answers_after_a_moment_that_is_its_deadline() {
    let (mut client, now) = holder(&["store-1", "store-2"]);
    client.handle_timeout(now);
    ask(&mut client, now, "store-3", 7);
    assert_eq!(answers(&mut client), []);
    let due = client.answer_at().unwrap();
    assert!(due >= now && due <= now + ANSWER_SPREAD);
    assert!(client.poll_timeout() <= due);
    client.handle_timeout(due);
    assert_eq!(answers(&mut client), [("store-3".to_owned(), 7)]);
    assert_eq!(client.answer_at(), None);
}

#[test]
fn node_that_is_not_named_or_has_no_plan_stays_silent() {
    for (mut client, now) in [holder(&["store-2"]), holder(&[]), client(OfficeType::Wired)] {
        ask(&mut client, now, "store-3", 7);
        client.handle_timeout(now + ANSWER_SPREAD);
        assert_eq!(answers(&mut client), []);
    }
}

#[test]
fn answers_of_a_flood_of_questions_are_bounded_and_the_last_of_each_asker_counts() {
    let (mut client, now) = holder(&["store-1"]);
    for asker in 0..2 * ANSWERS_WAITING_MAX {
        ask(&mut client, now, &format!("asker-{asker}"), 1);
    }
    ask(&mut client, now, "asker-0", 2);
    client.handle_timeout(now + ANSWER_SPREAD);
    let answers = answers(&mut client);
    assert_eq!(answers.len(), ANSWERS_WAITING_MAX);
    assert!(answers.contains(&("asker-0".to_owned(), 2)));
    assert!(!answers.contains(&("asker-0".to_owned(), 1)));
}
