//! Who is told to fetch what from whom.

use std::time::Duration;

use super::*;
use crate::chunk_set::ChunkRun;

fn node(name: &str) -> NodeRef {
    NodeRef {
        name: NodeName::new(name).unwrap(),
        office: crate::names::OfficeName::new("store").unwrap(),
        address: "127.0.0.1".parse().unwrap(),
    }
}

fn view(now: Instant, members: usize, chunks: u32) -> OfficeView {
    let mut view = OfficeView::default();
    for n in 1..=members {
        view.heard(now, &node(&format!("n{n}")), 1, 1);
        view.package(&node(&format!("n{n}")).name, Digest::of(b"p"), chunks);
    }
    view
}

fn job(chunks: usize, from_server: bool) -> Job {
    Job {
        digest: Digest::of(b"p"),
        lengths: vec![64 << 10; chunks].into(),
        transit: None,
        from_server,
        doubted: BTreeSet::new(),
        lost_holders: Vec::new(),
    }
}

#[test]
fn first_holder_is_asked_once_for_each_chunk() {
    let now = Instant::now();
    let mut view = view(now, 4, 64);
    let job = job(64, false);
    let all = [ChunkRun { first: 0, count: 64 }];
    view.package(&node("n1").name, job.digest, 64).unwrap().gain(now, &all);
    let orders = assign(&mut view, now, &job);
    let mut asked = ChunkSet::new(64);
    for run in orders.iter().flat_map(|(_, assignments)| assignments).flat_map(|order| &order.runs) {
        assert!(run.range().all(|index| asked.insert(index)), "asked twice");
    }
    assert!(asked.is_full());
    assert_eq!(orders.len(), 3, "the work is shared");
    assert!(assign(&mut view, now, &job).is_empty(), "nothing is assigned twice");
}

#[test]
fn second_copies_of_chunks_that_come_one_by_one_are_spread_over_the_members() {
    let now = Instant::now();
    let mut view = view(now, 5, 64);
    let job = job(64, false);
    let mut second_holders: BTreeMap<NodeName, u32> = BTreeMap::new();
    for index in 0..64 {
        let come = [ChunkRun { first: index, count: 1 }];
        view.package(&node("n1").name, job.digest, 64).unwrap().gain(now, &come);
        let orders = assign(&mut view, now, &job);
        for (member, assignments) in orders {
            let chunks: u32 = assignments.iter().flat_map(|order| &order.runs).map(|run| run.count).sum();
            *second_holders.entry(member.name.clone()).or_default() += chunks;
            for run in assignments.iter().flat_map(|order| &order.runs) {
                view.package(&member.name, job.digest, 64).unwrap().gain(now, &[*run]);
            }
        }
        // The others have nothing of it yet: only first copies are counted.
        for n in 2..=5 {
            view.package(&node(&format!("n{n}")).name, job.digest, 64).unwrap().gain(now, &come);
        }
    }
    assert_eq!(second_holders.len(), 4, "{second_holders:?}");
    assert!(second_holders.values().all(|&chunks| chunks <= 64 / 2), "{second_holders:?}");
}

#[test]
fn claims_of_a_member_that_sent_rubbish_do_not_keep_chunks_from_coming() {
    let now = Instant::now();
    let mut view = view(now, 3, 8);
    let job = job(8, true);
    let (liar, all) = (node("n3").name, [ChunkRun { first: 0, count: 8 }]);
    view.package(&liar, job.digest, 8).unwrap().gain(now, &all);
    view.distrust(&liar, now + Duration::from_secs(60));
    let orders = assign(&mut view, now, &job);
    let holders: Vec<&Holder> =
        orders.iter().flat_map(|(_, assignments)| assignments).map(|order| &order.holder).collect();
    assert!(!holders.is_empty() && holders.iter().all(|&holder| *holder == Holder::Server), "{holders:?}");
}

#[test]
fn server_gives_each_chunk_to_one_member() {
    let now = Instant::now();
    let mut view = view(now, 8, 64);
    let job = job(64, true);
    let mut asked = ChunkSet::new(64);
    for (_, assignments) in assign(&mut view, now, &job) {
        for order in assignments {
            assert_eq!(order.holder, Holder::Server);
            assert!(order.runs.iter().flat_map(|run| run.range()).all(|index| asked.insert(index)));
        }
    }
    assert!(asked.is_full());
}

#[test]
fn window_of_the_link_bounds_what_one_member_receives() {
    let now = Instant::now();
    let mut view = view(now, 1, 1024);
    let orders = assign(&mut view, now, &job(1024, true));
    let chunks: u32 = orders[0].1.iter().flat_map(|order| &order.runs).map(|run| run.count).sum();
    assert_eq!(u64::from(chunks) * (64 << 10), LINK_WINDOW_BYTES);
}

#[test]
fn silent_holder_is_not_named() {
    let now = Instant::now();
    let mut view = view(now, 2, 4);
    let job = job(4, false);
    view.package(&node("n1").name, job.digest, 4).unwrap().gain(now, &[ChunkRun { first: 0, count: 4 }]);
    let later = now + crate::swarm::office_view::MEMBER_SILENCE;
    view.heard(later, &node("n2"), 1, 1);
    assert!(assign(&mut view, later, &job).is_empty());
}
