//! What a seed stands for. Each seed draws its own sizes, times and rates, and its own subset of faults: a run with few
//! kinds of faults goes further with them than one that has a little of everything.

use super::{Fates, Fault, Harm, Knobs, Move, Schedule, Want, Work};
use crate::chance::Chance;
use crate::node::Node;

/// The schedule of a seed.
pub(crate) fn draw(seed: u64) -> Schedule {
    let knobs = draw_knobs(seed);
    let works = draw_works(seed, &knobs);
    let faults = draw_faults(seed, &knobs, &works);
    Schedule {
        seed,
        knobs,
        works,
        faults,
        fates: Fates::Drawn,
    }
}

/// One value of a few, or of a stretch whose ends are reached often.
fn draw_knobs(seed: u64) -> Knobs {
    let mut chance = Chance::of(seed, "knobs", 0);
    let some = |chance: &mut Chance, often: u64, high: u64| {
        if chance.permille(often) {
            chance.between(1, high)
        } else {
            0
        }
    };
    let heartbeat_ms = *chance.of_these(&[50, 100, 100, 250]);
    let delay_min_us = *chance.of_these(&[100, 500, 2_000]);
    let delay_max_us = delay_min_us * *chance.of_these(&[1, 2, 10, 40]);
    let sync_min_us = *chance.of_these(&[100, 500, 2_000]);
    let work_min_us = *chance.of_these(&[50, 500]);
    Knobs {
        coordinators: *chance.of_these(&[3, 3, 5]),
        participants: chance.between(2, 5),
        faults_until_ms: chance.between(8_000, 30_000),
        heartbeat_ms,
        election_ms: heartbeat_ms * 4,
        delay_min_us,
        delay_max_us,
        sync_min_us,
        sync_max_us: sync_min_us * *chance.of_these(&[1, 4, 20]),
        work_min_us,
        work_max_us: work_min_us * *chance.of_these(&[1, 10, 200]),
        apply_lag_us: *chance.of_these(&[0, 0, 1_000, 50_000, 900_000]),
        voting_ms: *chance.of_these(&[200, 1_000, 5_000]),
        attempt_ms: *chance.of_these(&[200, 500, 2_000]),
        pause_max_ms: *chance.of_these(&[100, 500]),
        call_ms: *chance.of_these(&[300, 1_000, 3_000]),
        inquiry_after_ms: *chance.of_these(&[100, 500, 2_000]),
        inquiry_pause_ms: *chance.of_these(&[200, 1_000]),
        window_ms: *chance.of_these(&[1_500, 3_000, 10_000, 86_400_000]),
        tick_ms: *chance.of_these(&[200, 500, 2_000]),
        tolerance_ms: *chance.of_these(&[1_000, 10_000, 60_000]),
        forget_pause_ms: *chance.of_these(&[10, 200, 2_000]),
        snapshot_every: *chance.of_these(&[10, 40, 200, 1_000]),
        in_flight: *chance.of_these(&[2, 1_000, 1_000]),
        completing: *chance.of_these(&[1, 1_000, 1_000]),
        branches_in_flight: *chance.of_these(&[2, 1_000, 1_000]),
        balance: *chance.of_these(&[10, 20, 1_000]),
        loss: some(&mut chance, 500, 80),
        repeat: some(&mut chance, 500, 80),
        hold: some(&mut chance, 400, 50),
        hold_max_ms: *chance.of_these(&[1_000, 5_000, 15_000]),
        drift_ppm: some(&mut chance, 300, 5_000),
        skew: some(&mut chance, 300, 200),
        clocks_put_right: chance.below(2),
        propose_timeout_ms: *chance.of_these(&[300, 1_000, 5_000, 5_000]),
    }
}

fn draw_works(seed: u64, knobs: &Knobs) -> Vec<Work> {
    let mut shape = Chance::of(seed, "works", 0);
    let transactions = shape.between(25, 130);
    let keys = shape.permille(500);
    let interactive = *shape.of_these(&[0, 150, 500]);
    // A rush finds races; a trickle finds what happens to one that is alone.
    let rush = shape.permille(300);
    let mut works = Vec::new();
    for number in 1..=transactions {
        let mut chance = Chance::of(seed, "work", number);
        let last = knobs.faults_until_ms.saturating_sub(1_000);
        let at_ms = match rush {
            true => chance.below(12) * last / 12 + chance.below(200),
            false => chance.below(last),
        };
        draw_transaction(
            number as u32,
            at_ms,
            keys,
            interactive,
            knobs,
            &mut chance,
            &mut works,
        );
    }
    works.sort_by_key(|work| work.at_ms);
    works
}

fn draw_transaction(
    number: u32,
    at_ms: u64,
    keys: bool,
    interactive: u64,
    knobs: &Knobs,
    chance: &mut Chance,
    works: &mut Vec<Work>,
) {
    let node = |chance: &mut Chance| chance.below(knobs.coordinators) as u8;
    let patience_ms = *chance.of_these(&[500, 3_000, 10_000]);
    let moves = draw_moves(knobs.participants, chance);
    let members: Vec<u8> = moves.iter().map(|(who, _)| *who).collect();
    let mut add = |chance: &mut Chance, at_ms: u64, transaction: u32, want: Want| {
        works.push(Work {
            at_ms,
            transaction,
            node: node(chance),
            patience_ms,
            want,
        });
    };
    if chance.permille(interactive) {
        let aborts = chance.permille(100);
        add(chance, at_ms, number, Want::Interactive { moves, aborts });
        return;
    }
    let key = (keys && chance.permille(300)).then_some(u64::from(number));
    let submit = |moves: Vec<(u8, Move)>| Want::Submit { moves, key };
    add(chance, at_ms, number, submit(moves.clone()));
    // The same again, at once and much later.
    if chance.permille(150) {
        let later = at_ms + chance.below(20);
        add(chance, later, number, submit(moves.clone()));
    }
    if chance.permille(150) {
        let later = at_ms + chance.below(8_000);
        add(chance, later, number, submit(moves.clone()));
    }
    // From another process, that has the key only.
    if key.is_some() && chance.permille(500) {
        let later = at_ms + *chance.of_these(&[1, 30, 3_000]);
        add(chance, later, number + 10_000, submit(moves.clone()));
    }
    // Another request under the same id or key.
    if chance.permille(40) {
        let later = at_ms + *chance.of_these(&[0, 2, 500]);
        let others = draw_moves(knobs.participants, chance);
        add(chance, later, number, submit(others));
    }
    // The same request under its id, then under a key that another one has.
    if keys && key.is_none() && chance.permille(80) {
        let taken = Some(u64::from(number) + 20_000);
        let others = draw_moves(knobs.participants, chance);
        let want = |moves, key| Want::Submit { moves, key };
        add(chance, at_ms, number + 20_000, want(others, taken));
        let later = at_ms + *chance.of_these(&[30, 1_000, 4_000, 9_000]);
        add(chance, later, number, want(moves.clone(), taken));
    }
    if chance.permille(60) {
        let later = at_ms + *chance.of_these(&[0, 5, 100, 2_000]);
        let members = if chance.permille(500) { members } else { Vec::new() };
        add(chance, later, number, Want::Abort { members });
    }
    if chance.permille(250) {
        let later = at_ms + *chance.of_these(&[5, 100, 1_000, 10_000]);
        add(chance, later, number, Want::Ask);
    }
}

/// A transfer between two, seldom with somebody who looks on or refuses.
fn draw_moves(participants: u64, chance: &mut Chance) -> Vec<(u8, Move)> {
    let mut order: Vec<u8> = (0..participants as u8).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, chance.below(place as u64 + 1) as usize);
    }
    let amount = chance.between(1, 8) as i64;
    let mut moves = vec![(order[0], Move::By(-amount)), (order[1], Move::By(amount))];
    for who in order.drain(..).skip(2) {
        match chance.below(20) {
            0..4 => moves.push((who, Move::Read)),
            4 => moves.push((who, Move::Refused)),
            _ => {}
        }
    }
    if chance.permille(40) {
        for (_, what) in &mut moves {
            *what = Move::Read;
        }
    }
    moves.sort_by_key(|(who, _)| *who);
    moves
}

fn draw_faults(seed: u64, knobs: &Knobs, works: &[Work]) -> Vec<Fault> {
    let mut chance = Chance::of(seed, "faults", 0);
    let kinds: Vec<u64> = (0..15).filter(|_| chance.permille(400)).collect();
    let mut faults = Vec::new();
    if kinds.is_empty() {
        return faults;
    }
    let count = chance.between(3, 24);
    for number in 0..count {
        let mut chance = Chance::of(seed, "fault", number);
        let at_ms = chance.between(200, knobs.faults_until_ms - 1_000);
        let kind = *chance.of_these(&kinds);
        if kind == 14 {
            draw_amnesia(at_ms, knobs, &mut chance, &mut faults);
            continue;
        }
        faults.push(Fault {
            at_ms,
            harm: draw_harm(kind, knobs, &mut chance),
        });
        if let Some(Fault {
            at_ms,
            harm: Harm::Cut { from, to, for_ms },
        }) = faults.last_mut()
        {
            (*from, *to) = draw_cut((*from, *to), (*at_ms, *for_ms), knobs, works, &mut chance);
        }
        // An old disk needs a copy first.
        if let Some(Fault {
            harm: Harm::FallBack { node, .. },
            ..
        }) = faults.last()
        {
            let node = *node;
            let before = *chance.of_these(&[5, 100, 1_000, 4_000]);
            faults.push(Fault {
                at_ms: at_ms.saturating_sub(before),
                harm: Harm::Copy { node },
            });
        }
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Between whom nothing passes, and which way: two servers, or an initiator that is at work and whom it calls.
fn draw_cut(
    (mut from, mut to): (Node, Node),
    (at_ms, for_ms): (u64, u64),
    knobs: &Knobs,
    works: &[Work],
    chance: &mut Chance,
) -> (Node, Node) {
    if chance.permille(300) {
        let stretch = at_ms.saturating_sub(200)..at_ms + for_ms;
        let works = works.iter().enumerate();
        let busy: Vec<(usize, u8)> = works
            .filter(|(_, work)| stretch.contains(&work.at_ms))
            .map(|(place, work)| (place, work.node % knobs.coordinators as u8))
            .collect();
        if !busy.is_empty() {
            let (place, called) = *chance.of_these(&busy);
            (from, to) = (Node::Initiator(place as u16), Node::Coordinator(called));
        }
    }
    if chance.permille(500) {
        (from, to) = (to, from);
    }
    (from, to)
}

/// A participant that loses its memory while everything that was said to it is said again, and another that is slow: so
/// the one is asked twice about what it has forgotten, while the votes of the other are awaited.
fn draw_amnesia(at_ms: u64, knobs: &Knobs, chance: &mut Chance, faults: &mut Vec<Fault>) {
    let forgetful = chance.below(knobs.participants);
    let slow = (forgetful + 1 + chance.below(knobs.participants - 1)) % knobs.participants;
    let (node, for_ms) = (Node::Participant(forgetful as u8), 1_500);
    let mut add = |at_ms, harm| faults.push(Fault { at_ms, harm });
    add(at_ms, Harm::Replay { node, for_ms });
    add(
        at_ms,
        Harm::Slow {
            node: Node::Participant(slow as u8),
            times: *chance.of_these(&[5, 50, 200]),
            for_ms,
        },
    );
    for crash in 1..=chance.between(1, 4) {
        add(
            at_ms + crash * 300,
            Harm::Crash {
                node,
                after: chance.below(6),
                down_ms: 1,
                keep: 0,
            },
        );
    }
}

fn draw_harm(kind: u64, knobs: &Knobs, chance: &mut Chance) -> Harm {
    let coordinator = Node::Coordinator(chance.below(knobs.coordinators) as u8);
    let participant = Node::Participant(chance.below(knobs.participants) as u8);
    let either = if chance.permille(500) {
        coordinator
    } else {
        participant
    };
    let other = match chance.permille(500) {
        true => Node::Coordinator(chance.below(knobs.coordinators) as u8),
        false => Node::Participant(chance.below(knobs.participants) as u8),
    };
    let down_ms = *chance.of_these(&[1, 50, 500, 3_000]);
    let for_ms = *chance.of_these(&[100, 1_000, 5_000]);
    let keep = *chance.of_these(&[0, 0, 300, 700, 1000]);
    let after = *chance.of_these(&[0, 1, 2, 3, 5, 8, 13, 30]);
    let crash = |node| Harm::Crash {
        node,
        after,
        down_ms,
        keep,
    };
    match kind {
        0 | 1 => crash(coordinator),
        2 | 3 => crash(participant),
        4 => Harm::CrashAll { down_ms },
        5 => Harm::FailSync {
            node: either,
            down_ms,
        },
        6 => Harm::Cut {
            from: coordinator,
            to: other,
            for_ms,
        },
        7 => Harm::Isolate {
            node: coordinator,
            for_ms,
        },
        8 => Harm::Isolate {
            node: participant,
            for_ms,
        },
        9 => Harm::Slow {
            node: either,
            times: *chance.of_these(&[5, 50]),
            for_ms,
        },
        10 => {
            // A day is for participants only: an id that a majority of wrong clocks let in is taken up when its time has
            // come, and nobody wants to wait for that.
            let by = match either {
                Node::Participant(_) => *chance.of_these(&[500, 5_000, 20_000, 86_400_000]),
                Node::Coordinator(_) | Node::Initiator(_) => *chance.of_these(&[500, 5_000, 20_000]),
            };
            let by_ms = if chance.permille(500) { by } else { -by };
            Harm::Jump { node: either, by_ms }
        }
        11 => Harm::FallBack {
            node: participant,
            down_ms,
        },
        12 => Harm::Restart {
            node: either,
            down_ms,
        },
        _ => Harm::Elect { node: coordinator },
    }
}
