//! Elections of one and of two operators on a Lease in memory, on their own clocks.

use proptest::prelude::*;

use super::*;

/// The Lease as the API server keeps it.
#[derive(Default)]
struct Server {
    lease: Option<LeaseRecord>,
    writes: u64,
}

impl Server {
    fn answer(&mut self, identity: &str, action: Action) -> Event {
        let (holder, version, transitions) = match action {
            Action::Read => return Event::Read(self.lease.clone()),
            Action::Write { version, transitions, .. } => (identity, version, transitions),
            Action::Release { version, transitions } => ("", Some(version), transitions),
        };
        if self.lease.as_ref().map(|lease| lease.version.clone()) != version {
            return Event::Conflict;
        }
        self.writes += 1;
        let version = self.writes.to_string();
        let lease =
            LeaseRecord { holder: holder.to_owned(), duration: LEASE_DURATION, transitions, version: version.clone() };
        self.lease = Some(lease);
        Event::Written(version)
    }

    fn holder(&self) -> &str {
        self.lease.as_ref().map_or("", |lease| lease.holder.as_str())
    }
}

/// Lets the machine do all that is due now.
fn step(election: &mut Election, server: &mut Server, now: Moment) {
    while let Some(action) = election.poll(now) {
        let event = server.answer(&election.identity.clone(), action);
        election.handle(now, event);
    }
}

fn writes(election: &Election, now: Moment) -> bool {
    election.may_write_until().is_some_and(|until| now < until)
}

#[test]
fn a_free_lease_is_taken_at_once_and_renewed() {
    let start = Moment::now();
    let (mut election, mut server) = (Election::new("a", start), Server::default());
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        step(&mut election, &mut server, now);
        assert!(writes(&election, now), "second {second}");
    }
    assert_eq!(server.lease.unwrap().transitions, 0);
    assert_eq!(server.writes, 30);
}

#[test]
fn a_lease_that_is_renewed_is_never_taken_and_one_that_rests_is() {
    let start = Moment::now();
    let (mut a, mut b, mut server) = (Election::new("a", start), Election::new("b", start), Server::default());
    for second in 0..40 {
        let now = start + Duration::from_secs(second);
        step(&mut a, &mut server, now);
        step(&mut b, &mut server, now);
        assert!(!writes(&b, now));
    }
    let last_renewal = start + Duration::from_secs(39);
    let taken = (40..80).find(|second| {
        let now = start + Duration::from_secs(*second);
        step(&mut b, &mut server, now);
        writes(&b, now)
    });
    let taken = start + Duration::from_secs(taken.unwrap());
    assert!(
        taken + RETRY_PERIOD >= last_renewal + LEASE_DURATION
            && taken <= last_renewal + LEASE_DURATION + RETRY_PERIOD * 2
    );
    assert_eq!(server.lease.unwrap().transitions, 1);
}

#[test]
fn a_holder_that_slept_past_its_time_ends_without_a_request() {
    let start = Moment::now();
    let (mut election, mut server) = (Election::new("a", start), Server::default());
    step(&mut election, &mut server, start);
    let woken = start + WRITE_DURATION;
    assert!(!writes(&election, woken));
    assert_eq!(election.poll(woken), None);
    assert!(election.is_ended());
}

#[test]
fn a_renewal_counts_from_when_it_was_begun() {
    let start = Moment::now();
    let mut election = Election::new("a", start);
    assert_eq!(election.poll(start), Some(Action::Read));
    election.handle(start, Event::Read(None));
    assert!(matches!(election.poll(start), Some(Action::Write { version: None, taking: true, .. })));
    election.handle(start + Duration::from_secs(3), Event::Written("1".to_owned()));
    assert_eq!(election.may_write_until(), Some(start + WRITE_DURATION));
}

#[test]
fn a_failed_renewal_is_looked_up_before_the_next_one() {
    let start = Moment::now();
    let (mut election, mut server) = (Election::new("a", start), Server::default());
    step(&mut election, &mut server, start);
    let now = start + RETRY_PERIOD;
    let action = election.poll(now).unwrap();
    // It arrived, the answer did not.
    server.answer("a", action);
    election.handle(now, Event::Failed);
    let now = now + RETRY_PERIOD;
    step(&mut election, &mut server, now);
    assert_eq!(election.may_write_until(), Some(now + WRITE_DURATION));
}

#[test]
fn a_holder_that_finds_another_ends() {
    let start = Moment::now();
    let (mut election, mut server) = (Election::new("a", start), Server::default());
    step(&mut election, &mut server, start);
    let lease = server.lease.as_mut().unwrap();
    (lease.holder, lease.version) = ("b".to_owned(), "other".to_owned());
    step(&mut election, &mut server, start + RETRY_PERIOD);
    assert!(election.is_ended());
    assert_eq!(election.may_write_until(), None);
}

#[test]
fn a_holder_whose_lease_was_edited_by_somebody_goes_on() {
    let start = Moment::now();
    let (mut election, mut server) = (Election::new("a", start), Server::default());
    step(&mut election, &mut server, start);
    server.lease.as_mut().unwrap().version = "labelled".to_owned();
    let now = start + RETRY_PERIOD;
    step(&mut election, &mut server, now);
    assert_eq!(election.may_write_until(), Some(now + WRITE_DURATION));
    assert_eq!(server.holder(), "a");
}

#[test]
fn a_lease_is_given_back_at_the_end_and_taken_at_once_by_another() {
    let start = Moment::now();
    let (mut a, mut b, mut server) = (Election::new("a", start), Election::new("b", start), Server::default());
    step(&mut a, &mut server, start);
    step(&mut b, &mut server, start);
    a.handle(start, Event::Stop);
    assert_eq!(a.may_write_until(), None);
    step(&mut a, &mut server, start);
    assert!(a.is_ended());
    assert_eq!(server.holder(), "");
    step(&mut b, &mut server, start + RETRY_PERIOD);
    assert_eq!(server.holder(), "b");
}

#[test]
fn who_waits_for_another_is_told_apart_from_who_cannot_read_or_take_the_lease() {
    let start = Moment::now();
    let (mut a, mut b, mut server) = (Election::new("a", start), Election::new("b", start), Server::default());
    assert_eq!(a.standing(false), Standing::Unknown);
    assert_eq!(a.poll(start), Some(Action::Read));
    a.handle(start, Event::Read(None));
    assert!(a.poll(start).is_some(), "it is missing, and may not be made");
    a.handle(start, Event::Failed);
    assert_eq!((a.standing(false), a.standing(true)), (Standing::Unknown, Standing::Unknown));
    let later = start + RETRY_PERIOD;
    step(&mut a, &mut server, later);
    step(&mut b, &mut server, later);
    assert_eq!((a.standing(true), b.standing(true)), (Standing::Leads, Standing::Waits));
    assert_eq!(b.poll(later + RETRY_PERIOD), Some(Action::Read));
    b.handle(later + RETRY_PERIOD, Event::Failed);
    assert_eq!((a.standing(false), b.standing(false)), (Standing::Leads, Standing::Unknown));
}

#[test]
fn who_waits_ends_without_a_write() {
    let start = Moment::now();
    let mut election = Election::new("a", start);
    election.handle(start, Event::Stop);
    assert!(election.is_ended());
}

#[derive(Debug, Clone)]
enum Fate {
    Runs,
    Sleeps,
    LosesRequest,
    LosesAnswer,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Runs), 3 => Just(Fate::Sleeps), 1 => Just(Fate::LosesRequest), 1 => Just(Fate::LosesAnswer)]
}

proptest! {
    #[test]
    fn two_operators_never_write_at_the_same_time(fates in proptest::collection::vec((fate(), fate(), 200_u64..4000), 1..120)) {
        let start = Moment::now();
        let mut server = Server::default();
        let mut operators = [Election::new("a", start), Election::new("b", start)];
        let mut now = start;
        for (a, b, milliseconds) in fates {
            now += Duration::from_millis(milliseconds);
            for (election, fate) in operators.iter_mut().zip([a, b]) {
                if matches!(fate, Fate::Sleeps) { continue; }
                while let Some(action) = election.poll(now) {
                    let event = match fate {
                        Fate::LosesRequest => Event::Failed,
                        Fate::LosesAnswer => { server.answer(&election.identity.clone(), action); Event::Failed }
                        _ => server.answer(&election.identity.clone(), action),
                    };
                    election.handle(now, event);
                }
                // Who ended starts anew as another process.
                if election.is_ended() { *election = Election::new(format!("{}'", election.identity), now); }
            }
            prop_assert!(!(writes(&operators[0], now) && writes(&operators[1], now)));
        }
    }
}
