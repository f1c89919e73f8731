//! Planted bugs, and what finds them: the kill table. Compiled under the feature `mutants` only, which builds all of them
//! into this program; each process has at most one, which it is given when it starts.
//!
//! A bug is caught when a run of real processes with it is *invalid*, or when a test fails that passes without it. A run
//! that is *unknown* catches nothing. So that the table shows something, the same runs and tests are made without any bug
//! first, and must find nothing.

mod hunt;
mod hunts;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use unanimo_core::mutants::Mutant;

use hunt::{Attempt, Hunt};
pub use table::{KillTable, Row};

/// How often a run without a bug is tried until all is clear.
const WITHOUT_BUG: u64 = 3;

/// Which bugs are planted, and how.
pub struct Campaign {
    /// These, one after the other.
    pub mutants: Vec<Mutant>,
    /// How long each is hunted with one hunter, at most.
    pub patience: Duration,
    /// This program.
    pub executable: PathBuf,
    /// Where the runs go. Of those that caught something, and of those of which nothing is clear, everything stays.
    pub folder: PathBuf,
}

/// The mutants of these names; all of them if none is named.
///
/// # Errors
///
/// There is none of such a name.
pub fn chosen(names: &[String]) -> Result<Vec<Mutant>, String> {
    if names.is_empty() {
        return Ok(Mutant::ALL.to_vec());
    }
    let known = |name: &String| Mutant::named(name).ok_or_else(|| format!("there is no mutant {name:?}"));
    names.iter().map(known).collect()
}

impl Campaign {
    /// Hunts all of them.
    ///
    /// # Errors
    ///
    /// A file or a process cannot be had, or it is interrupted.
    pub async fn run(&self) -> std::io::Result<KillTable> {
        let mut table = KillTable::default();
        let mut checked = Vec::new();
        for mutant in &self.mutants {
            let needed = hunts::all_are_needed(*mutant);
            let runs_needed = hunts::runs_are_needed(*mutant);
            for hunt in hunts::of(*mutant) {
                if !checked.contains(&hunt.to_string()) && hunt.unavailable().is_none() {
                    checked.push(hunt.to_string());
                    table.without_bug.push(self.hunt(None, &hunt).await?);
                }
                let mut row = self.hunt(Some(*mutant), &hunt).await?;
                row.needed = needed;
                row.runs_needed = runs_needed;
                let caught = row.caught_by.is_some();
                table.rows.push(row);
                if caught && !needed {
                    break;
                }
            }
        }
        Ok(table)
    }

    async fn hunt(&self, mutant: Option<Mutant>, hunt: &Hunt) -> std::io::Result<Row> {
        let mut row = Row::of(mutant, hunt);
        if let Some(reason) = hunt.unavailable() {
            row.note = Some(reason);
            return Ok(row);
        }
        let started = Instant::now();
        let name = mutant.map_or_else(|| "no-bug".to_owned(), Mutant::name);
        loop {
            row.attempts += 1;
            let place = hunt.to_string().replace([' ', ',', ':', '(', ')'], "-");
            let folder = self.folder.join(format!("{name}-{place}-{}", row.attempts));
            let attempt = hunt
                .attempt(mutant, row.attempts, &self.executable, &folder)
                .await?;
            tracing::info!(mutant = name, %hunt, attempt = row.attempts, ?attempt, "hunted");
            row.seconds = started.elapsed().as_secs();
            match attempt {
                Attempt::Caught(by) => {
                    row.caught_by = Some(by);
                    return Ok(row);
                }
                Attempt::Escaped => {
                    std::fs::remove_dir_all(&folder)?;
                    row.note = None;
                    // Where there is no bug, one look at a run of which all is clear is enough.
                    if mutant.is_none() {
                        return Ok(row);
                    }
                }
                Attempt::Unclear(why) => row.note = Some(why),
            }
            let enough = match mutant {
                // Whoever needs more is not clean.
                None => row.attempts >= WITHOUT_BUG,
                Some(_) => started.elapsed() >= self.patience,
            };
            if !hunt.is_real() || enough {
                return Ok(row);
            }
        }
    }
}
