//! Effects under ids that no line of the history has.
//!
//! Who submits under an idempotency key hears the transaction's id with its outcome, and not before. So the effects of a
//! key that nobody heard of stand under an id of which the history has nothing. One key is one transaction: it accounts
//! for one such id at most, for none if it was told for an id of its own, and a request that was refused accounts for
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Case;
use super::told::{Attempt, Transactions, is_read, same_request};
use crate::evidence::{EffectEvidence, ParticipantEvidence};
use crate::history::{Call, Kind, Step, Tx};

/// A run may be this long. What is remembered for longer is not forgotten in it.
const LONG_MS: u64 = 12 * 3_600_000;

/// The ids with effects that the history does not have.
pub(super) struct Nameless<'a> {
    /// Whose effects nothing accounts for, with where they are.
    pub(super) from_nowhere: BTreeMap<Tx, BTreeSet<&'a str>>,
    /// Those of them that were asked for under keys that stand for something else, or that were refused.
    pub(super) beside_keys: BTreeMap<Tx, BTreeSet<&'a str>>,
    /// How many were accounted for.
    pub(super) accounted: u64,
    /// How many could only be accounted for if keys were forgotten in between, which is not known.
    pub(super) perhaps: u64,
}

/// What was asked for under one key.
#[derive(Default)]
struct Key<'a> {
    /// The transactions that it was told for.
    told: BTreeSet<Tx>,
    /// Those whose outcome nobody heard.
    unheard: Vec<&'a [Step]>,
    requests: Vec<&'a [Step]>,
}

/// The effects under one id.
type Effects<'a> = Vec<(&'a str, &'a EffectEvidence)>;

impl<'a> Nameless<'a> {
    pub(super) fn of(
        case: &Case<'a>,
        transactions: &Transactions<'a>,
        participants: &'a [(String, &'a ParticipantEvidence)],
    ) -> Self {
        let mut unknown: BTreeMap<Tx, Effects<'a>> = BTreeMap::new();
        for (name, participant) in participants {
            let effects = participant.effects.iter();
            for effect in effects.filter(|effect| !transactions.known.contains_key(&effect.transaction)) {
                let one = unknown.entry(effect.transaction).or_default();
                one.push((name.as_str(), effect));
            }
        }
        unknown.retain(|_, effects| !asks(&case.evidence.opening, effects));
        let keys = keys(transactions);
        let window = case.evidence.retention_ms;
        let (left, accounted) = account(&unknown, &keys, window.unwrap_or(u64::MAX));
        let mut found = Self {
            from_nowhere: BTreeMap::new(),
            beside_keys: BTreeMap::new(),
            accounted,
            perhaps: 0,
        };
        // As if everything had been forgotten at once.
        let forgetful = match window {
            Some(_) => left.clone(),
            None => account(&unknown, &keys, 0).0,
        };
        for tx in left {
            if !forgetful.contains(&tx) {
                found.perhaps += 1;
                continue;
            }
            let effects = &unknown[&tx];
            let places = effects.iter().map(|(name, _)| *name).collect();
            found.from_nowhere.insert(tx, places);
            let under: BTreeSet<&str> = keys
                .iter()
                .filter(|(_, key)| key.requests.iter().any(|request| asks(request, effects)))
                .filter_map(|(name, _)| *name)
                .collect();
            if !under.is_empty() {
                found.beside_keys.insert(tx, under);
            }
        }
        found
    }
}

/// What was asked for by key. What has no key and no id is for itself.
fn keys<'a>(transactions: &Transactions<'a>) -> Vec<(Option<&'a str>, Key<'a>)> {
    let mut keys: BTreeMap<&str, Key<'a>> = BTreeMap::new();
    let mut alone = Vec::new();
    let named = transactions.known.values().flat_map(|known| &known.attempts);
    for attempt in named.chain(&transactions.nameless) {
        let one = match key(attempt) {
            Some(name) => keys.entry(name).or_default(),
            None if attempt.call().transaction().is_some() => continue,
            None => {
                alone.push((None, Key::default()));
                match alone.last_mut() {
                    Some((_, one)) => one,
                    None => continue,
                }
            }
        };
        let steps = attempt.call().steps();
        one.requests.push(steps);
        match attempt.call().transaction() {
            Some(tx) => drop(one.told.insert(tx)),
            None if attempt.kind() == Kind::Fail => {}
            None => one.unheard.push(steps),
        }
    }
    let keyed = keys.into_iter().map(|(name, key)| (Some(name), key));
    keyed.chain(alone).collect()
}

fn key<'a>(attempt: &Attempt<'a>) -> Option<&'a str> {
    match attempt.call() {
        Call::Transact { key, .. } => key.as_deref(),
        Call::Query { .. } | Call::Abort { .. } => None,
    }
}

/// Finds for as many ids as can be a key that accounts for each. Says which are left, and how many are not.
fn account(
    unknown: &BTreeMap<Tx, Effects<'_>>,
    keys: &[(Option<&str>, Key<'_>)],
    window_ms: u64,
) -> (BTreeSet<Tx>, u64) {
    // A key that is forgotten in the run may be used again, and is another one then.
    let lives = |key: &Key<'_>| match window_ms {
        ..LONG_MS => key.unheard.len(),
        _ => key.unheard.len().min(1),
    };
    let slots: Vec<&Key<'_>> = keys
        .iter()
        .flat_map(|(_, key)| std::iter::repeat_n(key, lives(key)))
        .collect();
    let mut matching = Matching {
        candidates: Vec::new(),
        taken_by: vec![None; slots.len()],
    };
    for (tx, effects) in unknown {
        let fits = |key: &&Key<'_>| {
            key.told.iter().all(|told| apart_ms(*told, *tx) >= window_ms)
                && key.unheard.iter().any(|request| asks(request, effects))
        };
        let fitting = slots.iter().enumerate().filter(|(_, key)| fits(key));
        matching
            .candidates
            .push(fitting.map(|(place, _)| place).collect());
    }
    let mut left = BTreeSet::new();
    for (number, tx) in unknown.keys().enumerate() {
        if !matching.place(number) {
            left.insert(*tx);
        }
    }
    let accounted = (unknown.len() - left.len()) as u64;
    (left, accounted)
}

/// So far apart were two ids made.
pub(super) fn apart_ms(one: Tx, other: Tx) -> u64 {
    let [one, other] = [one, other].map(|tx| tx.0.timestamp().unix_ms());
    one.abs_diff(other)
}

/// Ids and the keys that account for them, one each.
struct Matching {
    /// By id, the slots that would do.
    candidates: Vec<Vec<usize>>,
    taken_by: Vec<Option<usize>>,
}

impl Matching {
    /// Finds a slot for this one. Those before it keep one, though perhaps another: along a shortest way on which each
    /// takes the slot of the next.
    fn place(&mut self, newcomer: usize) -> bool {
        let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut waiting = std::collections::VecDeque::from([newcomer]);
        while let Some(number) = waiting.pop_front() {
            for slot in &self.candidates[number].clone() {
                if came_from.contains_key(slot) {
                    continue;
                }
                came_from.insert(*slot, number);
                match self.taken_by[*slot] {
                    Some(owner) => waiting.push_back(owner),
                    None => {
                        self.take(*slot, &came_from);
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Gives this slot to whoever came upon it, whose slot goes to whoever came upon that, and so on.
    fn take(&mut self, mut slot: usize, came_from: &BTreeMap<usize, usize>) {
        while let Some(number) = came_from.get(&slot) {
            let before = self.taken_by.iter().position(|owner| owner == &Some(*number));
            self.taken_by[slot] = Some(*number);
            let Some(before) = before else { return };
            slot = before;
        }
    }
}

/// Whether all these effects are parts of a request.
fn asks(request: &[Step], effects: &Effects<'_>) -> bool {
    effects
        .iter()
        .all(|(name, effect)| is_part(name, request, &effect.steps))
}

/// Whether what a participant applied is its part of a request.
pub(super) fn is_part(name: &str, request: &[Step], applied: &[Step]) -> bool {
    let own: Vec<Step> = request
        .iter()
        .filter(|step| step.participant == name && !is_read(step))
        // A participant does not say its own name.
        .map(|step| Step {
            participant: String::new(),
            ..step.clone()
        })
        .collect();
    let applied: Vec<Step> = applied
        .iter()
        .filter(|step| !is_read(step))
        .map(|step| Step {
            participant: String::new(),
            ..step.clone()
        })
        .collect();
    let takes_part = request.iter().any(|step| step.participant == name);
    takes_part && same_request(&own, &applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, and by trying all ways.
    #[test]
    fn as_many_as_can_be_are_placed() {
        let place_all = |candidates: &[&[usize]], slots| {
            let mut matching = Matching {
                candidates: candidates.iter().map(|slots| slots.to_vec()).collect(),
                taken_by: vec![None; slots],
            };
            let placed = (0..candidates.len())
                .filter(|number| matching.place(*number))
                .count();
            let owners = matching.taken_by.iter().flatten();
            assert_eq!(owners.clone().collect::<BTreeSet<_>>().len(), placed);
            assert_eq!(owners.count(), placed);
            for (slot, owner) in matching.taken_by.iter().enumerate() {
                assert!(owner.is_none_or(|owner| candidates[owner].contains(&slot)));
            }
            placed
        };
        assert_eq!(place_all(&[&[0, 1], &[0]], 2), 2);
        assert_eq!(place_all(&[&[0], &[0]], 1), 1);
        assert_eq!(place_all(&[&[0, 1], &[0, 2], &[0], &[1]], 3), 3);
        assert_eq!(place_all(&[&[0, 1], &[1, 2], &[0], &[1]], 3), 3);
        assert_eq!(place_all(&[&[]], 0), 0);
    }
}
