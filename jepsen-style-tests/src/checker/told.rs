//! A history by transaction: who asked for it, and everybody who saw how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Case;
use crate::history::{Action, Answer, Call, Event, Kind, Step, Tx};
use crate::store::LOCKED;

/// Every transaction that anybody knows of.
pub(super) struct Transactions<'a> {
    /// By their ids.
    pub(super) known: BTreeMap<Tx, Transaction<'a>>,
    /// Transactions that were asked for, and nobody was told their ids.
    pub(super) nameless: Vec<Attempt<'a>>,
}

/// One transaction.
#[derive(Default)]
pub(super) struct Transaction<'a> {
    /// Every time that it was asked for.
    pub(super) attempts: Vec<Attempt<'a>>,
    /// Queries and aborts.
    pub(super) questions: Vec<Attempt<'a>>,
    /// Whoever saw a decision, those in the history first and in its order.
    pub(super) sightings: Vec<Sighting<'a>>,
}

/// An operation of the history.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) invoked: &'a Event,
    pub(super) completed: Option<&'a Event>,
}

/// Which way it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Commit,
    Abort,
}

/// A decision, as somebody has it.
#[derive(Clone, Copy)]
pub(super) struct Sighting<'a> {
    pub(super) way: Way,
    pub(super) at: At<'a>,
}

/// Who has a decision.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    /// A client was told, in this line of the history.
    Client(&'a Event),
    /// A node answers so afterwards.
    Node(u64),
    /// It is in a participant's journal.
    Journal(&'a str),
    /// A participant has applied it.
    Applied(&'a str),
}

/// How a transaction ended, all things considered. Whether they agree is for one checker to say, not for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    Aborted,
    Unknown,
}

impl<'a> Attempt<'a> {
    /// Whether its client went away on purpose, so that it waited for no answer.
    pub(super) fn left(&self) -> bool {
        let error = self.completed.and_then(|event| event.error.as_deref());
        error.is_some_and(|error| error.contains("went away"))
    }

    /// Whether a store refused it in the end, because of a lock that it had waited for.
    pub(super) fn met_a_lock(&self) -> bool {
        let Some(event) = self.completed else { return false };
        let aborted = match &event.answer {
            Some(Answer::Aborted(reason)) => reason.contains(LOCKED),
            Some(Answer::Committed | Answer::Undecided | Answer::Expired) | None => false,
        };
        aborted || event.error.as_deref().is_some_and(|error| error.contains(LOCKED))
    }

    /// Whether the cluster refused it in the end, after one node that was asked alone had not answered. What became of
    /// the first call is not known, but somebody was there to ask.
    pub(super) fn refused_later(&self) -> bool {
        let error = self.completed.and_then(|event| event.error.as_deref());
        error.is_some_and(|error| error.contains("; then it was refused: "))
    }

    /// What was asked, with what was read if it completed.
    pub(super) fn call(&self) -> &'a Call {
        self.completed.map_or(&self.invoked.call, |event| &event.call)
    }

    /// How it completed. One that did not is as good as unknown.
    pub(super) fn kind(&self) -> Kind {
        match self.completed.map(|event| event.kind) {
            Some(Kind::Ok) => Kind::Ok,
            Some(Kind::Fail) => Kind::Fail,
            Some(Kind::Info | Kind::Invoke) | None => Kind::Info,
        }
    }

    /// What was told, and where.
    pub(super) fn told(&self) -> Option<(&'a Answer, &'a Event)> {
        let event = self
            .completed
            .filter(|event| matches!(event.kind, Kind::Ok | Kind::Fail))?;
        Some((event.answer.as_ref()?, event))
    }

    /// The decision that was told, and where.
    pub(super) fn decision(&self) -> Option<(Way, &'a Event)> {
        let (answer, event) = self.told()?;
        Some((way(answer)?, event))
    }

    /// The line to point at.
    pub(super) fn line(&self) -> u64 {
        self.completed.unwrap_or(self.invoked).index
    }
}

impl<'a> Transactions<'a> {
    /// Everything that history and evidence say.
    pub(super) fn of(case: &Case<'a>) -> Self {
        let mut found = Self {
            known: BTreeMap::new(),
            nameless: Vec::new(),
        };
        for (invoked, completed) in case.history.operations() {
            let attempt = Attempt { invoked, completed };
            let Some(tx) = attempt.call().transaction() else {
                found.nameless.push(attempt);
                continue;
            };
            let transaction = found.known.entry(tx).or_default();
            match attempt.call() {
                Call::Transact { .. } => transaction.attempts.push(attempt),
                Call::Query { .. } | Call::Abort { .. } => transaction.questions.push(attempt),
            }
        }
        for transaction in found.known.values_mut() {
            transaction.listen();
        }
        found.look(case);
        found
    }

    /// Adds what nodes and participants have of the transactions of the history.
    fn look(&mut self, case: &Case<'a>) {
        let mut see = |tx: &Tx, way, at| {
            if let Some(transaction) = self.known.get_mut(tx) {
                transaction.sightings.push(Sighting { way, at });
            }
        };
        for (node, outcomes) in &case.evidence.outcomes {
            for (tx, answer) in outcomes {
                if let Some(way) = way(answer) {
                    see(tx, way, At::Node(*node));
                }
            }
        }
        for (name, participant) in &case.evidence.participants {
            for (tx, ends) in &participant.terminal {
                for way in ends.iter().filter_map(way) {
                    see(tx, way, At::Journal(name));
                }
            }
            for effect in &participant.effects {
                see(&effect.transaction, Way::Commit, At::Applied(name));
            }
        }
    }
}

impl<'a> Transaction<'a> {
    /// Takes what clients were told.
    fn listen(&mut self) {
        let mut sightings: Vec<Sighting<'a>> = self
            .operations()
            .iter()
            .filter_map(|operation| operation.decision())
            .map(|(way, event)| Sighting {
                way,
                at: At::Client(event),
            })
            .collect();
        sightings.sort_by_key(|sighting| sighting.event());
        self.sightings = sightings;
    }

    /// How it ended.
    pub(super) fn fate(&self) -> Fate {
        let saw = |way| self.sightings.iter().any(|sighting| sighting.way == way);
        let refused = !self.attempts.is_empty() && self.attempts.iter().all(|a| a.kind() == Kind::Fail);
        match (saw(Way::Commit), saw(Way::Abort) || refused) {
            (true, _) => Fate::Committed,
            (false, true) => Fate::Aborted,
            (false, false) => Fate::Unknown,
        }
    }

    /// Whether a client was told, or anybody but the participants' effects says, that it committed.
    pub(super) fn first(&self, way: Way) -> Option<&Sighting<'a>> {
        self.sightings.iter().find(|sighting| sighting.way == way)
    }

    /// The first line that told a client so.
    pub(super) fn told(&self, way: Way) -> Option<&'a Event> {
        self.sightings.iter().find_map(|sighting| match sighting.at {
            At::Client(event) if sighting.way == way => Some(event),
            _ => None,
        })
    }

    /// The different requests that it was asked for with. More than one is a mistake of the client.
    pub(super) fn requests(&self) -> Vec<&'a [Step]> {
        let mut requests: Vec<&'a [Step]> = Vec::new();
        for attempt in &self.attempts {
            let steps = attempt.call().steps();
            if !requests.iter().any(|known| same_request(known, steps)) {
                requests.push(steps);
            }
        }
        requests
    }

    /// The operations whose answers are words on the transaction.
    ///
    /// Who uses an id again for another request is told that the other request can never commit. That is no word on
    /// the request that won the id: the one that was told to have committed, which never hears anything else.
    pub(super) fn operations(&self) -> Vec<Attempt<'a>> {
        let won = match self.requests() {
            one if one.len() <= 1 => one,
            _ => self.committed_requests(),
        };
        let about_it = |attempt: &&Attempt<'a>| {
            let steps = attempt.call().steps();
            won.iter().any(|request| same_request(request, steps))
        };
        let attempts = self.attempts.iter().filter(about_it);
        attempts.chain(&self.questions).copied().collect()
    }

    /// The requests of which somebody was told that they committed. More than one is a violation.
    fn committed_requests(&self) -> Vec<&'a [Step]> {
        let committed = |request: &&'a [Step]| {
            self.attempts.iter().any(|attempt| {
                let told = attempt.decision().map(|(way, _)| way);
                told == Some(Way::Commit) && same_request(attempt.call().steps(), request)
            })
        };
        self.requests().into_iter().filter(committed).collect()
    }

    /// Who takes part, if that is one thing.
    pub(super) fn members(&self) -> Option<BTreeSet<&'a str>> {
        let requests = match self.requests() {
            one if one.len() <= 1 => one,
            _ => self.committed_requests(),
        };
        match requests.as_slice() {
            [request] => Some(members(request)),
            _ => None,
        }
    }
}

impl Sighting<'_> {
    /// The line of the history where it shows.
    pub(super) fn event(&self) -> Option<u64> {
        match self.at {
            At::Client(event) => Some(event.index),
            At::Node(_) | At::Journal(_) | At::Applied(_) => None,
        }
    }
}

/// The decision that an answer is.
pub(super) fn way(answer: &Answer) -> Option<Way> {
    match answer {
        Answer::Committed => Some(Way::Commit),
        Answer::Aborted(_) => Some(Way::Abort),
        Answer::Undecided | Answer::Expired => None,
    }
}

/// The participants of a request.
pub(super) fn members(steps: &[Step]) -> BTreeSet<&str> {
    steps.iter().map(|step| step.participant.as_str()).collect()
}

/// Whether two requests are one, whatever was read.
pub(super) fn same_request(one: &[Step], other: &[Step]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(a, b)| {
            let both_read = is_read(a) && is_read(b);
            a.participant == b.participant && a.cell == b.cell && (both_read || a.action == b.action)
        })
}

/// Whether a step changes nothing.
pub(super) fn is_read(step: &Step) -> bool {
    matches!(step.action, Action::Read { .. })
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Abort => "abort",
        })
    }
}

impl fmt::Display for Sighting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.way;
        match self.at {
            At::Client(event) => write!(f, "line {} told process {}: {way}", event.index, event.process.0),
            At::Node(node) => write!(f, "node c{node} answers {way}"),
            At::Journal(name) => write!(f, "the journal of {name} has {way}"),
            At::Applied(name) => write!(f, "{name} has applied it"),
        }
    }
}
