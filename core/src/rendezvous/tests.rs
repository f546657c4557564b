//! Who leads, and who follows whom.

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn node(name: &str) -> NodeRef {
    NodeRef {
        name: crate::names::NodeName::new(name).unwrap(),
        office: crate::names::OfficeName::new("store").unwrap(),
        address: "127.0.0.1".parse().unwrap(),
    }
}

fn drain(machine: &mut Rendezvous) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll()).collect()
}

/// Runs machines against each other over a perfect broadcast until `end`.
fn run(machines: &mut [Rendezvous], dead: &[usize], start: Instant, end: Instant, rng: &mut StdRng) {
    let mut now = start;
    while now < end {
        for index in 0..machines.len() {
            if dead.contains(&index) {
                continue;
            }
            machines[index].handle_timeout(now);
            for output in drain(&mut machines[index]) {
                let from = machines[index].me.clone();
                for (other, machine) in machines.iter_mut().enumerate() {
                    if other == index || dead.contains(&other) {
                        continue;
                    }
                    if let Output::Beacon(term) = output {
                        machine.handle(now, Event::Beacon { from: from.clone(), term }, rng);
                    }
                }
            }
        }
        now += Duration::from_millis(10);
    }
}

#[test]
fn one_node_leads_and_is_replaced_within_five_seconds() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        let mut machines: Vec<Rendezvous> = (1..=8)
            .map(|n| Rendezvous::new(start, node(&format!("store-{n}")), OfficeType::Wired, 0, &mut rng))
            .collect();
        run(&mut machines, &[], start, start + Duration::from_secs(4), &mut rng);
        let leaders: Vec<usize> = (0..8).filter(|&n| machines[n].is_leading()).collect();
        assert_eq!(leaders.len(), 1, "seed {seed}");
        let killed = leaders[0];
        let after = start + Duration::from_secs(4);
        run(&mut machines, &[killed], after, after + Duration::from_secs(5), &mut rng);
        let replaced: Vec<usize> = (0..8).filter(|&n| n != killed && machines[n].is_leading()).collect();
        assert_eq!(replaced.len(), 1, "seed {seed}");
        assert!((0..8).filter(|&n| n != killed).all(|n| machines[n].term() == machines[replaced[0]].term()));
    }
}

#[test]
fn server_appoints_in_an_office_without_broadcast() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    let mut machine = Rendezvous::new(now, node("store-1"), OfficeType::WiFi, 0, &mut rng);
    assert_eq!(drain(&mut machine), []);
    let says = Event::ServerSays { term: 3, rendezvous_point: Some(node("store-2")) };
    machine.handle(now, says, &mut rng);
    assert_eq!(drain(&mut machine), [Output::Follow { leader: node("store-2"), term: 3 }]);
    machine.handle(now + BEACON_LOSS, Event::ReportUndelivered, &mut rng);
    assert_eq!(drain(&mut machine), [Output::ReportLost(3)]);
    machine.handle(now, Event::ServerSays { term: 4, rendezvous_point: Some(node("store-1")) }, &mut rng);
    assert_eq!(drain(&mut machine), [Output::Lead(4)]);
}

#[test]
fn server_decides_between_two_of_the_same_term_where_nobody_broadcasts() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    for me in ["store-1", "store-3"] {
        let mut machine = Rendezvous::new(now, node(me), OfficeType::WiFi, 0, &mut rng);
        machine.handle(now, Event::ServerSays { term: 1, rendezvous_point: Some(node(me)) }, &mut rng);
        assert!(machine.is_leading());
        let says = Event::ServerSays { term: 1, rendezvous_point: Some(node("store-2")) };
        machine.handle(now, says.clone(), &mut rng);
        assert_eq!(machine.leader(), Some(&node("store-2")));
        drain(&mut machine);
        machine.handle(now + BEACON_LOSS, says, &mut rng);
        machine.handle(now + BEACON_LOSS, Event::ReportUndelivered, &mut rng);
        assert_eq!(drain(&mut machine), [Output::ReportLost(1)], "its word is no sign of life");
    }
}

#[test]
fn role_that_is_handed_over_has_the_next_term() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    for (office_type, expected) in
        [(OfficeType::Wired, vec![Output::Lead(3), Output::Beacon(3)]), (OfficeType::WiFi, vec![Output::ReportLost(2)])]
    {
        let mut machine = Rendezvous::new(now, node("store-1"), office_type, 0, &mut rng);
        machine.handle(now, Event::HandedOver { term: 0 }, &mut rng);
        machine.handle(now, Event::Beacon { from: node("store-2"), term: 2 }, &mut rng);
        machine.handle(now, Event::HandedOver { term: 1 }, &mut rng);
        drain(&mut machine);
        machine.handle(now, Event::HandedOver { term: 2 }, &mut rng);
        assert_eq!(drain(&mut machine), expected);
    }
}

#[test]
fn lower_term_steps_down() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    let mut machine = Rendezvous::new(now, node("store-1"), OfficeType::Wired, 0, &mut rng);
    machine.handle_timeout(now + Duration::from_secs(5));
    assert!(machine.is_leading());
    machine.handle(now, Event::Beacon { from: node("store-2"), term: 2 }, &mut rng);
    assert_eq!(machine.leader(), Some(&node("store-2")));
}

#[test]
fn every_vpn_node_is_its_own() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    let mut machine = Rendezvous::new(now, node("store-1"), OfficeType::Vpn, 0, &mut rng);
    assert_eq!(drain(&mut machine), [Output::Lead(1)]);
    machine.handle(now, Event::Beacon { from: node("store-0"), term: 9 }, &mut rng);
    assert!(machine.is_leading());
}

#[test]
fn whoever_claims_the_last_term_is_replaced_like_anybody_else() {
    let mut rng = StdRng::seed_from_u64(1);
    let start = Instant::now();
    let mut machines: Vec<Rendezvous> =
        (1..=4).map(|n| Rendezvous::new(start, node(&format!("store-{n}")), OfficeType::Wired, 0, &mut rng)).collect();
    let claim = Event::Beacon { from: node("store-0"), term: Term::MAX };
    machines.iter_mut().for_each(|machine| machine.handle(start, claim.clone(), &mut rng));
    assert!(machines.iter().all(|machine| machine.leader() == Some(&node("store-0"))));
    run(&mut machines, &[], start, start + Duration::from_secs(5), &mut rng);
    let leader = machines.iter().position(Rendezvous::is_leading).unwrap();
    for (n, machine) in machines.iter().enumerate() {
        assert!(is_later(machine.term(), Term::MAX));
        assert!(n == leader || machine.leader() == Some(&machines[leader].me));
    }
    let claimed_anew = Event::Beacon { from: node("store-0"), term: Term::MAX };
    machines[leader].handle(start, claimed_anew, &mut rng);
    assert!(machines[leader].is_leading());
}

#[test]
fn of_two_terms_one_is_the_later_however_far_apart_they_are() {
    const HALF: Term = 1 << 63;
    for term in [1, 2, 7, HALF - 1, HALF, HALF + 1, Term::MAX - 1, Term::MAX] {
        for apart in [1, 2, HALF - 1, HALF, HALF + 1, Term::MAX - 1] {
            let other = term.wrapping_add(apart);
            assert_ne!(is_later(term, other), is_later(other, term), "{term} and {other}");
        }
    }
    assert!(!is_later(3, 3));
}

#[test]
fn rendezvous_points_that_were_told_terms_half_the_range_apart_become_one() {
    for apart in [1 << 62, 1 << 63, 3 << 62] {
        let (mut rng, start) = (StdRng::seed_from_u64(1), Instant::now());
        let told =
            |name, term| Rendezvous::new(start, node(name), OfficeType::Wired, term, &mut StdRng::seed_from_u64(1));
        let mut machines = [told("store-1", 7), told("store-2", 7 + apart)];
        for machine in &mut machines {
            machine.handle_timeout(start + LISTEN_AT_START * 2);
            assert!(machine.is_leading());
        }
        run(&mut machines, &[], start, start + Duration::from_secs(2), &mut rng);
        let leading = machines.iter().filter(|machine| machine.is_leading()).count();
        assert_eq!(leading, 1, "{apart:x} apart");
    }
}
