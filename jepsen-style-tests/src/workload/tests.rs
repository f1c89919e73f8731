//! That each workload asks for what it says, and for the same again if the seed is the same.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::{Timestamp, TransactionId};

use super::append::{Append, MOST_APPENDS};
use super::bank::Bank;
use super::booking::Booking;
use super::keys::Keys;
use super::register::Register;
use super::*;
use crate::history::{Action, Style, Tx};
use crate::random::Seed;

const LAYOUT: Layout = Layout {
    coordinators: 3,
    participants: 5,
    replaced: 0,
};
/// Operations that are drawn of each client: enough for what one in some hundreds is.
const DRAWN: usize = 2000;
const CLIENTS: usize = 4;

fn registers() -> Register {
    Register {
        now: || Timestamp::from_unix_ms(1_000),
    }
}

/// What clients do that take turns, and are always told that it committed.
fn drawn(workload: &dyn Workload, seed: u64) -> Vec<Request> {
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| workload.client(LAYOUT, number, Seed(seed).stream(&format!("client-{number}"))))
        .collect();
    let mut drawn = Vec::new();
    for turn in 0..CLIENTS * DRAWN {
        let client = &mut clients[turn % CLIENTS];
        let request = client.next();
        for ask in asks(&request) {
            client.told(&ask.call, Some(&Answer::Committed));
        }
        drawn.push(request);
    }
    drawn
}

fn asks(request: &Request) -> &[Ask] {
    match request {
        Request::One(ask) => std::slice::from_ref(ask),
        Request::Together(asks) => asks,
    }
}

fn all_asks(requests: &[Request]) -> Vec<&Ask> {
    requests.iter().flat_map(asks).collect()
}

fn members(call: &Call) -> BTreeSet<&str> {
    call.steps()
        .iter()
        .map(|step| step.participant.as_str())
        .collect()
}

fn is_read(step: &Step) -> bool {
    matches!(step.action, Action::Read { .. })
}

fn delta(step: &Step) -> i64 {
    match step.action {
        Action::Add { delta, .. } => delta,
        Action::Append(_) | Action::Read { .. } => 0,
    }
}

fn style(ask: &Ask) -> Option<Style> {
    match ask.call {
        Call::Transact { style, .. } => Some(style),
        Call::Query { .. } | Call::Abort { .. } => None,
    }
}

fn leaves(asks: &[&Ask]) -> [usize; 3] {
    let count = |is: fn(&Leaves) -> bool| {
        asks.iter()
            .filter(|ask| ask.leaves.as_ref().is_some_and(is))
            .count()
    };
    [
        count(|leaves| *leaves == Leaves::AfterBegin),
        count(|leaves| *leaves == Leaves::AfterCalls),
        count(|leaves| matches!(leaves, Leaves::Unanswered(_))),
    ]
}

#[test]
fn the_same_seed_is_the_same_work_and_another_is_other_work() {
    // Made anew for each: what clients share belongs to one run.
    let make: [fn() -> Box<dyn Workload>; 5] = [
        || Box::new(Append::default()),
        || Box::new(Bank),
        || Box::new(Booking),
        || Box::new(Keys),
        || Box::new(registers()),
    ];
    let names: Vec<_> = make.iter().map(|make| make().name()).collect();
    let all: Vec<_> = all().iter().map(|workload| workload.name()).collect();
    assert_eq!(names, all);
    for make in make {
        let [one, again, other] = [7, 7, 8].map(|seed| drawn(make().as_ref(), seed));
        let name = make().name();
        assert!(one == again, "{name}: the same seed gave other work");
        assert!(one != other, "{name}: every seed gives the same work");
    }
}

#[test]
fn every_participant_is_opened() {
    for workload in all() {
        let opening = workload.opening(LAYOUT);
        let opened: BTreeSet<_> = opening.iter().map(|step| step.participant.clone()).collect();
        let used: BTreeSet<_> = drawn(workload.as_ref(), 7)
            .iter()
            .flat_map(asks)
            .flat_map(|ask| ask.call.steps().iter().map(|step| step.participant.clone()))
            .collect();
        assert_eq!(opened, used, "{}", workload.name());
    }
}

#[test]
fn money_is_only_moved() {
    for workload in [&Bank as &dyn Workload, &Booking, &Keys, &registers()] {
        for ask in all_asks(&drawn(workload, 7)) {
            let total: i64 = ask.call.steps().iter().map(delta).sum();
            assert_eq!(total, 0, "{}: {ask:?}", workload.name());
        }
    }
}

#[test]
fn the_bank_has_transfers_of_every_size_audits_refusals_and_clients_that_go_away() {
    let requests = drawn(&Bank, 7);
    let asks = all_asks(&requests);
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut audits, mut refused, mut hot) = (0, 0, 0);
    for ask in &asks {
        let steps = ask.call.steps();
        if steps.iter().all(is_read) {
            assert_eq!(steps.len(), Bank.opening(LAYOUT).len());
            assert_eq!(style(ask), Some(Style::Interactive));
            audits += 1;
            continue;
        }
        *sizes.entry(members(&ask.call).len()).or_default() += 1;
        refused += usize::from(steps.iter().map(delta).any(|delta| delta < -100_000));
        let is_hot = |step: &Step| step.participant == "p1" && step.cell == "account-0";
        hot += usize::from(steps.iter().any(is_hot));
    }
    assert_eq!(sizes.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(sizes.values().all(|count| *count > DRAWN / 10), "{sizes:?}");
    assert!(audits > DRAWN / 10 && refused > DRAWN / 10, "{audits} {refused}");
    // Of 40 accounts, 8 at each participant, this one is in more than one in seven transfers.
    assert!(hot * 7 > asks.len(), "{hot} of {}", asks.len());
    assert!(
        leaves(&asks).iter().all(|count| *count > 0),
        "{:?}",
        leaves(&asks)
    );
    assert!(asks.iter().any(|ask| style(ask) == Some(Style::OneShot)));
}

#[test]
fn lists_get_unique_values_and_stay_short_and_are_read() {
    let requests = drawn(&Append::default(), 7);
    let mut values = BTreeSet::new();
    let mut lists: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let (mut one_shot, mut mixed, mut snapshots, mut comes_back) = (0, 0, 0, 0);
    for ask in all_asks(&requests) {
        let steps = ask.call.steps();
        for step in steps {
            if let Action::Append(value) = step.action {
                assert!(values.insert(value), "{value} again");
                *lists.entry((&step.participant, &step.cell)).or_default() += 1;
            }
        }
        let visits = steps
            .chunk_by(|one, next| one.participant == next.participant)
            .count();
        let interactive = style(ask) == Some(Style::Interactive);
        one_shot += usize::from(!interactive);
        mixed += usize::from(interactive && steps.iter().any(is_read) && !steps.iter().all(is_read));
        snapshots += usize::from(steps.iter().all(is_read) && members(&ask.call).len() == 5);
        comes_back += usize::from(interactive && visits > members(&ask.call).len());
    }
    let longest = lists.values().max().copied();
    assert_eq!(longest, Some(MOST_APPENDS));
    let hot = lists
        .keys()
        .filter(|(name, cell)| *name == "p1" && cell.starts_with("list-0-"))
        .count();
    assert!(hot > 10, "the hot list had {hot} turns");
    for count in [one_shot, mixed, snapshots, comes_back] {
        assert!(count > DRAWN / 10, "{one_shot} {mixed} {snapshots} {comes_back}");
    }
}

#[test]
fn keys_are_used_twice_at_once_through_two_nodes_and_again_and_for_other_requests() {
    let requests = drawn(&Keys, 7);
    let mut first: BTreeMap<&str, &[Step]> = BTreeMap::new();
    let (mut twice_at_once, mut two_requests_at_once, mut again, mut other) = (0, 0, 0, 0);
    for request in &requests {
        let keys: Vec<(&str, &[Step])> = asks(request).iter().map(|ask| keyed(&ask.call)).collect();
        if let [(key, one), (same, two)] = keys[..] {
            assert_eq!(key, same);
            assert!(!first.contains_key(key), "{key} is not new");
            let nodes: BTreeSet<_> = asks(request).iter().filter_map(|ask| ask.through).collect();
            assert_eq!(nodes.len(), 2);
            match one == two {
                true => twice_at_once += 1,
                false => two_requests_at_once += 1,
            }
        } else if let Some(steps) = first.get(keys[0].0) {
            match *steps == keys[0].1 {
                true => again += 1,
                false => other += 1,
            }
        }
        first.entry(keys[0].0).or_insert(keys[0].1);
    }
    for count in [twice_at_once, two_requests_at_once, again, other] {
        assert!(
            count > DRAWN / 10,
            "{twice_at_once} {two_requests_at_once} {again} {other}"
        );
    }
    assert!(leaves(&all_asks(&requests))[2] > 0);
}

fn keyed(call: &Call) -> (&str, &[Step]) {
    match call {
        Call::Transact {
            key: Some(key),
            steps,
            ..
        } => (key, steps),
        other => panic!("no key in {other:?}"),
    }
}

#[test]
fn every_node_is_asked_while_a_transaction_runs_and_some_are_aborted() {
    let requests = drawn(&registers(), 7);
    let (mut races, mut aborted, mut too_late, mut repeated, mut other, mut old) = (0, 0, 0, 0, 0, 0);
    let mut submitted: BTreeMap<Tx, &[Step]> = BTreeMap::new();
    let mut aborted_first = BTreeSet::new();
    for request in &requests {
        let asks = asks(request);
        let calls = || asks.iter().map(|ask| &ask.call);
        let nodes: BTreeSet<u64> = calls()
            .filter_map(|call| match call {
                Call::Query { node, .. } => Some(*node),
                Call::Transact { .. } | Call::Abort { .. } => None,
            })
            .collect();
        let ids: BTreeSet<Tx> = calls().filter_map(Call::transaction).collect();
        let id = *ids.first().unwrap();
        assert_eq!(ids.len(), 1, "{request:?}");
        let aborts = calls().filter(|call| matches!(call, Call::Abort { .. })).count();
        let transact = calls().find(|call| matches!(call, Call::Transact { .. }));
        match (transact, submitted.get(&id)) {
            (Some(_), Some(_)) | (None, _) if asks.len() > 1 => old += 1,
            (Some(call), Some(steps)) if call.steps() == *steps => repeated += 1,
            (Some(_), Some(_)) => other += 1,
            (Some(_), None) if asks.len() > 1 => {
                races += 1;
                aborted += aborts;
            }
            (Some(_), None) if aborted_first.contains(&id) => too_late += 1,
            (Some(_), None) => panic!("nobody asks about {request:?}"),
            (None, _) => assert!(aborted_first.insert(id)),
        }
        if asks.len() > 1 {
            assert_eq!(nodes, BTreeSet::from([1, 2, 3]), "{request:?}");
        }
        if let Some(call) = transact {
            submitted.entry(id).or_insert(call.steps());
        }
    }
    assert!(aborted > races / 4 && aborted < races / 2, "{aborted} of {races}");
    for count in [races, too_late, repeated, other, old] {
        assert!(count > DRAWN / 20, "{races} {too_late} {repeated} {other} {old}");
    }
}

#[test]
fn who_does_not_hear_the_outcome_asks_every_node() {
    let mut client = registers().client(LAYOUT, 0, Seed(7).stream("client-0"));
    let transaction = Some(Tx(TransactionId::new(Timestamp::from_unix_ms(1), 1)));
    let call = Call::Transact {
        transaction,
        style: Style::OneShot,
        key: None,
        steps: Vec::new(),
    };
    client.told(&call, None);
    let request = client.next();
    let asked: Vec<_> = asks(&request).iter().map(|ask| ask.call.transaction()).collect();
    assert_eq!(asked, [transaction; 3]);
}

#[test]
fn journeys_have_three_participants_are_given_back_and_some_cards_have_nothing() {
    let requests = drawn(&Booking, 7);
    let (mut booked, mut cancelled, mut audits, mut on_the_empty_card) = (0, 0, 0, 0);
    let mut taken: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for ask in all_asks(&requests) {
        let steps = ask.call.steps();
        assert_eq!(style(ask), Some(Style::Interactive));
        if steps.iter().all(is_read) {
            assert_eq!(steps.len(), Booking.opening(LAYOUT).len());
            audits += 1;
            continue;
        }
        assert_eq!(members(&ask.call), BTreeSet::from(["p1", "p2", "p3"]));
        match delta(&steps[1]) {
            -1 => booked += 1,
            1 => cancelled += 1,
            other => panic!("{other} seats"),
        }
        on_the_empty_card += usize::from(steps.iter().any(|step| step.cell == "card-7" && delta(step) < 0));
        for step in steps {
            *taken.entry((&step.participant, &step.cell)).or_default() -= delta(step);
        }
    }
    // Nothing is given back that was not booked.
    let given = |(cell, taken): (&(&str, &str), &i64)| {
        !cell.1.contains("taken") && *taken < 0 && !cell.1.contains("paid")
    };
    assert!(!taken.iter().any(given), "{taken:?}");
    for count in [booked, cancelled, audits, on_the_empty_card] {
        assert!(
            count > DRAWN / 20,
            "{booked} {cancelled} {audits} {on_the_empty_card}"
        );
    }
    let leaves = leaves(&all_asks(&requests));
    assert!(leaves.iter().all(|count| *count > 0), "{leaves:?}");
    let empty = Booking
        .opening(LAYOUT)
        .into_iter()
        .find(|step| step.cell == "card-7");
    assert_eq!(empty.as_ref().map(delta), Some(0));
}

#[test]
fn a_journey_that_was_not_given_back_is_tried_again() {
    let mut client = Booking.client(LAYOUT, 0, Seed(7).stream("client-0"));
    let (mut booked, mut tried) = (false, 0);
    for _ in 0..DRAWN {
        let request = client.next();
        let call = &asks(&request)[0].call;
        let books = call.steps().get(1).is_some_and(|step| delta(step) < 0);
        tried += usize::from(call.steps().get(1).is_some_and(|step| delta(step) > 0));
        // Nothing but the first booking ever commits.
        let answer = match books && !booked {
            true => Answer::Committed,
            false => Answer::Aborted("no".to_owned()),
        };
        booked |= books;
        client.told(call, Some(&answer));
    }
    assert!(tried > DRAWN / 10, "{tried}");
}
