//! Whose word counts for what the office has.

use super::*;
use crate::chunk_set::ChunkRun;
use crate::swarm::avoidance::AVOID_UNREACHABLE;
use crate::swarm::member_package::IDLE_AFTER;

const CHUNKS: u32 = 4;
const ALL: [ChunkRun; 1] = [ChunkRun { first: 0, count: CHUNKS }];

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn package() -> Digest {
    Digest::of(b"p")
}

/// Members `n1` to `n4`, of which the last says that it has everything.
fn view(now: Instant) -> OfficeView {
    let mut view = OfficeView::default();
    for n in 1..=4 {
        let (name, office) = (name(&format!("n{n}")), crate::names::OfficeName::new("store").unwrap());
        let node = NodeRef { name: name.clone(), office, address: "127.0.0.1".parse().unwrap() };
        view.heard(now, &node, 1, 1);
        view.package(&name, package(), CHUNKS).unwrap();
    }
    view.known_package(&name("n4"), package()).unwrap().gain(now, &ALL);
    view
}

fn fail(view: &mut OfficeView, now: Instant, member: &str) {
    let on_member = view.known_package(&name(member), package()).unwrap();
    on_member.avoided.failed(now, &Some(name("n4")), AVOID_UNREACHABLE);
}

fn doubted(view: &OfficeView, now: Instant, failures_min: u32) -> Vec<NodeName> {
    view.doubted(now, &name("n1"), package(), failures_min).into_iter().collect()
}

#[test]
fn own_experience_counts_and_the_word_of_one_other_does_not() {
    let now = Instant::now();
    let mut view = view(now);
    fail(&mut view, now, "n2");
    assert_eq!(doubted(&view, now, 1), [], "a liar could smear others");
    fail(&mut view, now, "n3");
    assert_eq!(doubted(&view, now, 1), [name("n4")]);
    let mut view = self::view(now);
    fail(&mut view, now, "n1");
    assert_eq!(doubted(&view, now, 1), [name("n4")]);
    assert_eq!(doubted(&view, now + AVOID_UNREACHABLE, 1), [], "it is tried again");
}

#[test]
fn more_failures_are_needed_where_a_mistake_costs_bytes() {
    let mut now = Instant::now();
    let mut view = view(now);
    for (times, pause) in [(1, AVOID_UNREACHABLE), (2, AVOID_UNREACHABLE * 2)] {
        fail(&mut view, now, "n1");
        assert_eq!(doubted(&view, now, 3), [], "{times} failures");
        now += pause;
    }
    fail(&mut view, now, "n1");
    let node = view.member(&name("n1")).unwrap().node.clone();
    view.heard(now, &node, 1, 1);
    assert_eq!(doubted(&view, now, 3), [name("n4")]);
}

#[test]
fn chunks_that_only_a_doubted_member_claims_are_not_there() {
    let now = Instant::now();
    let mut view = view(now);
    fail(&mut view, now, "n1");
    view.known_package(&name("n2"), package()).unwrap().gain(now, &[ChunkRun { first: 0, count: 1 }]);
    let doubted = view.doubted(now, &name("n1"), package(), 1);
    let (once, twice) = view.spread(now, package(), CHUNKS, &doubted);
    assert_eq!((once.runs(), twice.len()), (vec![ChunkRun { first: 0, count: 1 }], 0));
}

#[test]
fn member_to_which_nothing_comes_is_idle_until_something_does() {
    let now = Instant::now();
    let mut view = view(now);
    let on_member = view.known_package(&name("n2"), package()).unwrap();
    on_member.assign(now, 0, Some(name("n4")));
    on_member.assign(now, 1, Some(name("n4")));
    let later = now + IDLE_AFTER;
    assert!(!on_member.is_idle(later - Duration::from_millis(1)));
    assert!(on_member.is_idle(later));
    on_member.gain(later, &[ChunkRun { first: 0, count: 1 }]);
    assert!(!on_member.is_idle(later));
}

#[test]
fn member_is_asked_for_its_inventory_until_that_comes() {
    let now = Instant::now();
    let mut view = view(now);
    let node = view.member(&name("n1")).unwrap().node.clone();
    assert_eq!(view.heard(now, &node, 1, 1), Some(true));
    assert_eq!(view.heard(now, &node, 1, 1), Some(true), "it may have been lost");
    view.inventory_came(&node.name);
    assert_eq!(view.heard(now, &node, 1, 1), Some(false));
    assert_eq!(view.heard(now, &node, 2, 1), Some(true), "it was started anew");
    assert_eq!(view.heard(now, &node, 2, 1), Some(true));
}

#[test]
fn word_of_what_comes_counts_for_a_while_after_a_takeover_however_often_a_member_begins_anew() {
    let start = Instant::now();
    let lengths: ChunkLengths = vec![1; CHUNKS as usize].into();
    let office = crate::names::OfficeName::new("store").unwrap();
    let node = NodeRef { name: name("n1"), office, address: "127.0.0.1".parse().unwrap() };
    let mut view = OfficeView::taking_over(start);
    for boot_id in 0..2 * COMING_MAX.as_secs() {
        let now = start + Duration::from_secs(boot_id);
        view.heard(now, &node, boot_id, 1);
        let package_of_liar = view.package(&node.name, package(), CHUNKS).unwrap();
        let available = package_of_liar.available.clone();
        package_of_liar.coming.said(now, &ALL, &available);
        let awaited = !view.coming(now, package(), &lengths).is_empty();
        assert_eq!(awaited, now < start + COMING_MAX);
    }
}

#[test]
fn of_what_is_reported_early_no_more_is_kept_than_a_message_takes() {
    let now = Instant::now();
    let mut view = view(now);
    view.inventory_came(&name("n1"));
    let scattered = (0..64 * RUNS_MAX as u32).map(|n| ChunkRun { first: 2 * n, count: 1 });
    let delta = PackageDelta {
        digest: Digest::of(b"early"),
        available: scattered.collect(),
        lost: Vec::new(),
        coming: Vec::new(),
        state: NodeState::default(),
    };
    for _ in 0..2 {
        view.learn(now, &name("n1"), delta.clone(), None);
        let member = view.member(&name("n1")).unwrap();
        assert!(member.early[&delta.digest].available.capacity() <= 2 * RUNS_MAX);
        assert!(member.inventory_wanted, "what was left out has to be said again");
    }
    view.take_early(now, delta.digest, 64);
    assert_eq!(view.known_package(&name("n1"), delta.digest).unwrap().available.len(), 32);
}
