//! What holders are told, and when.

use super::super::event::Event;
use super::super::fixture::{CHUNKS, client, drain, node, plan, planned, prepare, start, steered, take_plan};
use super::*;
use crate::distribution::Priority;
use crate::message::{Message, TransferId};
use crate::office::OfficeType;
use crate::plan::Plan;

const CEILING: u64 = 8_000_000;

/// A node of a VPN office that fetches two packages from its parent office.
fn fetching_two(ceiling: u64) -> (Client, Instant, Plan, [TransferId; 2]) {
    let (mut client, now) = client(OfficeType::Vpn);
    let packages = vec![planned("one", Priority::Normal), planned("two", Priority::Normal)];
    let digests = [packages[0].digest, packages[1].digest];
    let mut plan = plan(OfficeType::Vpn, packages);
    plan.background_bits_per_second_max = ceiling;
    take_plan(&mut client, now, &mut plan);
    let transfers = digests.map(|digest| {
        prepare(&mut client, now, digest, 0);
        start(&mut client, now, node("central", "central-1"), ContentClass::Background, digest)
    });
    (client, now, plan, transfers)
}

/// A node of a wired office that fetches a package of normal priority from a peer, and is to fetch an urgent one.
fn fetching_beside_urgent() -> (Client, Instant, Plan, TransferId) {
    let (mut client, now) = client(OfficeType::Wired);
    let packages = vec![planned("urgent", Priority::High), planned("other", Priority::Normal)];
    let [urgent, other] = [packages[0].digest, packages[1].digest];
    let mut plan = plan(OfficeType::Wired, packages);
    take_plan(&mut client, now, &mut plan);
    prepare(&mut client, now, other, 0);
    let transfer = start(&mut client, now, node("store", "store-2"), ContentClass::Foreground, other);
    assert_eq!(steered(&mut client), [], "nothing urgent is fetched yet");
    prepare(&mut client, now, urgent, 0);
    (client, now, plan, transfer)
}

fn limited(bits_per_second: u64) -> TransferPace {
    TransferPace { bits_per_second, makes_way: false }
}

type Asked = Vec<(TransferId, TransferPace)>;
type Steered = Vec<(TransferId, ControlSignal)>;

/// The paces with which transfers were asked for, and what holders were told since.
fn asked_and_steered(client: &mut Client) -> (Asked, Steered) {
    let (mut asked, mut steered) = (Vec::new(), Vec::new());
    for output in drain(client) {
        match output {
            Output::Send { message: Message::Want(want), .. } => asked.push((want.transfer, want.pace)),
            Output::Steer { transfer, signal } => steered.push((transfer, signal)),
            _ => {}
        }
    }
    (asked, steered)
}

fn makes_way(transfer: TransferId) -> Vec<(TransferId, ControlSignal)> {
    vec![(transfer, ControlSignal::Class(ContentClass::Background))]
}

fn goes_on(transfer: TransferId) -> Vec<(TransferId, ControlSignal)> {
    vec![(transfer, ControlSignal::Class(ContentClass::Foreground))]
}

#[test]
fn ceiling_is_divided_among_the_transfers_that_run() {
    let (mut client, now, _, [one, two]) = fetching_two(CEILING);
    let rate = ControlSignal::Rate;
    let (asked, steered_first) = asked_and_steered(&mut client);
    assert_eq!(asked, [(one, limited(CEILING)), (two, limited(CEILING / 2))], "the first byte keeps to its share");
    assert_eq!(steered_first, [(one, rate(CEILING / 2))]);
    client.handle(now, Event::TransferEnded { transfer: one, failure: None });
    assert_eq!(steered(&mut client), [(one, ControlSignal::Cancel), (two, rate(CEILING))]);
}

#[test]
fn paused_package_leaves_its_share_to_the_others() {
    let (mut client, now, mut plan, [one, two]) = fetching_two(CEILING);
    steered(&mut client);
    plan.packages[1].paused = true;
    take_plan(&mut client, now, &mut plan);
    assert_eq!(steered(&mut client), [(two, ControlSignal::Pause), (one, ControlSignal::Rate(CEILING))]);
    plan.packages[1].paused = false;
    take_plan(&mut client, now, &mut plan);
    assert_eq!(steered(&mut client), [(two, ControlSignal::Resume), (one, ControlSignal::Rate(CEILING / 2))]);
}

#[test]
fn edit_of_the_ceiling_is_told_at_once_and_only_when_it_changes_something() {
    let (mut client, now, mut plan, [one, two]) = fetching_two(0);
    take_plan(&mut client, now, &mut plan);
    assert_eq!(steered(&mut client), [], "without a ceiling nothing is said");
    for ceiling in [CEILING, 1, 0] {
        plan.background_bits_per_second_max = ceiling;
        take_plan(&mut client, now, &mut plan);
        let share = if ceiling == 1 { 1 } else { ceiling / 2 };
        assert_eq!(steered(&mut client), [(one, ControlSignal::Rate(share)), (two, ControlSignal::Rate(share))]);
        take_plan(&mut client, now, &mut plan);
        assert_eq!(steered(&mut client), [], "the same again");
    }
}

#[test]
fn transfer_makes_way_until_the_more_urgent_package_is_whole() {
    let (mut client, now, plan, transfer) = fetching_beside_urgent();
    assert_eq!(steered(&mut client), makes_way(transfer));
    let urgent_transfer =
        start(&mut client, now, node("store", "store-3"), ContentClass::Foreground, plan.packages[0].digest);
    for index in 0..CHUNKS {
        assert_eq!(steered(&mut client), []);
        client.handle(now, Event::ChunkStored { transfer: urgent_transfer, index });
    }
    assert_eq!(steered(&mut client), goes_on(transfer));
}

#[test]
fn transfer_goes_on_when_the_more_urgent_package_is_paused_or_gone() {
    for removed in [false, true] {
        let (mut client, now, mut plan, transfer) = fetching_beside_urgent();
        assert_eq!(steered(&mut client), makes_way(transfer));
        if removed {
            plan.packages.remove(0);
        } else {
            plan.packages[0].paused = true;
        }
        take_plan(&mut client, now, &mut plan);
        assert_eq!(steered(&mut client), goes_on(transfer));
    }
}

#[test]
fn transfer_goes_on_when_its_own_package_becomes_as_urgent() {
    let (mut client, now, mut plan, transfer) = fetching_beside_urgent();
    assert_eq!(steered(&mut client), makes_way(transfer));
    plan.packages[1].priority = Priority::High;
    take_plan(&mut client, now, &mut plan);
    assert_eq!(steered(&mut client), goes_on(transfer));
}

#[test]
fn transfer_that_begins_beside_a_more_urgent_package_makes_way_at_once() {
    let (mut client, now, plan, first) = fetching_beside_urgent();
    client.handle(now, Event::TransferEnded { transfer: first, failure: None });
    steered(&mut client);
    let digest = plan.packages[1].digest;
    let next = start(&mut client, now, node("store", "store-2"), ContentClass::Foreground, digest);
    let pace = TransferPace { bits_per_second: 0, makes_way: true };
    assert_eq!(asked_and_steered(&mut client), (vec![(next, pace)], vec![]), "from the first byte on");
}

#[test]
fn transit_copy_is_made_way_for_only_while_something_of_it_is_on_its_way() {
    let (mut client, now, mut plan, transfer) = fetching_beside_urgent();
    steered(&mut client);
    let urgent = plan.packages[0].digest;
    plan.packages[0].target = false;
    take_plan(&mut client, now, &mut plan);
    assert_eq!(steered(&mut client), goes_on(transfer));
    let urgent_transfer = start(&mut client, now, node("store", "store-3"), ContentClass::Foreground, urgent);
    assert_eq!(steered(&mut client), makes_way(transfer));
    client.handle(now, Event::TransferEnded { transfer: urgent_transfer, failure: None });
    let ended = vec![(urgent_transfer, ControlSignal::Cancel)];
    assert_eq!(steered(&mut client), [ended, goes_on(transfer)].concat());
}
