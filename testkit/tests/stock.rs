//! A stock of one kind of thing, right and wrong in four ways: each wrong one breaks one rule, and the matrix shows which.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};
use unanimo_testkit::{Cell, Matrix, OpenError, Operations, Row, Service, Storage, test};

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It does not look whether a commit has been applied already.
    CommitsTwice,
    /// `restore` does nothing.
    ForgetsHolds,
    /// It votes Yes and keeps what it promised in memory instead of the redo.
    VotesTooEarly,
    /// It keeps what was committed in memory and means to save it later.
    SavesLater,
}

/// What survives a crash.
#[derive(Default)]
struct Durable {
    sold: u8,
    applied: BTreeSet<TransactionId>,
}

struct Stock {
    durable: Arc<Mutex<Durable>>,
    wrong: Wrong,
}

struct Shop {
    durable: Arc<Mutex<Durable>>,
    wrong: Wrong,
    held: Mutex<BTreeMap<TransactionId, u8>>,
    unsaved: Mutex<BTreeMap<TransactionId, u8>>,
}

const IN_STOCK: u8 = 10;

impl ResourceManager for Shop {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let wanted = operation[0];
        let mut held = self.held.lock().unwrap();
        let free = IN_STOCK - self.durable.lock().unwrap().sold - held.values().sum::<u8>();
        if wanted == 0 {
            return Ok(Preparation::ReadOnly);
        }
        if wanted > free {
            let reason = format!("{free} are left");
            return Ok(Preparation::No { reason });
        }
        held.insert(transaction, wanted);
        let redo = match self.wrong {
            // Holds come back as the largest there can be, so only the commit shows that something is missing.
            Wrong::VotesTooEarly => Bytes::new(),
            _ => operation,
        };
        Ok(Preparation::Yes { redo })
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        if self.wrong == Wrong::SavesLater {
            self.held.lock().unwrap().remove(&transaction);
            self.unsaved.lock().unwrap().insert(transaction, redo[0]);
            return Ok(());
        }
        let remembered = self.held.lock().unwrap().remove(&transaction);
        let mut durable = self.durable.lock().unwrap();
        let first = durable.applied.insert(transaction);
        if first || self.wrong == Wrong::CommitsTwice {
            durable.sold += match self.wrong {
                Wrong::VotesTooEarly => remembered.filter(|wanted| *wanted != IN_STOCK).unwrap_or(0),
                _ => redo[0],
            };
        }
        Ok(())
    }

    async fn abort(&self, transaction: TransactionId, _: Option<Bytes>) -> Result<(), ResourceError> {
        self.held.lock().unwrap().remove(&transaction);
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let applied = self.durable.lock().unwrap().applied.contains(&transaction);
        if !applied && self.wrong != Wrong::ForgetsHolds {
            let wanted = redo.first().copied().unwrap_or(IN_STOCK);
            self.held.lock().unwrap().insert(transaction, wanted);
        }
        Ok(())
    }
}

impl Service for Stock {
    type Manager = Shop;

    async fn open(&self, _: &Storage) -> Result<Shop, OpenError> {
        Ok(Shop {
            durable: Arc::clone(&self.durable),
            wrong: self.wrong,
            held: Mutex::default(),
            unsaved: Mutex::default(),
        })
    }

    async fn effects(&self, shop: &Shop) -> String {
        let unsaved: u8 = shop.unsaved.lock().unwrap().values().sum();
        format!("sold {}", self.durable.lock().unwrap().sold + unsaved)
    }

    fn operations(&self) -> Operations {
        Operations {
            operation: Bytes::from_static(&[4]),
            rival: Bytes::from_static(&[7]),
            refused: Some(Bytes::from_static(&[11])),
            read: Some(Bytes::from_static(&[0])),
        }
    }
}

fn stock(wrong: Wrong) -> impl Fn() -> Stock {
    move || Stock {
        durable: Arc::default(),
        wrong,
    }
}

/// `UPDATE_MATRICES=1` writes what is instead; read the difference.
fn shows(wrong: Wrong, name: &str, broken: &[&str]) -> Matrix {
    let matrix = test(stock(wrong));
    let path = format!("{}/tests/matrices/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_MATRICES").is_some() {
        std::fs::write(&path, matrix.to_string()).unwrap();
    }
    assert_eq!(matrix.to_string(), std::fs::read_to_string(&path).unwrap());
    assert_eq!(matrix.broken(), broken);
    matrix
}

#[test]
fn a_right_one_passes_everywhere() {
    let matrix = shows(Wrong::Nothing, "right", &[]);
    matrix.assert_all_passed();
    let json = matrix.to_json();
    assert_eq!(
        json["schedules"].as_array().unwrap().len(),
        matrix.schedules.len()
    );
    assert_eq!(json["rules"][0]["cells"][0], "passed");
}

#[test]
fn a_commit_that_is_not_idempotent_breaks_that_a_commit_happens_once() {
    shows(
        Wrong::CommitsTwice,
        "commits-twice",
        &["R9 a commit happens once"],
    );
}

#[test]
fn holds_that_are_forgotten_at_recovery_break_that_holds_stay() {
    shows(Wrong::ForgetsHolds, "forgets-holds", &["R3 holds of a Yes stay"]);
}

#[test]
fn a_vote_before_it_is_durable_breaks_that_a_yes_can_be_committed() {
    shows(
        Wrong::VotesTooEarly,
        "votes-too-early",
        &["R3 a Yes can be committed"],
    );
}

#[test]
fn a_commit_that_is_saved_later_breaks_that_a_commit_stays() {
    shows(
        Wrong::SavesLater,
        "saves-later",
        &["R9 a commit that was acknowledged stays"],
    );
}

#[test]
#[should_panic(expected = "rules were not judged")]
fn a_rule_that_never_came_to_anything_ends_the_test() {
    let matrix = Matrix {
        schedules: vec!["nothing besides", "every message twice"],
        rows: vec![Row {
            rule: "R9 a commit happens once",
            cells: vec![Cell::NotReached, Cell::NotApplicable],
        }],
    };
    assert_eq!(matrix.not_judged(), ["R9 a commit happens once"]);
    matrix.assert_all_passed();
}

#[test]
#[should_panic(expected = "rules were broken")]
fn a_wrong_one_ends_the_test() {
    let matrix = Matrix {
        schedules: vec!["no crash"],
        rows: vec![Row {
            rule: "R9 a commit happens once",
            cells: vec![Cell::Failed("sold 8".to_owned())],
        }],
    };
    matrix.assert_all_passed();
}
