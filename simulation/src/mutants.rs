//! Planted bugs: what the simulator is worth is what it finds.

use std::error::Error;

use crate::command::MutantsArguments;

/// The bugs that are about the protocol, and so can be had here. Of the others: M20 and M26 are about the journal's files,
/// M27 about pauses, M28 about openraft's settings, and M30 about the faults of real processes.
#[cfg(feature = "mutants")]
const OF_THE_PROTOCOL: [&str; 25] = [
    "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9", "M10", "M11", "M12", "M13", "M14", "M15", "M16",
    "M17", "M18", "M19", "M21", "M22", "M23", "M24", "M25", "M29",
];

#[cfg(not(feature = "mutants"))]
pub(crate) fn plant(_: &str) -> Result<(), Box<dyn Error>> {
    Err("this program was built without planted bugs; build it with --features mutants".into())
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn hunt(_: &MutantsArguments, _: &[&str]) -> Result<bool, Box<dyn Error>> {
    Err("this program was built without planted bugs; build it with --features mutants".into())
}

/// Gives this process the bug.
#[cfg(feature = "mutants")]
pub(crate) fn plant(name: &str) -> Result<(), Box<dyn Error>> {
    use unanimo_core::mutants::{Mutant, plant};

    let mutant = Mutant::named(name).ok_or_else(|| format!("there is no mutant {name}"))?;
    plant(mutant);
    Ok(())
}

/// Hunts each bug in a process of its own. True if all were found.
#[cfg(feature = "mutants")]
pub(crate) fn hunt(arguments: &MutantsArguments, again: &[&str]) -> Result<bool, Box<dyn Error>> {
    use serde_json::json;
    use unanimo_core::mutants::Mutant;

    let named = &arguments.only;
    let chosen = OF_THE_PROTOCOL
        .into_iter()
        .filter(|name| named.is_empty() || named.iter().any(|one| one == name));
    let mut found = Vec::new();
    for name in chosen {
        let breaks = Mutant::named(name).map_or("", Mutant::breaks);
        let (seeds, invariant) = hunt_one(name, arguments.seeds, again)?;
        if !arguments.json {
            println!(
                "{name}: {} after {seeds} runs ({breaks})",
                invariant.as_deref().unwrap_or("not found")
            );
        }
        found.push((name, breaks, seeds, invariant));
    }
    let mut counts: Vec<u64> = found.iter().map(|(_, _, seeds, _)| *seeds).collect();
    counts.sort_unstable();
    let median = counts.get(counts.len() / 2).copied().unwrap_or(0);
    let all = !found.is_empty() && found.iter().all(|(.., invariant)| invariant.is_some());
    if arguments.json {
        let line = |(name, breaks, seeds, invariant): &(&str, &str, u64, Option<String>)| json!({ "mutant": name, "breaks": breaks, "killed": invariant.is_some(), "seeds": seeds, "by": invariant });
        let mutants: Vec<_> = found.iter().map(line).collect();
        let killed = found.iter().filter(|(.., invariant)| invariant.is_some()).count();
        println!(
            "{}",
            json!({ "mutants": mutants, "killed": killed, "of": found.len(), "median_seeds": median })
        );
    } else {
        println!("median {median}");
    }
    Ok(all)
}

/// In which run an assertion failed, and what the first line about it says. A process that did not survive its own bug
/// says both; anything else that it dies of is no find.
#[cfg(feature = "mutants")]
fn panic_in(said: &str) -> Option<(u64, String)> {
    let what = said.lines().find(|line| line.contains("panicked at"))?;
    let seed = said.lines().find_map(|line| {
        let number = line.strip_prefix("seed ")?.strip_suffix(": panicked")?;
        number.parse().ok()
    })?;
    Some((seed, what.to_owned()))
}

/// How many runs it took, and which rule it broke; none if it broke none.
#[cfg(feature = "mutants")]
fn hunt_one(name: &str, seeds: u64, again: &[&str]) -> Result<(u64, Option<String>), Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let output = std::process::Command::new(program)
        .args(again)
        .args([
            "--mutant",
            name,
            "--stop",
            "--json",
            "--jobs",
            "1",
            "--seeds",
            &seeds.to_string(),
        ])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(report) = text.lines().last() else {
        let said = String::from_utf8_lossy(&output.stderr);
        let (seed, what) = panic_in(&said).ok_or_else(|| {
            format!(
                "{name}: the process ended without a report, {}:\n{said}",
                output.status
            )
        })?;
        // The seeds count from 1.
        return Ok((seed, Some(what)));
    };
    let report: serde_json::Value = serde_json::from_str(report)?;
    let runs = report["seeds"].as_u64().unwrap_or(seeds);
    let first = report["violations"].get(0);
    let invariant = first.and_then(|one| one["invariant"].as_str()).map(str::to_owned);
    Ok((runs, invariant))
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_panic_in_a_run_is_a_find() {
        let said = "thread '<unnamed>' panicked at core/src/tally.rs:7:9:\nno\nseed 62: panicked\n";
        let (seed, what) = panic_in(said).unwrap();
        assert_eq!(seed, 62);
        assert!(what.contains("tally.rs"));
        assert_eq!(panic_in(""), None);
        assert_eq!(panic_in("error: unexpected argument '--mutant'"), None);
        assert_eq!(
            panic_in("thread 'main' panicked at main.rs:1:1:"),
            None,
            "in no run"
        );
    }
}
