//! What came out.

use std::fmt;

use serde_json::{Value, json};

/// One rule under one schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The rule was kept.
    Passed,
    /// The rule was broken, and how.
    Failed(String),
    /// The test of the rule never came to what the schedule stands for, so this says nothing.
    NotReached,
    /// The schedule has nothing to do with the rule, or the service has no such operation.
    NotApplicable,
}

/// One rule under all schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The rule.
    pub rule: &'static str,
    /// A cell for each schedule, in the order of [`Matrix::schedules`].
    pub cells: Vec<Cell>,
}

/// Which rules a resource manager keeps under which schedules. Prints as a table, with the failures below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// What was done to the service.
    pub schedules: Vec<&'static str>,
    /// The rules.
    pub rows: Vec<Row>,
}

impl Matrix {
    /// The rules that were broken under some schedule.
    pub fn broken(&self) -> Vec<&'static str> {
        let broken = |row: &&Row| row.cells.iter().any(|cell| matches!(cell, Cell::Failed(_)));
        self.rows.iter().filter(broken).map(|row| row.rule).collect()
    }

    /// The rules of which nothing is known: under no schedule were they kept or broken. Either the service has no such
    /// operation, or it never came to it.
    pub fn not_judged(&self) -> Vec<&'static str> {
        let rows = self.rows.iter().filter(|row| !row.is_judged());
        rows.map(|row| row.rule).collect()
    }

    /// Ends the test unless every rule was kept under every schedule that came about, and none was missed. A rule for which
    /// the service has no operation is not asked for.
    ///
    /// # Panics
    ///
    /// With the matrix, if a rule was broken, or was tested and never came to anything.
    pub fn assert_all_passed(&self) {
        assert!(self.broken().is_empty(), "rules were broken\n{self}");
        let missed = |row: &Row| !row.is_judged() && row.cells.contains(&Cell::NotReached);
        assert!(!self.rows.iter().any(missed), "rules were not judged\n{self}");
    }

    /// The same for programs: `{"schedules": […], "rules": [{"rule": …, "cells": ["passed", "failed: …", "not reached", null]}]}`.
    pub fn to_json(&self) -> Value {
        let cell = |cell: &Cell| match cell {
            Cell::Passed => json!("passed"),
            Cell::Failed(why) => json!(format!("failed: {why}")),
            Cell::NotReached => json!("not reached"),
            Cell::NotApplicable => Value::Null,
        };
        let row = |row: &Row| {
            let cells: Vec<Value> = row.cells.iter().map(cell).collect();
            json!({ "rule": row.rule, "cells": cells })
        };
        let rules: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "schedules": self.schedules, "rules": rules })
    }
}

impl Row {
    fn is_judged(&self) -> bool {
        let judged = |cell: &Cell| matches!(cell, Cell::Passed | Cell::Failed(_));
        self.cells.iter().any(judged)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.rule.len()).max().unwrap_or(0);
        write!(f, "{:width$}", "")?;
        for number in 1..=self.schedules.len() {
            write!(f, " {number:>4}")?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:width$}", row.rule)?;
            for cell in &row.cells {
                let text = match cell {
                    Cell::Passed => "ok",
                    Cell::Failed(_) => "FAIL",
                    Cell::NotReached => "-",
                    Cell::NotApplicable => ".",
                };
                write!(f, " {text:>4}")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        for (place, schedule) in self.schedules.iter().enumerate() {
            writeln!(f, "{:>2} {schedule}", place + 1)?;
        }
        for rule in self.not_judged() {
            writeln!(f, "\nnot judged: {rule}")?;
        }
        for row in &self.rows {
            for (place, cell) in row.cells.iter().enumerate() {
                if let Cell::Failed(why) = cell {
                    writeln!(f, "\n{}, {}: {why}", row.rule, self.schedules[place])?;
                }
            }
        }
        Ok(())
    }
}
