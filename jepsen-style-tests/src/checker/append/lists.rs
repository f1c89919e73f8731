//! What every list was, as readers and its participant have it, and who appended what.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::Findings;
use crate::checker::told::{Attempt, Fate, Transaction, Transactions, Way};
use crate::checker::{Case, needs};
use crate::history::{Action, Kind, Step, Tx};

/// A transaction that appends to lists or reads them.
pub(super) struct Txn<'a> {
    tx: Option<Tx>,
    pub(super) fate: Fate,
    /// The line that asked for it first.
    pub(super) asked: u64,
    /// The line that told a client that it committed.
    pub(super) told: Option<u64>,
    /// The line to point at.
    pub(super) line: u64,
    /// By list, in order.
    appends: BTreeMap<u32, Vec<u64>>,
    pub(super) reads: Vec<Read<'a>>,
}

/// What a transaction read.
pub(super) struct Read<'a> {
    pub(super) list: u32,
    pub(super) values: &'a [u64],
    /// How much of it is older than the transaction's own appends.
    pub(super) others: usize,
    /// How many appends of its own it has to see.
    own_before: usize,
}

/// All transactions and all lists.
pub(super) struct Lists<'a> {
    pub(super) txns: Vec<Txn<'a>>,
    /// Participant and cell of each list.
    pub(super) names: Vec<(&'a str, &'a str)>,
    /// What each list has at the end, where that is known.
    ends: Vec<Option<&'a [u64]>>,
    /// Every list's number with every value that it has at the end.
    ended: BTreeSet<(u32, u64)>,
    /// The longest that anybody saw of each list: its order.
    pub(super) orders: Vec<&'a [u64]>,
    /// Who appended a value, and to which list.
    writers: BTreeMap<u64, (u32, u32)>,
    /// Values that the workload used more than once. Nothing can be said by them.
    ambiguous: BTreeSet<u64>,
}

impl<'a> Lists<'a> {
    /// What history and evidence say.
    pub(super) fn of(case: &Case<'a>, findings: &mut Findings) -> Self {
        let mut numbers = BTreeMap::new();
        let mut lists = Self {
            txns: Vec::new(),
            names: Vec::new(),
            ends: Vec::new(),
            ended: BTreeSet::new(),
            orders: Vec::new(),
            writers: BTreeMap::new(),
            ambiguous: BTreeSet::new(),
        };
        let transactions = Transactions::of(case);
        let opening = Txn::new(None, Fate::Committed, 0, &[&case.evidence.opening], &mut |step| {
            lists.names.number(step, &mut numbers)
        });
        lists.txns.push(opening);
        for (tx, transaction) in &transactions.known {
            if let Some(txn) = of_known(*tx, transaction, &mut |step| {
                lists.names.number(step, &mut numbers)
            }) {
                lists.txns.push(txn);
            }
        }
        for attempt in &transactions.nameless {
            let fate = if attempt.kind() == Kind::Fail {
                Fate::Aborted
            } else {
                Fate::Unknown
            };
            let steps = attempt.call().steps();
            let mut txn = Txn::new(None, fate, attempt.invoked.index, &[steps], &mut |step| {
                lists.names.number(step, &mut numbers)
            });
            txn.line = attempt.line();
            lists.txns.push(txn);
        }
        lists.find_writers();
        lists.find_ends(case, findings);
        lists.find_orders();
        // Whose appends were seen has committed, whatever its client knows; so its reads count too.
        lists.believe_what_was_seen();
        lists.find_orders();
        lists
    }

    fn find_writers(&mut self) {
        for (number, txn) in self.txns.iter().enumerate() {
            for (list, values) in &txn.appends {
                for value in values {
                    if self.writers.insert(*value, (number as u32, *list)).is_some() {
                        self.ambiguous.insert(*value);
                    }
                }
            }
        }
    }

    fn find_ends(&mut self, case: &Case<'a>, findings: &mut Findings) {
        needs::participants(case, findings);
        let end = |(participant, cell): &(&str, &str)| {
            let found = case
                .evidence
                .participants
                .get(*participant)
                .filter(|found| found.answered)?;
            Some(found.cells.get(*cell).map_or(&[][..], |cell| &cell.list))
        };
        self.ends = self.names.iter().map(end).collect();
        for (list, end) in self.ends.iter().enumerate() {
            let values = end.unwrap_or_default().iter();
            self.ended.extend(values.map(|value| (list as u32, *value)));
        }
    }

    fn find_orders(&mut self) {
        let mut orders: Vec<&'a [u64]> = self.ends.iter().map(|end| end.unwrap_or_default()).collect();
        for txn in self.txns.iter().filter(|txn| txn.fate == Fate::Committed) {
            for read in &txn.reads {
                let order = &mut orders[read.list as usize];
                if read.values.len() > order.len() {
                    *order = read.values;
                }
            }
        }
        self.orders = orders;
    }

    fn believe_what_was_seen(&mut self) {
        for (list, order) in self.orders.iter().enumerate() {
            for value in *order {
                if let Some((writer, appended_to)) = self.writers.get(value)
                    && *appended_to == list as u32
                    && !self.ambiguous.contains(value)
                {
                    let txn = &mut self.txns[*writer as usize];
                    if txn.fate == Fate::Unknown {
                        txn.fate = Fate::Committed;
                    }
                }
            }
        }
    }

    /// Who appended this value to this list.
    pub(super) fn writer(&self, list: u32, value: u64) -> Option<u32> {
        let (writer, appended_to) = self.writers.get(&value)?;
        (*appended_to == list && !self.ambiguous.contains(&value)).then_some(*writer)
    }

    /// Whether a transaction appended more to a list after this value.
    pub(super) fn is_intermediate(&self, writer: u32, list: u32, value: u64) -> bool {
        let values = self.txns[writer as usize].appends.get(&list);
        values.is_some_and(|values| values.contains(&value) && values.last() != Some(&value))
    }

    /// Everything that is wrong with single lists.
    pub(super) fn judge(&self, findings: &mut Findings) {
        if !self.ambiguous.is_empty() {
            let some: Vec<_> = self.ambiguous.iter().take(5).collect();
            findings.miss(format!(
                "who appended {} values that were used more than once: {some:?}",
                self.ambiguous.len()
            ));
        }
        for (list, order) in self.orders.iter().enumerate() {
            findings.count("lists", 1);
            findings.count("values", order.len() as u64);
            self.judge_order(list as u32, order, findings);
        }
        for txn in self.txns.iter().filter(|txn| txn.fate == Fate::Committed) {
            findings.count("committed", u64::from(txn.tx.is_some()));
            for read in &txn.reads {
                findings.count("reads", 1);
                self.judge_read(txn, read, findings);
            }
            self.judge_own(txn, findings);
            self.judge_appends(txn, findings);
        }
    }

    fn judge_order(&self, list: u32, order: &[u64], findings: &mut Findings) {
        let name = self.name(list);
        let mut known = BTreeSet::new();
        for value in order {
            if !known.insert(value) {
                findings.violate(
                    "duplicate_append",
                    format!("{name} has {value} twice: {order:?}"),
                    None,
                );
            }
            match self.writer(list, *value) {
                Some(writer) if self.txns[writer as usize].fate == Fate::Aborted => {
                    let txn = &self.txns[writer as usize];
                    let what = format!("G1a: {name} has {value} of {txn}, which was aborted: {order:?}");
                    findings.violate("G1a_aborted_read", what, Some(txn.line));
                }
                Some(_) => {}
                None if self.ambiguous.contains(value) => {}
                None => findings.violate(
                    "value_from_nowhere",
                    format!("{name} has {value}, which nobody appended to it"),
                    None,
                ),
            }
        }
        if let Some(end) = self.ends[list as usize]
            && !order.starts_with(end)
        {
            let what = format!("{name} ends as {end:?}, and was read as {order:?}");
            findings.violate("incompatible_order", what, None);
        }
    }

    fn judge_read(&self, txn: &Txn<'_>, read: &Read<'_>, findings: &mut Findings) {
        let (name, line) = (self.name(read.list), Some(txn.line));
        let order = self.orders[read.list as usize];
        if !order.starts_with(read.values) {
            let what = format!(
                "{txn} read {name} as {:?}, and another reads it as {order:?}",
                read.values
            );
            findings.violate("incompatible_order", what, line);
            // Not in the order that was judged above.
            for value in read.values {
                if let Some(writer) = self.writer(read.list, *value)
                    && self.txns[writer as usize].fate == Fate::Aborted
                {
                    let what = format!(
                        "G1a: {txn} read {value} in {name}, of {}, which was aborted",
                        self.txns[writer as usize]
                    );
                    findings.violate("G1a_aborted_read", what, line);
                }
            }
        }
        if let Some(last) = read.values[..read.others].last()
            && let Some(writer) = self.writer(read.list, *last)
            && self.is_intermediate(writer, read.list, *last)
        {
            let what = format!(
                "G1b: {txn} read {name} up to {last}, and {} appended more",
                self.txns[writer as usize]
            );
            findings.violate("G1b_intermediate_read", what, line);
        }
    }

    /// Whether a transaction saw its own appends, and the same of the others each time.
    fn judge_own(&self, txn: &Txn<'_>, findings: &mut Findings) {
        let mut seen: BTreeMap<u32, &[u64]> = BTreeMap::new();
        let none = Vec::new();
        for read in &txn.reads {
            let own = txn.appends.get(&read.list).unwrap_or(&none);
            let (others, tail) = read.values.split_at(read.others);
            let name = self.name(read.list);
            if !own.starts_with(tail) || tail.len() < read.own_before {
                let what = format!(
                    "{txn} appended {own:?} to {name} and read it as {:?}",
                    read.values
                );
                findings.violate("internal", what, Some(txn.line));
            }
            if *seen.entry(read.list).or_insert(others) != others {
                findings.violate(
                    "internal",
                    format!("{txn} read {name} twice, and differently"),
                    Some(txn.line),
                );
            }
        }
    }

    fn judge_appends(&self, txn: &Txn<'_>, findings: &mut Findings) {
        for (list, values) in &txn.appends {
            let Some(end) = self.ends[*list as usize] else {
                continue;
            };
            for value in values {
                findings.count("appends", 1);
                if !self.ended.contains(&(*list, *value)) {
                    let what = format!(
                        "{txn} appended {value} to {}, which ends as {end:?}",
                        self.name(*list)
                    );
                    findings.violate("lost_append", what, Some(txn.line));
                }
            }
        }
    }

    /// A list's name, for people.
    pub(super) fn name(&self, list: u32) -> String {
        let (participant, cell) = self.names[list as usize];
        format!("{participant}/{cell}")
    }
}

/// Gives lists their numbers.
trait Numbers<'a> {
    fn number(&mut self, step: &'a Step, known: &mut BTreeMap<(&'a str, &'a str), u32>) -> u32;
}

impl<'a> Numbers<'a> for Vec<(&'a str, &'a str)> {
    fn number(&mut self, step: &'a Step, known: &mut BTreeMap<(&'a str, &'a str), u32>) -> u32 {
        let name = (step.participant.as_str(), step.cell.as_str());
        *known.entry(name).or_insert_with(|| {
            self.push(name);
            self.len() as u32 - 1
        })
    }
}

/// A transaction that has an id; none if nobody asked for it.
fn of_known<'a>(
    tx: Tx,
    transaction: &Transaction<'a>,
    number: &mut dyn FnMut(&'a Step) -> u32,
) -> Option<Txn<'a>> {
    let first: &Attempt<'a> = transaction.attempts.first()?;
    let committed = |attempt: &&Attempt<'_>| matches!(attempt.decision(), Some((Way::Commit, _)));
    let answered = transaction.attempts.iter().find(committed);
    // Repetitions do the same again. Other requests under the same id may have been the one.
    let requests = match answered {
        Some(attempt) => vec![attempt.call().steps()],
        None => transaction.requests(),
    };
    let mut txn = Txn::new(
        Some(tx),
        transaction.fate(),
        first.invoked.index,
        &requests,
        number,
    );
    txn.told = transaction.told(Way::Commit).map(|event| event.index);
    txn.line = answered.unwrap_or(first).line();
    Some(txn)
}

impl<'a> Txn<'a> {
    fn new(
        tx: Option<Tx>,
        fate: Fate,
        asked: u64,
        requests: &[&'a [Step]],
        number: &mut dyn FnMut(&'a Step) -> u32,
    ) -> Self {
        let mut txn = Self {
            tx,
            fate,
            asked,
            told: None,
            line: asked,
            appends: BTreeMap::new(),
            reads: Vec::new(),
        };
        for step in requests.iter().copied().flatten() {
            match &step.action {
                Action::Append(value) => txn.appends.entry(number(step)).or_default().push(*value),
                Action::Read {
                    list: Some(values), ..
                } => {
                    let list = number(step);
                    let own_before = txn.appends.get(&list).map_or(0, Vec::len);
                    txn.reads.push(Read {
                        list,
                        values,
                        others: values.len(),
                        own_before,
                    });
                }
                Action::Read { list: None, .. } | Action::Add { .. } => {}
            }
        }
        for read in &mut txn.reads {
            let own = txn.appends.get(&read.list);
            let first_own = |value: &u64| own.is_some_and(|own| own.contains(value));
            read.others = read
                .values
                .iter()
                .position(first_own)
                .unwrap_or(read.values.len());
        }
        txn
    }
}

impl std::fmt::Display for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tx {
            Some(tx) => write!(f, "{tx} (line {})", self.line),
            None => write!(f, "the transaction of line {}", self.line),
        }
    }
}
