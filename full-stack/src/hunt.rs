//! Plants bugs, one at a time, and counts the seeds that it takes to find each.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use unanimo_core::mutants::Mutant;

use crate::batch::{Tried, one};

/// Those that are looked for where nothing else is said: what only shows where everything is together.
const USUAL: [Mutant; 8] = [
    Mutant::F1,
    Mutant::F2,
    Mutant::F3,
    Mutant::M1,
    Mutant::M8,
    Mutant::M9,
    Mutant::M11,
    Mutant::M26,
];

#[derive(Debug, Args)]
pub(crate) struct Hunt {
    /// Only these, such as M1,F2.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds for each, at most.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Table {
    rows: Vec<Row>,
    killed: usize,
    median_seeds: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    mutant: String,
    breaks: &'static str,
    /// How many seeds it took, or were in vain.
    seeds: u64,
    /// The first violation.
    killed_by: Option<String>,
}

/// Hunts them.
pub(crate) fn hunt(asked: &Hunt) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let named = |name: &String| Mutant::named(name).ok_or_else(|| format!("there is no mutant {name:?}"));
    let mutants = match asked.only.as_slice() {
        [] => USUAL.to_vec(),
        names => names.iter().map(named).collect::<Result<_, _>>()?,
    };
    let mut rows = Vec::new();
    for mutant in mutants {
        let row = hunt_one(mutant, asked.seeds)?;
        eprintln!("{}: {} seeds, {:?}", row.mutant, row.seeds, row.killed_by);
        rows.push(row);
    }
    let mut seeds: Vec<u64> = rows.iter().map(|row| row.seeds).collect();
    seeds.sort_unstable();
    let table = Table {
        killed: rows.iter().filter(|row| row.killed_by.is_some()).count(),
        median_seeds: seeds.get(seeds.len() / 2).copied().unwrap_or_default(),
        rows,
    };
    if asked.json {
        println!("{}", serde_json::to_string(&table)?);
    } else {
        println!("| Mutant | What is wrong | Seeds | Killed by |\n|---|---|---|---|");
        for row in &table.rows {
            let by = row.killed_by.as_deref().unwrap_or("(nothing)");
            println!("| {} | {} | {} | {by} |", row.mutant, row.breaks, row.seeds);
        }
    }
    Ok(match table.killed == table.rows.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn hunt_one(mutant: Mutant, seeds: u64) -> std::io::Result<Row> {
    let mut row = Row {
        mutant: mutant.name(),
        breaks: mutant.breaks(),
        seeds,
        killed_by: None,
    };
    for seed in 1..=seeds {
        let killed_by = match one(seed, Some(&row.mutant))? {
            Tried::Crashed(_) => Some("the process crashed".to_owned()),
            Tried::Ended(outcome) => outcome.violations.first().map(|violation| violation.kind.clone()),
        };
        if killed_by.is_some() {
            (row.seeds, row.killed_by) = (seed, killed_by);
            break;
        }
    }
    Ok(row)
}
