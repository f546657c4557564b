//! What is brought in, and what is left to others who bring it in already.

use super::*;
use crate::client::fixture::{
    CHUNKS, client, drain, lead, node, pass, plan, planned, prepare_chunks, report, take_plan,
};
use crate::client::{Event, Output};
use crate::distribution::Priority;
use crate::message::{Assignment, MemberReport, NodeState, PackageDelta, TransferId};
use crate::office::OfficeType;
use crate::plan::ANSWERERS_MAX;

const ALL: ChunkRun = ChunkRun { first: 0, count: CHUNKS };
/// So large that one fills the window of the link.
const LARGE: u32 = 4 << 20;

/// The rendezvous point `store-1` with the member `store-2`, both without a chunk.
fn leading(chunk_bytes: u32) -> (Client, Instant, Digest) {
    let (mut client, now) = client(OfficeType::Wired);
    let packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    take_plan(&mut client, now, &mut plan(OfficeType::Wired, packages));
    let now = lead(&mut client, now);
    prepare_chunks(&mut client, now, digest, &[chunk_bytes; CHUNKS as usize], 0);
    report(&mut client, now, "store-2", &[(digest, NodeState::default())]);
    (client, now, digest)
}

fn says_what_comes(client: &mut Client, now: Instant, digest: Digest, coming: Vec<ChunkRun>) {
    let delta = PackageDelta { digest, available: Vec::new(), lost: Vec::new(), coming, state: NodeState::default() };
    let said = MemberReport { boot_id: 2, plan_revision: 2, term: client.term(), packages: vec![delta] };
    client.message(now, Peer::Node(node("store", "store-2")), Message::MemberReport(said)).unwrap();
}

/// Chunks that the parent is asked for within some time.
fn asked_for(client: &mut Client, now: &mut Instant) -> Vec<ChunkRun> {
    drain(client);
    *now = pass(client, *now, Duration::from_secs(2));
    let runs = drain(client).into_iter().filter_map(|output| match output {
        Output::Send { message: Message::Fetch(fetch), .. } => Some(fetch.runs),
        _ => None,
    });
    runs.flatten().collect()
}

fn given_back(client: &mut Client) -> Vec<ChunkRun> {
    let runs = drain(client).into_iter().filter_map(|output| match output {
        Output::Send { message: Message::Unserved(unserved), .. } if unserved.holder.is_none() => Some(unserved.runs),
        _ => None,
    });
    runs.flatten().collect()
}

fn grant_all(client: &mut Client, now: Instant, digest: Digest) {
    let holder = Holder::Node(node("central", "central-1"));
    let granted = vec![Assignment { holder, runs: vec![ALL], lost_holders: Vec::new() }];
    let grant = Grant { digest, granted, given_before: Vec::new(), not_yet: Vec::new() };
    client.message(now, Peer::Node(node("central", "central-1")), Message::Grant(grant)).unwrap();
}

fn steps_down(client: &mut Client, now: Instant) {
    let message = Message::RendezvousClaim { term: client.term() + 1, plan_revision: 1 };
    client.message(now, Peer::Node(node("store", "store-2")), message).unwrap();
    assert!(!client.is_rendezvous_point());
}

#[test]
fn successor_waits_for_what_its_predecessor_still_fetches() {
    let (mut client, mut now, digest) = leading(1_000);
    says_what_comes(&mut client, now, digest, vec![ChunkRun { first: 3, count: 1 }]);
    assert_eq!(asked_for(&mut client, &mut now), [ChunkRun { first: 0, count: 3 }, ChunkRun { first: 4, count: 4 }]);
    says_what_comes(&mut client, now, digest, Vec::new());
    assert_eq!(asked_for(&mut client, &mut now), [ChunkRun { first: 3, count: 1 }], "it comes no more");
}

#[test]
fn whoever_steps_down_gives_back_what_it_has_not_asked_a_holder_for() {
    let (mut client, mut now, digest) = leading(LARGE);
    assert_eq!(asked_for(&mut client, &mut now), [ChunkRun { first: 0, count: 4 }]);
    grant_all(&mut client, now, digest);
    now = pass(&mut client, now, Duration::from_secs(1));
    drain(&mut client);
    steps_down(&mut client, now);
    assert_eq!(given_back(&mut client), [ChunkRun { first: 1, count: 3 }], "the first is on its way");
}

#[test]
fn grant_that_comes_after_the_role_is_gone_is_given_back() {
    let (mut client, mut now, digest) = leading(LARGE);
    asked_for(&mut client, &mut now);
    steps_down(&mut client, now);
    drain(&mut client);
    grant_all(&mut client, now, digest);
    assert_eq!(given_back(&mut client), [ALL]);
}

/// Whether the parent is asked for anything soon after `store-1` became the rendezvous point and these nodes reported.
fn asks_early(known_to_the_server: &[&str], reporting: &[&str]) -> bool {
    let (mut client, mut now) = client(OfficeType::Wired);
    let packages = vec![planned("package", Priority::Normal)];
    let digest = packages[0].digest;
    let mut plan = plan(OfficeType::Wired, packages);
    plan.answerers = known_to_the_server.iter().map(|name| node("store", name).name).collect();
    take_plan(&mut client, now, &mut plan);
    prepare_chunks(&mut client, now, digest, &[1_000; CHUNKS as usize], 0);
    while !client.is_rendezvous_point() {
        now = pass(&mut client, now, Duration::from_millis(50));
    }
    drain(&mut client);
    let asked = |client: &mut Client| {
        drain(client).iter().any(|output| matches!(output, Output::Send { message: Message::Fetch(_), .. }))
    };
    pass(&mut client, now, Duration::from_millis(100));
    assert!(!asked(&mut client), "nobody has reported");
    for member in reporting {
        report(&mut client, now, member, &[(digest, NodeState::default())]);
    }
    pass(&mut client, now, Duration::from_millis(200));
    asked(&mut client)
}

#[test]
fn nobody_is_waited_for_when_all_nodes_of_the_office_have_reported() {
    assert!(asks_early(&["store-1", "store-2"], &["store-2"]));
}

#[test]
fn node_that_has_not_reported_is_waited_for() {
    assert!(!asks_early(&["store-1", "store-2", "store-3"], &["store-2"]));
    assert!(!asks_early(&[], &["store-2"]), "who is in the office is not known");
    let names: Vec<String> = (1..=ANSWERERS_MAX).map(|number| format!("store-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(!asks_early(&names, &names[1..]), "there may be more than are named");
    assert!(asks_early(&names[1..], &names[1..]));
}

#[test]
fn first_receiver_that_lives_and_never_speaks_of_the_package_is_lost_in_the_end() {
    let (mut client, mut now, digest) = leading(1_000);
    let (start, parent) = (now, node("central", "central-1"));
    let first_receiver = node("store", "store-3").name;
    let mut lost_since = None;
    while lost_since.is_none() && now < start + 2 * SAYS_NOTHING {
        report(&mut client, now, "store-2", &[(digest, NodeState::default())]);
        report(&mut client, now, "store-3", &[]);
        now = pass(&mut client, now, Duration::from_secs(2));
        for output in drain(&mut client) {
            let Output::Send { message: Message::Fetch(fetch), .. } = output else { continue };
            if fetch.lost_holders.contains(&first_receiver) {
                lost_since = Some(now - start);
            }
            let given_before = vec![(first_receiver.clone(), fetch.runs)];
            let grant = Grant { digest, granted: Vec::new(), given_before, not_yet: Vec::new() };
            client.message(now, Peer::Node(parent.clone()), Message::Grant(grant)).unwrap();
        }
    }
    let lost_since = lost_since.expect("the chunks never come");
    assert!(lost_since >= SAYS_NOTHING, "it may only need time to begin: {lost_since:?}");
}

/// A node that fetches for itself, with two packages of chunks of these sizes, of which it was granted all it asked for.
fn fetching_two(sizes: [u32; 2]) -> (Client, Instant, [Digest; 2]) {
    let (mut client, mut now) = client(OfficeType::Vpn);
    let packages = vec![planned("urgent", Priority::High), planned("other", Priority::Normal)];
    let digests = [packages[0].digest, packages[1].digest];
    take_plan(&mut client, now, &mut plan(OfficeType::Vpn, packages));
    for (digest, bytes) in digests.into_iter().zip(sizes) {
        prepare_chunks(&mut client, now, digest, &vec![bytes; (2 * LARGE / bytes * 4) as usize], 0);
    }
    now = pass(&mut client, now, Duration::from_secs(1));
    drain(&mut client);
    (client, now, digests)
}

/// What is wanted of holders within a moment: transfer, package, first chunk.
fn wanted(client: &mut Client, now: &mut Instant) -> Vec<(TransferId, Digest, ChunkIndex)> {
    *now = pass(client, *now, Duration::from_millis(100));
    let expected = drain(client).into_iter().filter_map(|output| match output {
        Output::Expect { transfer, digest, runs, .. } => Some((transfer, digest, runs[0].first)),
        _ => None,
    });
    expected.collect()
}

#[test]
fn packages_share_the_window_of_the_link_and_the_most_urgent_goes_first() {
    let (mut client, mut now, [urgent, other]) = fetching_two([LARGE, LARGE]);
    for digest in [other, urgent] {
        grant_all(&mut client, now, digest);
    }
    let first = wanted(&mut client, &mut now);
    let [(transfer, _, _)] = first[..] else { panic!("one chunk fills the window: {first:?}") };
    assert_eq!(first, [(transfer, urgent, 0)]);
    for index in 0..3 {
        client.handle(now, Event::ChunkStored { transfer, index });
        assert_eq!(wanted(&mut client, &mut now), [(transfer, urgent, index + 1)]);
    }
    client.handle(now, Event::ChunkStored { transfer, index: 3 });
    let next = wanted(&mut client, &mut now);
    let is_other = matches!(next[..], [(_, digest, 0)] if digest == other);
    assert!(is_other, "nothing more is granted of the urgent one: {next:?}");
}

#[test]
fn urgent_package_of_large_chunks_gets_the_link_from_one_of_small_chunks() {
    let (mut client, mut now, [urgent, other]) = fetching_two([LARGE, LARGE / 8]);
    grant_all(&mut client, now, other);
    let first = wanted(&mut client, &mut now);
    let [(transfer, _, 0)] = first[..] else { panic!("the other one has the link: {first:?}") };
    grant_all(&mut client, now, urgent);
    for index in 0..7 {
        client.handle(now, Event::ChunkStored { transfer, index });
        assert_eq!(wanted(&mut client, &mut now), [], "what becomes free is kept for the urgent one");
    }
    client.handle(now, Event::ChunkStored { transfer, index: 7 });
    assert!(matches!(wanted(&mut client, &mut now)[..], [(_, digest, 0)] if digest == urgent));
}

#[test]
fn holder_that_hangs_keeps_the_link_from_other_packages_only_for_a_while() {
    let (mut client, mut now, [urgent, other]) = fetching_two([LARGE, LARGE]);
    for digest in [other, urgent] {
        grant_all(&mut client, now, digest);
    }
    let first = wanted(&mut client, &mut now);
    let [(transfer, digest, 0)] = first[..] else { panic!("one chunk fills the window: {first:?}") };
    assert_eq!(digest, urgent);
    client.handle(now, Event::TransferStarted { transfer });
    let start = now;
    let next = std::iter::from_fn(|| Some(wanted(&mut client, &mut now))).take(200).find(|wanted| !wanted.is_empty());
    assert!(matches!(next.as_deref(), Some([(_, digest, 0)]) if *digest == other), "{next:?}");
    assert!((STALLED_AFTER..STALLED_AFTER + Duration::from_secs(2)).contains(&(now - start)));
}

#[test]
fn package_that_waits_for_the_link_does_not_accuse_the_parent() {
    let (mut client, mut now, [urgent, other]) = fetching_two([LARGE, LARGE]);
    for digest in [other, urgent] {
        grant_all(&mut client, now, digest);
    }
    let transfer = wanted(&mut client, &mut now)[0].0;
    for index in 0..8 {
        now = pass(&mut client, now, Duration::from_secs(9));
        client.handle(now, Event::ChunkStored { transfer, index });
        grant_all(&mut client, now, urgent);
        let waits = client.packages[&other].state.waits.clone();
        assert_eq!(waits, None, "after chunk {index}");
    }
}
