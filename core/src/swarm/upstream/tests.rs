//! What is asked of the parent, what is wanted, and what becomes of failures.

use super::*;
use crate::chunk_set::indices_of;

const CHUNK_BYTES: u64 = 64 << 10;

fn lengths(chunks: usize) -> ChunkLengths {
    vec![CHUNK_BYTES as u32; chunks].into()
}

fn holder() -> NodeRef {
    NodeRef {
        name: NodeName::new("holder").unwrap(),
        office: crate::names::OfficeName::new("parent").unwrap(),
        address: "127.0.0.1".parse().unwrap(),
    }
}

fn granted(chunks: usize) -> Upstream {
    let mut upstream = Upstream::default();
    upstream.next_request(Instant::now(), &ChunkSet::new(chunks as u32), None, &lengths(chunks));
    (0..chunks as u32).for_each(|index| assert!(upstream.granted(Instant::now(), index, &holder())));
    upstream
}

fn chunks_of(wants: &BTreeMap<NodeRef, Vec<ChunkRun>>) -> u64 {
    wants.values().flatten().map(|run| u64::from(run.count)).sum()
}

#[test]
fn requests_run_ahead_by_a_bounded_amount() {
    let (now, present) = (Instant::now(), ChunkSet::new(1024));
    let mut upstream = Upstream::default();
    let runs = upstream.next_request(now, &present, None, &lengths(1024));
    assert_eq!(runs, [ChunkRun { first: 0, count: (ASKED_AHEAD_BYTES / CHUNK_BYTES) as u32 }]);
    assert!(upstream.next_request(now, &present, None, &lengths(1024)).is_empty());
}

#[test]
fn wants_stay_within_the_window() {
    let mut upstream = granted(200);
    assert_eq!(chunks_of(&upstream.next_wants(0, &lengths(200))), LINK_WINDOW_BYTES / CHUNK_BYTES);
    assert!(upstream.next_wants(0, &lengths(200)).is_empty());
}

#[test]
fn unshared_chunks_use_up_the_window() {
    let mut upstream = granted(200);
    assert_eq!(chunks_of(&upstream.next_wants(LINK_WINDOW_BYTES - WANT_BYTES_MIN, &lengths(200))), 4);
    assert!(granted(200).next_wants(LINK_WINDOW_BYTES, &lengths(200)).is_empty());
}

#[test]
fn chunks_on_their_way_use_up_the_window_although_somebody_says_that_the_office_has_them() {
    let (mut upstream, now) = (granted(200), Instant::now());
    let wanted = (LINK_WINDOW_BYTES / CHUNK_BYTES) as u32;
    assert_eq!(chunks_of(&upstream.next_wants(0, &lengths(200))), u64::from(wanted));
    let mut said = ChunkSet::new(200);
    said.insert_runs(&[ChunkRun { first: 0, count: wanted }]);
    upstream.next_request(now, &said, None, &lengths(200));
    assert!(upstream.next_wants(0, &lengths(200)).is_empty());
    (0..8).for_each(|index| upstream.delivered(now, index, &holder().name));
    assert_eq!(chunks_of(&upstream.next_wants(0, &lengths(200))), 8);
}

#[test]
fn chunk_larger_than_the_window_goes_alone() {
    let large: ChunkLengths = vec![6 << 20; 2].into();
    let mut upstream = Upstream::default();
    upstream.next_request(Instant::now(), &ChunkSet::new(2), None, &large);
    (0..2).for_each(|index| assert!(upstream.granted(Instant::now(), index, &holder())));
    assert!(upstream.next_wants(1, &large).is_empty());
    assert_eq!(chunks_of(&upstream.next_wants(0, &large)), 1);
    assert!(upstream.next_wants(0, &large).is_empty());
}

#[test]
fn lost_answer_is_asked_again_and_lost_receiver_is_named() {
    let (now, present) = (Instant::now(), ChunkSet::new(2));
    let mut upstream = Upstream::default();
    let runs = upstream.next_request(now, &present, None, &lengths(2));
    assert_eq!(upstream.next_request(now + ANSWER_TIMEOUT, &present, None, &lengths(2)), runs);
    let dead = NodeName::new("dead").unwrap();
    upstream.given_before(now, &dead, true, &runs);
    assert_eq!(upstream.take_lost_holders(), [dead]);
    assert_eq!(upstream.next_request(now, &present, None, &lengths(2)), runs);
    assert!(upstream.take_lost_holders().is_empty());
}

#[test]
fn what_another_node_was_given_is_asked_for_again_later_and_keeps_nothing_else_from_being_asked_for() {
    let (now, present) = (Instant::now(), ChunkSet::new(1024));
    let mut upstream = Upstream::default();
    let before = upstream.next_request(now, &present, None, &lengths(1024));
    upstream.given_before(now, &NodeName::new("silent").unwrap(), false, &before);
    let ahead = (ASKED_AHEAD_BYTES / CHUNK_BYTES) as u32;
    let beyond = [ChunkRun { first: ahead, count: ahead }];
    assert_eq!(upstream.next_request(now, &present, None, &lengths(1024)), beyond);
    assert!(upstream.next_request(now, &present, None, &lengths(1024)).is_empty());
    indices_of(&beyond, 1024).for_each(|index| assert!(upstream.granted(now, index, &holder())));
    chunks_of(&upstream.next_wants(0, &lengths(1024)));
    (ahead..2 * ahead).for_each(|index| upstream.delivered(now, index, &holder().name));
    assert_eq!(upstream.next_request(now + RETRY_DELAY, &present, None, &lengths(1024)), before);
    assert!(upstream.take_lost_holders().is_empty());
}

#[test]
fn late_failure_of_an_answered_request_changes_nothing() {
    let mut upstream = granted(2);
    upstream.undelivered(Instant::now(), &[ChunkRun { first: 0, count: 2 }]);
    assert_eq!(chunks_of(&upstream.next_wants(0, &lengths(2))), 2);
}

#[test]
fn chunk_is_wanted_once() {
    let mut upstream = granted(2);
    assert_eq!(chunks_of(&upstream.next_wants(0, &lengths(2))), 2);
    upstream.granted(Instant::now(), 0, &holder());
    assert!(upstream.next_wants(0, &lengths(2)).is_empty());
}

#[test]
fn less_and_less_is_asked_while_every_transfer_fails() {
    let (mut now, present, holder) = (Instant::now(), ChunkSet::new(2), holder().name);
    let mut upstream = Upstream::default();
    let mut pause = RETRY_DELAY;
    for _ in 0..10 {
        let runs = upstream.next_request(now, &present, None, &lengths(2));
        assert!(!runs.is_empty());
        upstream.not_served(now, &holder, &UnservedReason::Corrupt, &runs);
        assert!(upstream.next_request(now + pause - RETRY_DELAY / 2, &present, None, &lengths(2)).is_empty());
        now += pause;
        pause = (pause * 2).min(RETRY_DELAY_MAX);
    }
    upstream.delivered(now, 0, &holder);
    let runs = upstream.next_request(now, &present, None, &lengths(2));
    upstream.not_served(now, &holder, &UnservedReason::Corrupt, &runs);
    assert!(!upstream.next_request(now + RETRY_DELAY, &present, None, &lengths(2)).is_empty());
}

#[test]
fn grant_of_a_holder_that_failed_is_declined_for_a_while() {
    let (now, holder) = (Instant::now(), holder());
    let mut upstream = granted(4);
    upstream.not_served(now, &holder.name, &UnservedReason::Unreachable, &[ChunkRun { first: 0, count: 1 }]);
    assert!(upstream.next_wants(0, &lengths(4)).is_empty(), "nothing more is wanted of it");
    let later = now + RETRY_DELAY;
    upstream.next_request(later, &ChunkSet::new(4), None, &lengths(4));
    assert!(!upstream.granted(later, 1, &holder));
    let later = now + AVOID_UNREACHABLE;
    upstream.next_request(later, &ChunkSet::new(4), None, &lengths(4));
    assert!(upstream.granted(later, 1, &holder));
}
