use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::chance::{Lot, skewed};
use super::money::{read, transact};
use super::{Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Action, Call, Step, Style};

/// Lists in use at each participant at the same time.
const LISTS: u64 = 10;
/// Appends to a list before another takes its place: whoever reads it reads all of it, and it stays short.
pub(super) const MOST_APPENDS: u64 = 32;
/// The most that a transaction does at one participant.
const MOST_STEPS: u64 = 2;
/// What each kind of work is of a hundred operations. The rest is interactive, participant after participant.
const ONE_SHOT: u32 = 35;
const SNAPSHOTS: u32 = 12;
const COMES_BACK: u32 = 8;
/// Of so many choices at the first participant, one is the hot list in any case.
const HOT_IN: u32 = 6;
/// Of so many reads, one is of the list that was there before.
const PREVIOUS_IN: u32 = 10;

/// Appends of values that are unique in the run, and reads, of lists at several participants. Lists with low numbers are
/// in use more than others, the first one of the first participant most.
#[derive(Default)]
pub(super) struct Append {
    lists: Arc<Mutex<Lists>>,
}

/// Where the lists are, for all clients: so all of them meet at the same ones.
#[derive(Default)]
struct Lists {
    values: u64,
    /// How often each place was appended to.
    appends: BTreeMap<(String, u64), u64>,
}

struct Writer {
    layout: Layout,
    random: StdRng,
    lists: Arc<Mutex<Lists>>,
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    /// Nothing but a look, so that clients find every participant there.
    fn opening(&self, layout: Layout) -> Vec<Step> {
        let names = layout.names().into_iter();
        names.map(|name| read((name, list(0, 0)))).collect()
    }

    fn client(&self, layout: Layout, _: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Writer {
            layout,
            random,
            lists: Arc::clone(&self.lists),
        })
    }
}

impl Work for Writer {
    fn next(&mut self) -> Request {
        let mut lot = Lot::draw(&mut self.random);
        let call = if lot.is(ONE_SHOT) {
            self.one_shot()
        } else if lot.is(SNAPSHOTS) {
            self.snapshot()
        } else if lot.is(COMES_BACK) {
            self.comes_back()
        } else {
            let names = self.some_names();
            transact(Style::Interactive, self.visits(&names))
        };
        call.into()
    }
}

impl Writer {
    /// Reads in it answer nothing, and lock all the same.
    fn one_shot(&mut self) -> Call {
        let names = self.some_names();
        let mut steps = self.visits(&names);
        if !steps.iter().any(|step| matches!(step.action, Action::Append(_))) {
            steps.push(self.append(&names[0]));
        }
        transact(Style::OneShot, steps)
    }

    /// Reads one list of every participant, and nothing else.
    fn snapshot(&mut self) -> Call {
        let names = self.layout.names();
        let read = names.iter().map(|name| self.read(name)).collect();
        transact(Style::Interactive, read)
    }

    /// Asks the first participant again after the others: its branch is made longer.
    fn comes_back(&mut self) -> Call {
        let mut names = self.some_names();
        if names.len() > 1 {
            names.push(names[0].clone());
        }
        transact(Style::Interactive, self.visits(&names))
    }

    /// Some of the participants in the order of their names, so that no two clients wait for each other.
    fn some_names(&mut self) -> Vec<String> {
        let mut names = self.layout.names();
        names.shuffle(&mut self.random);
        names.truncate(self.random.random_range(1..=names.len()));
        names.sort();
        names
    }

    /// A few steps at each of these.
    fn visits(&mut self, names: &[String]) -> Vec<Step> {
        let mut steps = Vec::new();
        for name in names {
            for _ in 0..self.random.random_range(1..=MOST_STEPS) {
                steps.push(match self.random.random() {
                    true => self.append(name),
                    false => self.read(name),
                });
            }
        }
        steps
    }

    fn append(&mut self, participant: &str) -> Step {
        let place = self.place(participant);
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.values += 1;
        let value = lists.values;
        let appends = lists.appends.entry((participant.to_owned(), place)).or_default();
        let turn = *appends / MOST_APPENDS;
        *appends += 1;
        Step {
            participant: participant.to_owned(),
            cell: list(place, turn),
            action: Action::Append(value),
        }
    }

    fn read(&mut self, participant: &str) -> Step {
        let place = self.place(participant);
        let previous = self.random.random_ratio(1, PREVIOUS_IN);
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let appends = lists.appends.get(&(participant.to_owned(), place)).copied();
        // The list that was appended to last, which may be full.
        let turn = appends.unwrap_or_default().saturating_sub(1) / MOST_APPENDS;
        let turn = turn.saturating_sub(u64::from(previous));
        read((participant.to_owned(), list(place, turn)))
    }

    fn place(&mut self, participant: &str) -> u64 {
        let at_hot = self
            .layout
            .names()
            .first()
            .is_some_and(|first| first == participant);
        match at_hot && self.random.random_ratio(1, HOT_IN) {
            true => 0,
            false => skewed(&mut self.random, LISTS),
        }
    }
}

fn list(place: u64, turn: u64) -> String {
    format!("list-{place}-{turn}")
}
