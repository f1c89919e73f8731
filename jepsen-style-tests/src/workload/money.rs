//! What the workloads that move money from cell to cell have in common. Every transaction of theirs adds up to nothing,
//! so that the total of the opening is there for ever.

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::cluster::Layout;
use crate::history::{Action, Call, Step, Style};

/// Accounts at each participant.
pub(super) const ACCOUNTS: u64 = 8;
/// What is on each of them at first.
pub(super) const OPENING: i64 = 100;
/// The most that one transfer moves.
const MOST: i64 = 5;
/// More than there is anywhere.
const TOO_MUCH: i64 = 1_000_000;

/// Every account, participant by participant.
pub(super) fn accounts(layout: Layout) -> impl Iterator<Item = (String, String)> {
    let names = layout.names();
    names
        .into_iter()
        .flat_map(|name| (0..ACCOUNTS).map(move |number| (name.clone(), account(number))))
}

/// The name of an account.
pub(super) fn account(number: u64) -> String {
    format!("account-{number}")
}

/// What is on the accounts at first.
pub(super) fn opening(layout: Layout) -> Vec<Step> {
    accounts(layout)
        .map(|(participant, cell)| add(&participant, &cell, OPENING))
        .collect()
}

/// An amount that most accounts have.
pub(super) fn amount(random: &mut StdRng) -> i64 {
    random.random_range(1..=MOST)
}

/// An amount that no account has: whoever is to pay it votes No.
pub(super) fn too_much(random: &mut StdRng) -> i64 {
    TOO_MUCH + amount(random)
}

/// From the first of these to the others, so much to each.
pub(super) fn transfer(accounts: &[(String, String)], amount: i64) -> Vec<Step> {
    let others = accounts.len() as i64 - 1;
    let steps = accounts.iter().enumerate().map(|(place, (participant, cell))| {
        let delta = if place == 0 { -amount * others } else { amount };
        add(participant, cell, delta)
    });
    steps.collect()
}

/// Adds to a cell, which is never to be below zero.
pub(super) fn add(participant: &str, cell: &str, delta: i64) -> Step {
    Step {
        participant: participant.to_owned(),
        cell: cell.to_owned(),
        action: Action::Add { delta, floor: 0 },
    }
}

/// Reads a cell.
pub(super) fn read((participant, cell): (String, String)) -> Step {
    Step {
        participant,
        cell,
        action: Action::read(),
    }
}

/// A transaction whose id is given when it is carried out.
pub(super) fn transact(style: Style, steps: Vec<Step>) -> Call {
    Call::Transact {
        transaction: None,
        style,
        key: None,
        steps,
    }
}
