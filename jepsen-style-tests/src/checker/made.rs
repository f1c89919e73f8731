//! Histories and evidence made by hand, for the tests of checkers.

use std::collections::BTreeSet;

use unanimo_core::{Timestamp, TransactionId};

use super::quiet::MS;
use super::{Case, Checker, Findings, Verdict};
use crate::cluster::Layout;
use crate::evidence::{
    EffectEvidence, Evidence, LogEvidence, LogsEvidence, ParticipantEvidence, PromiseEvidence,
};
use crate::history::{Action, Answer, Call, Event, History, Kind, Process, Step, Style, Tx};
use crate::late::{Came, Ended, LateAnswers, Reaction};
use crate::nemesis::Injected;
use crate::store::TOO_LITTLE;

/// When every history here begins, in Unix milliseconds.
const BEGAN: u64 = 1_000_000;

/// A run that is made up. Everything that is added is right unless a test makes it wrong.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) history: History,
    pub(super) evidence: Evidence,
    pub(super) faults: Vec<Injected>,
    /// Nanoseconds since the history began.
    pub(super) now: u64,
    aborted: Option<Tx>,
}

/// An operation that has not completed.
pub(super) struct Open(Process, Call);

/// The n-th transaction.
pub(super) fn tx(number: u64) -> Tx {
    Tx(TransactionId::new(Timestamp::from_unix_ms(number), 0))
}

pub(super) fn step(participant: &str, cell: &str, action: Action) -> Step {
    Step {
        participant: participant.to_owned(),
        cell: cell.to_owned(),
        action,
    }
}

pub(super) fn add(participant: &str, cell: &str, delta: i64) -> Step {
    step(participant, cell, Action::Add { delta, floor: 0 })
}

pub(super) fn read_number(participant: &str, cell: &str, number: i64) -> Step {
    let action = Action::Read {
        number: Some(number),
        list: Some(Vec::new()),
    };
    step(participant, cell, action)
}

/// An answer to a message that came late, given once.
pub(super) fn answers(method: &str, came: Came, ended: Ended, answer: Reaction) -> LateAnswers {
    LateAnswers {
        fault: "replay-messages".to_owned(),
        to: "p1".to_owned(),
        method: method.to_owned(),
        came,
        ended,
        forgotten: false,
        answer,
        times: 1,
        example: Some(tx(1)),
    }
}

/// So much from a at p1 to b at p2.
pub(super) fn transfer(cents: i64) -> Vec<Step> {
    vec![add("p1", "a", -cents), add("p2", "b", cents)]
}

impl Made {
    /// Three nodes and two participants, both with 100 in one cell, of which everything is known.
    pub(super) fn new() -> Self {
        #[cfg(feature = "mutants")]
        unanimo_coordinator::mutants::plant_what_is_asked_for().unwrap();
        let layout = Layout {
            coordinators: 3,
            participants: 2,
            replaced: 0,
        };
        let log = LogEvidence {
            entries: 10,
            votes: 1,
            ..LogEvidence::default()
        };
        let evidence = Evidence {
            layout: Some(layout),
            outcomes: layout.nodes().map(|node| (node, Default::default())).collect(),
            logs_read: layout.members().map(|member| member.to_string()).collect(),
            began_unix_ms: Some(BEGAN),
            asked_unix_ms: Some(BEGAN + 3_600_000),
            retention_ms: Some(24 * 3_600_000),
            raft_logs: LogsEvidence {
                nodes: layout.nodes().map(|node| (node, log.clone())).collect(),
                compared: 10,
                disagree: Vec::new(),
            },
            ..Evidence::default()
        };
        let mut made = Self {
            history: History::default(),
            evidence,
            faults: Vec::new(),
            now: 0,
            aborted: None,
        };
        for (number, (name, cell)) in [("p1", "a"), ("p2", "b")].into_iter().enumerate() {
            let found = ParticipantEvidence {
                answered: true,
                journal_whole: true,
                starts: vec![1],
                ..ParticipantEvidence::default()
            };
            made.evidence.participants.insert(name.to_owned(), found);
            let opening = vec![add(name, cell, 100)];
            made.evidence.opening.extend(opening.clone());
            made.apply(tx(10_000 + number as u64), &opening);
        }
        made
    }

    /// Five transfers that committed, one that was aborted, and an audit.
    pub(super) fn with_transfers() -> Self {
        let mut made = Self::new();
        for number in 1..=5 {
            made.commit(tx(number), transfer(5));
        }
        made.abort(tx(6), transfer(500));
        made.commit(
            tx(7),
            vec![read_number("p1", "a", 75), read_number("p2", "b", 125)],
        );
        made
    }

    /// The transaction that was aborted.
    pub(super) fn aborted(&self) -> Tx {
        self.aborted.unwrap()
    }

    /// A transaction that committed, with everything that follows from it.
    pub(super) fn commit(&mut self, tx: Tx, steps: Vec<Step>) {
        self.ok(Some(tx), steps.clone(), Answer::Committed);
        self.apply(tx, &steps);
    }

    /// A transaction that was refused by p1, with everything that follows from it.
    pub(super) fn abort(&mut self, tx: Tx, steps: Vec<Step>) {
        let answer = Answer::Aborted(format!("p1 voted No: cell a has 75, -500 {TOO_LITTLE} 0"));
        self.fail(Some(tx), steps.clone(), Some(answer.clone()));
        self.decide(tx, &steps, &answer);
        self.aborted = Some(tx);
    }

    /// What follows from a commit, whoever was told of it.
    pub(super) fn apply(&mut self, tx: Tx, steps: &[Step]) {
        self.decide(tx, steps, &Answer::Committed);
        for name in names(steps) {
            let mut own: Vec<Step> = steps
                .iter()
                .filter(|step| step.participant == name)
                .cloned()
                .collect();
            let found = self.participant(&name);
            for step in &mut own {
                step.participant.clear();
                let cell = found.cells.entry(step.cell.clone()).or_default();
                match &mut step.action {
                    Action::Add { delta, .. } => cell.number += *delta,
                    Action::Append(value) => cell.list.push(*value),
                    read @ Action::Read { .. } => *read = Action::read(),
                }
            }
            found.effects.push(EffectEvidence {
                transaction: tx,
                steps: own,
                times: 1,
            });
        }
    }

    fn decide(&mut self, tx: Tx, steps: &[Step], answer: &Answer) {
        let at = BEGAN + self.now / MS;
        let members: Vec<String> = names(steps).into_iter().collect();
        for outcomes in self.evidence.outcomes.values_mut() {
            outcomes.insert(tx, answer.clone());
        }
        for name in &members {
            let promise = PromiseEvidence {
                members: members.clone(),
                request: format!("{tx}"),
            };
            let found = self.participant(name);
            found.terminal.insert(tx, vec![answer.clone()]);
            if *answer == Answer::Committed {
                found.promised.insert(tx, at.saturating_sub(2));
                found.heard.insert(tx, at);
                found.promises.insert(tx, promise);
                found.said_yes.get_or_insert_default().insert(tx);
                found.said_committed.get_or_insert_default().insert(tx);
            }
        }
    }

    pub(super) fn participant(&mut self, name: &str) -> &mut ParticipantEvidence {
        self.evidence.participants.get_mut(name).unwrap()
    }

    pub(super) fn effect(&mut self, name: &str, tx: Tx) -> &mut EffectEvidence {
        let effects = &mut self.participant(name).effects;
        effects
            .iter_mut()
            .find(|effect| effect.transaction == tx)
            .unwrap()
    }

    /// A fault between these milliseconds.
    pub(super) fn fault(&mut self, name: &str, begun_ms: u64, ended_ms: u64, evidence: Option<&str>) {
        self.faults.push(Injected {
            fault: name.to_owned(),
            begun_ns: begun_ms * MS,
            in_force_ns: Some(begun_ms * MS),
            healed_ns: Some(ended_ms * MS),
            ended_ns: ended_ms * MS,
            what: name.to_owned(),
            evidence: evidence.map(str::to_owned),
        });
    }

    /// Lets milliseconds pass.
    pub(super) fn wait(&mut self, ms: u64) {
        self.now += ms * MS;
    }

    pub(super) fn invoke(&mut self, transaction: Option<Tx>, steps: Vec<Step>) -> Open {
        self.begin(Call::Transact {
            transaction,
            style: Style::Interactive,
            key: None,
            steps,
        })
    }

    pub(super) fn invoke_query(&mut self, transaction: Tx, node: u64) -> Open {
        self.begin(Call::Query { transaction, node })
    }

    /// Begins any call, as a process of its own.
    pub(super) fn begin(&mut self, call: Call) -> Open {
        let process = Process(self.history.events.len() as u32);
        self.push(process, Kind::Invoke, call.clone(), None);
        Open(process, call)
    }

    pub(super) fn complete_ok(&mut self, open: Open, answer: Answer) {
        self.push(open.0, Kind::Ok, open.1, Some(answer));
    }

    pub(super) fn complete_fail(&mut self, open: Open, answer: Option<Answer>) {
        self.push(open.0, Kind::Fail, open.1, answer);
    }

    pub(super) fn complete_info(&mut self, open: Open) {
        self.push(open.0, Kind::Info, open.1, None);
    }

    pub(super) fn ok(&mut self, transaction: Option<Tx>, steps: Vec<Step>, answer: Answer) {
        let open = self.invoke(transaction, steps);
        self.complete_ok(open, answer);
    }

    pub(super) fn fail(&mut self, transaction: Option<Tx>, steps: Vec<Step>, answer: Option<Answer>) {
        let open = self.invoke(transaction, steps);
        self.complete_fail(open, answer);
    }

    pub(super) fn info(&mut self, transaction: Option<Tx>, steps: Vec<Step>) {
        let open = self.invoke(transaction, steps);
        self.complete_info(open);
    }

    pub(super) fn query(&mut self, transaction: Tx, node: u64, answer: Answer) {
        let open = self.invoke_query(transaction, node);
        self.complete_ok(open, answer);
    }

    pub(super) fn abort_asked(&mut self, transaction: Tx, answer: Answer) {
        let members = vec!["p1".to_owned(), "p2".to_owned()];
        let open = self.begin(Call::Abort { transaction, members });
        self.complete_ok(open, answer);
    }

    fn push(&mut self, process: Process, kind: Kind, call: Call, answer: Option<Answer>) {
        self.wait(1);
        self.history.events.push(Event {
            index: self.history.events.len() as u64,
            time_ns: self.now,
            process,
            kind,
            call,
            answer,
            error: None,
        });
    }

    pub(super) fn case(&self) -> Case<'_> {
        Case {
            history: &self.history,
            evidence: &self.evidence,
            faults: &self.faults,
        }
    }

    pub(super) fn check(&self, checker: &dyn Checker) -> Findings {
        checker.check(&self.case())
    }

    /// Judges, and expects violations of these kinds and no others. Without any: a pass.
    #[track_caller]
    pub(super) fn assert(&self, checker: &dyn Checker, kinds: &[&str]) -> Findings {
        let findings = self.check(checker);
        let found: BTreeSet<&str> = findings
            .violations
            .iter()
            .map(|violation| violation.kind.as_str())
            .collect();
        assert_eq!(found, kinds.iter().copied().collect(), "{findings:#?}");
        let verdict = if kinds.is_empty() {
            Verdict::Valid
        } else {
            Verdict::Invalid
        };
        assert_eq!(findings.verdict, verdict, "{findings:#?}");
        findings
    }
}

fn names(steps: &[Step]) -> BTreeSet<String> {
    steps.iter().map(|step| step.participant.clone()).collect()
}
