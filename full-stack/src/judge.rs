//! Whether what happened may happen. Looks at what is in the tables, and at what initiators were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use unanimo_core::{Decision, TransactionId};
use unanimo_proto::storage::{decode_decision_record, decode_horizon};
use unanimo_table::{Entry, Table, TableError};

use crate::bank::Vault;
use crate::clock::EPOCH;
use crate::decided::{Decided, transaction_of};
use crate::history::{Evidence, Found};
use crate::journals::Promises;
use crate::ledger::{Answer, Asked, Ledger};
use crate::machine::Machine;
use crate::notes::Notes;
use crate::plan::Plan;

/// Looks at a run.
pub(crate) struct Judge<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) notes: &'a Notes,
    pub(crate) ledger: &'a Ledger,
    pub(crate) decided: &'a Decided,
    pub(crate) machines: &'a BTreeMap<String, Machine>,
}

/// What is still open.
#[derive(Default)]
pub(crate) struct Unsettled(Vec<String>);

impl Unsettled {
    pub(crate) fn add(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Where a node's table has its horizon; described where the coordinator keeps it.
const HORIZON: &[u8] = b"h";

/// Which participants have the effects of each transaction.
type Effects = BTreeMap<TransactionId, BTreeSet<String>>;

impl Judge<'_> {
    /// What has yet to be resolved. Nothing of it may last.
    pub(crate) fn unsettled(&self) -> Unsettled {
        let mut unsettled = Unsettled::default();
        for machine in self.participants() {
            let Some((participant, bank)) = machine.participant() else {
                unsettled.add(format!("{} does not run", machine.name));
                continue;
            };
            let statistics = participant.statistics();
            if !statistics.registered {
                unsettled.add(format!("{} is not registered", machine.name));
            }
            if statistics.in_flight > 0 {
                let (flying, doubts) = (statistics.in_flight, statistics.in_doubt);
                unsettled.add(format!(
                    "{} has {flying} branches open, {doubts} of them in doubt",
                    machine.name
                ));
            }
            let held = bank.holds();
            if !held.is_empty() {
                unsettled.add(format!("{} holds something for {held:?}", machine.name));
            }
        }
        match self.tables() {
            Ok(tables) => {
                let mut tables = tables.into_iter();
                let first = tables.next();
                for (name, table) in tables {
                    if first.as_ref().is_some_and(|(_, first)| *first != table) {
                        unsettled.add(format!("{name} has another table than c1"));
                    }
                }
                let open = first.iter().flat_map(|(_, table)| table);
                let open = open.filter(|(key, _)| key.starts_with(b"u")).count();
                if open > 0 {
                    unsettled.add(format!("{open} decisions are not acknowledged by all members"));
                }
            }
            Err(error) => unsettled.add(error.to_string()),
        }
        unsettled
    }

    /// Judges what there is in the end.
    pub(crate) fn judge(&self) {
        if let Err(error) = self.check_records() {
            return self.notes.violate("unreadable", error.to_string());
        }
        let effects = match self.effects() {
            Ok(effects) => effects,
            Err(error) => return self.notes.violate("unreadable", error.to_string()),
        };
        let asked = self.ledger.all();
        for (transaction, asked) in &asked {
            self.check_transaction(*transaction, asked, effects.get(transaction));
        }
        for transaction in effects
            .keys()
            .filter(|transaction| !asked.contains_key(transaction))
        {
            self.notes
                .violate("effect_from_nowhere", format!("nobody asked for {transaction}"));
        }
        self.check_balances(&asked, &effects);
    }

    /// All or nothing, as told, and as recorded.
    fn check_transaction(
        &self,
        transaction: TransactionId,
        asked: &Asked,
        effects: Option<&BTreeSet<String>>,
    ) {
        let writers: BTreeSet<String> = asked
            .branches
            .iter()
            .filter(|(_, changes)| !changes.0.is_empty())
            .map(|(participant, _)| participant.to_string())
            .collect();
        let none = BTreeSet::new();
        let effects = effects.unwrap_or(&none);
        if !effects.is_empty() && *effects != writers {
            let what = format!("{transaction} of {writers:?} has happened at {effects:?} only");
            self.notes.violate("half_committed", what);
        }
        let happened = !effects.is_empty();
        let committed = asked.answers.contains(&Answer::Committed);
        let aborted = asked
            .answers
            .iter()
            .any(|answer| matches!(answer, Answer::Aborted(_)));
        if committed && aborted {
            let what = format!(
                "{transaction} was told committed and aborted: {:?}",
                asked.answers
            );
            self.notes.violate("two_answers", what);
        }
        if committed && !happened {
            let what = format!("{transaction} was told committed and has not happened");
            self.notes.violate("lost_commit", what);
        }
        if aborted && happened {
            let what = format!("{transaction} was told aborted and has happened at {effects:?}");
            self.notes.violate("aborted_has_happened", what);
        }
        let only_refused = asked
            .answers
            .iter()
            .all(|answer| matches!(answer, Answer::Refused(_)));
        if happened && only_refused && asked.answers.len() as u64 == asked.submitted {
            let what = format!("{transaction} was refused and has happened");
            self.notes.violate("refused_has_happened", what);
        }
        let decision = self.decided.get(transaction);
        let commit = decision.as_ref().is_some_and(Decision::is_commit);
        if happened != commit && !writers.is_empty() {
            let what = format!("{transaction} has happened at {effects:?}, and decided is {decision:?}");
            self.notes.violate("decision_and_effect_differ", what);
        }
    }

    /// Every effect once: no money is made, and none is lost.
    fn check_balances(&self, asked: &BTreeMap<TransactionId, Asked>, effects: &Effects) {
        let mut total = 0;
        for machine in self.participants() {
            let Some(vault) = &machine.vault else { continue };
            let balances = match vault.balances() {
                Ok(balances) => balances,
                Err(error) => return self.notes.violate("unreadable", error.to_string()),
            };
            let mut expected: BTreeMap<u64, i64> = balances
                .keys()
                .map(|account| (*account, self.plan.balance))
                .collect();
            for (transaction, places) in effects {
                if !places.contains(&*machine.name) {
                    continue;
                }
                let branches = asked.get(transaction).map(|asked| &asked.branches);
                let changes =
                    branches.and_then(|branches| branches.get(&crate::initiator::named(&machine.name)));
                for (account, by) in changes.iter().flat_map(|changes| &changes.0) {
                    *expected.entry(*account).or_default() += by;
                }
            }
            if balances != expected {
                let what = format!("{} has {balances:?}, expected is {expected:?}", machine.name);
                self.notes.violate("wrong_balance", what);
            }
            total += balances.values().sum::<i64>();
        }
        let put_in = self.plan.balance * (self.plan.accounts * self.plan.participants) as i64;
        if total != put_in {
            self.notes.violate(
                "money_not_conserved",
                format!("{put_in} was put in, {total} is there"),
            );
        }
    }

    /// Writes down what the checkers of the jepsen-style tests want to know.
    pub(crate) fn write_evidence(&self, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let mut participants = BTreeMap::new();
        for machine in self.participants() {
            if let Some(vault) = &machine.vault {
                participants.insert(machine.name.to_string(), found(machine, vault)?);
            }
        }
        let mut outcomes = BTreeMap::new();
        for (name, table) in self.tables()? {
            outcomes.insert(name.trim_start_matches('c').parse()?, self.outcomes(&table)?);
        }
        let panics = self
            .notes
            .violations()
            .into_iter()
            .filter(|found| found.kind == "panicked");
        let evidence = Evidence {
            balance: self.plan.balance,
            participants,
            outcomes,
            at_unix_ms: (EPOCH + self.notes.now()).as_millis() as u64,
            retention_ms: self.plan.remembers().as_millis() as u64,
            panics: panics.map(|found| found.what).collect(),
        };
        std::fs::create_dir_all(folder)?;
        evidence.write(&folder.join("evidence.json"))?;
        self.ledger.history().write(&folder.join("history.jsonl"))?;
        Ok(())
    }

    /// What a node with this table answers to whoever asks for each transaction of the run.
    fn outcomes(
        &self,
        table: &[Entry],
    ) -> Result<BTreeMap<TransactionId, Value>, Box<dyn std::error::Error>> {
        let horizon = table.iter().find(|(key, _)| key == HORIZON);
        let horizon = horizon.map(|(_, value)| decode_horizon(value)).transpose()?;
        let horizon = horizon.unwrap_or_default();
        let asked = self.ledger.all();
        let unknown = asked
            .keys()
            .map(|transaction| match horizon.has_closed(*transaction) {
                true => (*transaction, json!("expired")),
                false => (*transaction, json!("undecided")),
            });
        let mut known: BTreeMap<TransactionId, Value> = unknown.collect();
        for (key, value) in table.iter().filter(|(key, _)| key.starts_with(b"d")) {
            let answer = match decode_decision_record(value)?.decision {
                Decision::Commit => json!("committed"),
                Decision::Abort(reason) => json!({ "aborted": reason.to_string() }),
            };
            known.insert(transaction_of(key)?, answer);
        }
        Ok(known)
    }

    /// Notes what the participant of this machine has counted in its life.
    pub(crate) fn note_statistics(&self, machine: &Machine) {
        let Some((participant, _)) = machine.participant() else {
            return;
        };
        let statistics = participant.statistics();
        self.notes
            .add("in_doubt_after_a_restart", statistics.recovered_in_doubt);
        self.notes.add("inquiry", statistics.inquiries);
        self.notes.add("duplicate_message", statistics.duplicates);
        self.notes.add("voted_no", statistics.voted_no);
        self.notes.add("voted_read_only", statistics.voted_read_only);
        self.notes.add("branch_committed", statistics.committed);
        self.notes.add("branch_aborted", statistics.aborted);
        machine.refuse(statistics.violations);
        if statistics.violations > 0 {
            let what = format!(
                "{} was told {} things that contradict what it knows",
                machine.name, statistics.violations
            );
            self.notes.violate("contradicting_message", what);
        }
    }

    /// Takes what is on the disks of a machine into the hash of the trace.
    pub(crate) fn absorb(&self, machine: &Machine) {
        for disk in [&machine.folder, &machine.journal, &machine.snapshots] {
            let names = unanimo_journal::Disk::list(disk).unwrap_or_default();
            for name in names {
                self.notes.absorb(name.as_bytes());
                self.notes.absorb(&disk.disk.contents(&name).unwrap_or_default());
            }
        }
        for (key, value) in machine.table.scan(&[], None, usize::MAX).unwrap_or_default() {
            self.notes.absorb(&key);
            self.notes.absorb(&value);
        }
    }

    fn participants(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(|machine| machine.vault.is_some())
    }

    /// The decision tables, by node.
    fn tables(&self) -> Result<Vec<(String, Vec<Entry>)>, TableError> {
        let nodes = self.machines.values().filter(|machine| machine.vault.is_none());
        nodes
            .map(|node| Ok((node.name.to_string(), node.table.scan(&[], None, usize::MAX)?)))
            .collect()
    }

    /// What the tables say now is what was decided when.
    fn check_records(&self) -> Result<(), Box<dyn std::error::Error>> {
        for (name, table) in self.tables()? {
            for (key, value) in table.iter().filter(|(key, _)| key.starts_with(b"d")) {
                let transaction = transaction_of(key)?;
                let record = decode_decision_record(value)?;
                let decided = self.decided.get(transaction);
                if decided.as_ref() != Some(&record.decision) {
                    let what = format!(
                        "{transaction} is {:?} at {name} and was {decided:?}",
                        record.decision
                    );
                    self.notes.violate("decision_changed", what);
                }
            }
        }
        Ok(())
    }

    fn effects(&self) -> Result<Effects, TableError> {
        let mut effects = Effects::new();
        for machine in self.participants() {
            let Some(vault) = &machine.vault else { continue };
            for transaction in vault.applied()?.into_keys() {
                if transaction == Vault::opening() {
                    continue;
                }
                let places = effects.entry(transaction).or_default();
                places.insert(machine.name.to_string());
            }
        }
        Ok(effects)
    }
}

/// What is at a participant, as its disks and tables have it, and as it counts itself where it runs.
fn found(machine: &Machine, vault: &Vault) -> Result<Found, Box<dyn std::error::Error>> {
    let promises = Promises::read(&machine.journal.since_the_beginning())?;
    let (in_doubt, holding) = match machine.participant() {
        Some((participant, bank)) => (
            participant.statistics().in_doubt as u64,
            bank.holds().len() as u64,
        ),
        None => (promises.open(), 0),
    };
    Ok(Found {
        balances: vault.balances()?,
        applied: vault.applied()?,
        promises,
        refused_messages: machine.refused(),
        in_doubt,
        holding,
    })
}

#[cfg(test)]
mod tests {
    use unanimo_core::{AbortReason, Timestamp};
    use unanimo_journal::Disk;
    use unanimo_table::Batch;

    use super::*;
    use crate::bank::Changes;
    use crate::disk::WatchedDisk;
    use crate::failure::{Failure, Part};
    use crate::initiator::named;

    /// Two banks, one transaction that moves 5 from p1 to p2, and what became of it as a test wants it.
    struct Case {
        plan: Plan,
        notes: Notes,
        ledger: Ledger,
        decided: Decided,
        machines: BTreeMap<String, Machine>,
        transaction: TransactionId,
    }

    impl Case {
        fn new() -> Self {
            let mut plan = Plan::of(1);
            (plan.participants, plan.accounts, plan.balance) = (2, 1, 100);
            let notes = Notes::new(false);
            // One node, which has everything on its disk.
            let log = WatchedDisk::new(Failure::new(&notes, &"c1".into(), Part::Journal));
            let transaction = TransactionId::new(Timestamp::from_unix_ms(EPOCH.as_millis() as u64), 1);
            let file = log.create("log").unwrap();
            file.write_at(&transaction.as_u128().to_be_bytes(), 0).unwrap();
            file.sync_data().unwrap();
            let decided = Decided::new(notes.clone(), [log], BTreeMap::new());
            let ledger = Ledger::new(decided.clone());
            let change = |host: &str, by| (named(host), Changes(BTreeMap::from([(0, by)])));
            let branches = BTreeMap::from([change("p1", -5), change("p2", 5)]);
            ledger.submit("i1", transaction, &branches);
            let machine = |host: &str| {
                let vault = Vault::new(1, 100).unwrap();
                (host.to_owned(), Machine::new(1, host, Some(vault), &notes))
            };
            Self {
                plan,
                machines: BTreeMap::from([machine("p1"), machine("p2")]),
                notes,
                ledger,
                decided,
                transaction,
            }
        }

        fn decide(&mut self, decision: Decision) -> &mut Self {
            self.decided.suppose(self.transaction, decision);
            self
        }

        fn happen(&mut self, host: &str, balance: i64) -> &mut Self {
            let mut batch = Batch::new();
            batch.put("account/0", balance.to_string());
            batch.put(format!("applied/{}", self.transaction), "");
            let vault = self.machines[host].vault.as_ref().unwrap();
            vault.table.apply(batch).unwrap();
            self
        }

        fn tell(&mut self, answer: Answer) -> &mut Self {
            self.ledger.answer("i1", self.transaction, answer);
            self
        }

        /// The kinds of violations that are found.
        fn found(&self) -> Vec<String> {
            let judge = Judge {
                plan: &self.plan,
                notes: &self.notes,
                ledger: &self.ledger,
                decided: &self.decided,
                machines: &self.machines,
            };
            judge.judge();
            let violations = self.notes.violations();
            violations.into_iter().map(|violation| violation.kind).collect()
        }
    }

    fn abort() -> Decision {
        Decision::Abort(AbortReason::Requested)
    }

    #[test]
    fn what_happened_as_told_and_decided_is_right() {
        let mut case = Case::new();
        case.decide(Decision::Commit).happen("p1", 95).happen("p2", 105);
        assert_eq!(case.tell(Answer::Committed).found(), Vec::<String>::new());
        let mut case = Case::new();
        case.decide(abort()).tell(Answer::Aborted("no".to_owned()));
        assert_eq!(case.found(), Vec::<String>::new());
        // Nobody knows, so either is right.
        let mut case = Case::new();
        assert_eq!(
            case.tell(Answer::Unknown("late".to_owned())).found(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_half_is_found() {
        let mut case = Case::new();
        case.decide(Decision::Commit).happen("p1", 95);
        assert_eq!(case.found(), ["half_committed", "money_not_conserved"]);
    }

    #[test]
    fn a_commit_that_is_gone_is_found() {
        let mut case = Case::new();
        case.decide(Decision::Commit).tell(Answer::Committed);
        assert_eq!(case.found(), ["lost_commit", "decision_and_effect_differ"]);
    }

    #[test]
    fn what_was_told_to_be_aborted_and_happened_is_found() {
        let mut case = Case::new();
        case.decide(abort()).tell(Answer::Aborted("no".to_owned()));
        case.happen("p1", 95).happen("p2", 105);
        assert_eq!(
            case.found(),
            ["aborted_has_happened", "decision_and_effect_differ"]
        );
    }

    #[test]
    fn an_effect_that_happened_twice_is_found() {
        let mut case = Case::new();
        case.decide(Decision::Commit).happen("p1", 90).happen("p2", 105);
        assert_eq!(case.found(), ["wrong_balance", "money_not_conserved"]);
    }

    #[test]
    fn two_answers_are_found() {
        let mut case = Case::new();
        case.decide(Decision::Commit).happen("p1", 95).happen("p2", 105);
        case.tell(Answer::Committed)
            .tell(Answer::Aborted("no".to_owned()));
        assert_eq!(
            case.found(),
            ["heard_before_decided", "two_answers", "aborted_has_happened"]
        );
    }

    #[test]
    fn what_was_refused_and_happened_is_found() {
        let mut case = Case::new();
        case.decide(Decision::Commit).happen("p1", 95).happen("p2", 105);
        case.tell(Answer::Refused("BUSY".to_owned()));
        assert_eq!(case.found(), ["refused_has_happened"]);
    }
}
