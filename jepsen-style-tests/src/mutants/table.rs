use std::fmt;

use serde::Serialize;
use unanimo_core::mutants::Mutant;

use super::hunt::Hunt;

/// What caught which planted bug.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KillTable {
    /// What was found where there is no bug: it has to be nothing.
    pub without_bug: Vec<Row>,
    /// In the order in which they were hunted.
    pub rows: Vec<Row>,
}

/// One bug, and one way to catch it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The bug; none where there is none.
    pub mutant: Option<String>,
    /// What is wrong in a process that has it.
    pub breaks: &'static str,
    /// Whether this hunt has to catch it, because no other looks for this part of it.
    pub needed: bool,
    /// Whether runs of real processes have to catch the bug, so that what a test finds does not count.
    pub runs_needed: bool,
    /// Whether this is a run of real processes.
    pub real: bool,
    /// How it was hunted.
    pub hunt: String,
    /// The checkers and their violations, or the tests, that caught it.
    pub caught_by: Option<String>,
    /// How many runs that took, or how many were in vain.
    pub attempts: u64,
    /// How long that took.
    pub seconds: u64,
    /// Why it was not hunted, or why nothing is clear.
    pub note: Option<String>,
}

impl Row {
    pub(super) fn of(mutant: Option<Mutant>, hunt: &Hunt) -> Self {
        Self {
            mutant: mutant.map(Mutant::name),
            breaks: mutant.map_or("nothing", Mutant::breaks),
            needed: false,
            runs_needed: false,
            real: hunt.is_real(),
            hunt: hunt.to_string(),
            caught_by: None,
            attempts: 0,
            seconds: 0,
            note: None,
        }
    }
}

impl Row {
    /// Whether nothing was found, and all was clear.
    fn is_clean(&self) -> bool {
        self.caught_by.is_none() && self.note.is_none()
    }
}

impl KillTable {
    /// Whether every bug was caught, and nothing where there is none.
    pub fn is_as_it_should_be(&self) -> bool {
        self.without_bug.iter().all(Row::is_clean) && self.escaped().is_empty()
    }

    /// The bugs that nothing caught, or not whole.
    pub fn escaped(&self) -> Vec<&str> {
        let mut escaped: Vec<&str> = Vec::new();
        for row in &self.rows {
            let Some(name) = &row.mutant else { continue };
            let mut same = self.rows.iter().filter(|other| other.mutant == row.mutant);
            let counts = |other: &&Row| other.real || !other.runs_needed;
            let caught = same.clone().filter(counts).any(|other| other.caught_by.is_some());
            let partly = same.any(|other| other.caught_by.is_none() && other.needed);
            if (!caught || partly) && !escaped.contains(&name.as_str()) {
                escaped.push(name);
            }
        }
        escaped
    }
}

impl fmt::Display for KillTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| Mutant | What is wrong | Hunted by | Caught by | Attempts | Seconds |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in self.without_bug.iter().chain(&self.rows) {
            let name = row.mutant.as_deref().unwrap_or("none");
            let nothing = row.note.as_deref().unwrap_or("nothing");
            let by = row.caught_by.as_deref();
            let by = by.map_or_else(|| format!("({nothing})"), ToOwned::to_owned);
            let (breaks, hunt, attempts, seconds) = (row.breaks, &row.hunt, row.attempts, row.seconds);
            let mut by = by.replace('|', "/");
            if row.runs_needed && !row.real {
                by.push_str(" (besides: it does not count)");
            }
            writeln!(
                f,
                "| {name} | {breaks} | {hunt} | {by} | {attempts} | {seconds} |"
            )?;
        }
        let escaped = self.escaped();
        for row in self.without_bug.iter().filter(|row| !row.is_clean()) {
            writeln!(f, "\nnot clean without a bug: {}", row.hunt)?;
        }
        match escaped.as_slice() {
            [] => writeln!(f, "\nevery one is caught"),
            escaped => writeln!(f, "\nnot caught: {}", escaped.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_caught_by_any_of_its_hunts_and_nothing_may_be_caught_without_one() {
        let row = |mutant, caught_by: Option<&str>| Row {
            caught_by: caught_by.map(ToOwned::to_owned),
            ..Row::of(mutant, &Hunt::run("bank", "kill-leader"))
        };
        let mut table = KillTable {
            without_bug: vec![row(None, None)],
            rows: vec![row(Some(Mutant::M1), None), row(Some(Mutant::M1), Some("x"))],
        };
        assert!(table.is_as_it_should_be());
        table.rows.push(row(Some(Mutant::M2), None));
        assert_eq!(table.escaped(), ["M2"]);
        assert!(!table.is_as_it_should_be());
        table.rows.pop();
        table.rows[0].needed = true;
        assert_eq!(table.escaped(), ["M1"]);
        table.rows.remove(0);
        assert!(table.is_as_it_should_be());
        table.without_bug.push(row(None, Some("x")));
        assert!(!table.is_as_it_should_be());
    }

    #[test]
    fn what_real_processes_have_to_catch_no_test_catches_for_them() {
        let row = |hunt: Hunt, caught_by: Option<&str>| Row {
            caught_by: caught_by.map(ToOwned::to_owned),
            runs_needed: true,
            ..Row::of(Some(Mutant::M9), &hunt)
        };
        let run = || Hunt::run("bank", "kill-leader");
        let test = || Hunt::unit_tests("unanimo-coordinator", "raft::tests::crash");
        let mut table = KillTable {
            without_bug: Vec::new(),
            rows: vec![row(run(), None), row(test(), Some("a test"))],
        };
        assert_eq!(table.escaped(), ["M9"]);
        assert!(table.to_string().contains("a test (besides: it does not count)"));
        table.rows.push(row(run(), Some("agreement")));
        assert!(table.is_as_it_should_be());
    }

    #[test]
    fn a_run_without_a_bug_of_which_nothing_was_ever_clear_is_not_clean() {
        let mut row = Row::of(None, &Hunt::run("bank", "power-loss"));
        let table = |row: &Row| KillTable {
            without_bug: vec![row.clone()],
            rows: Vec::new(),
        };
        assert!(table(&row).is_as_it_should_be());
        row.note = Some("nothing is clear".to_owned());
        assert!(!table(&row).is_as_it_should_be());
        assert!(table(&row).to_string().contains("not clean without a bug"));
    }
}
