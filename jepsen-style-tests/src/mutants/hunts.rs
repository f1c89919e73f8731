//! What is to catch each planted bug.

use unanimo_core::mutants::Mutant;

use super::hunt::Hunt;

/// What is to catch it, in the order in which it is tried. The first that does ends the hunt.
pub(super) fn of(mutant: Mutant) -> Vec<Hunt> {
    let bank = |nemesis| Hunt::run("bank", nemesis);
    let register = |nemesis| Hunt::run("register", nemesis);
    let rules = || Hunt::test("unanimo-core", "rules", "");
    let transcripts = |name| Hunt::test("unanimo-core", "transcripts", name);
    match mutant {
        Mutant::M1 => vec![bank("kill-participant")],
        Mutant::M2 => vec![
            bank("fsync-error"),
            Hunt::test("unanimo-journal", "behaviour", ""),
        ],
        Mutant::M3 => vec![rules()],
        Mutant::M4 => vec![register("kill-leader")],
        Mutant::M5 => vec![bank("kill-participant"), bank("pause-participant")],
        Mutant::M6 => vec![register("kill-leader"), rules()],
        Mutant::M7 => vec![rules()],
        Mutant::M8 => vec![bank("kill-leader")],
        Mutant::M9 => vec![
            bank("kill-all"),
            bank("kill-leader"),
            Hunt::unit_tests("unanimo-coordinator", "raft::tests"),
        ],
        Mutant::M10 => vec![
            bank("partition-leader"),
            Hunt::unit_tests("unanimo-coordinator", "raft::tests"),
        ],
        Mutant::M11 => vec![
            bank("kill-all"),
            Hunt::unit_tests("unanimo-coordinator", "raft::tests"),
        ],
        Mutant::M12 => vec![register("partition-leader")],
        Mutant::M13 => vec![bank("kill-participant")],
        Mutant::M14 => vec![Hunt::test("unanimo-coordinator", "forgetting", "")],
        Mutant::M15 => vec![bank("kill-leader,kill-participant")],
        Mutant::M16 => vec![transcripts("promise_of_an_earlier_life")],
        Mutant::M17 => vec![bank("kill-participant")],
        Mutant::M18 => vec![bank("kill-leader")],
        Mutant::M19 => vec![Hunt::test("unanimo-participant", "participant", "recovery::")],
        Mutant::M20 => vec![bank("bit-flip"), Hunt::test("unanimo-journal", "damage", "")],
        Mutant::M21 => vec![bank("kill-leader")],
        Mutant::M22 => vec![
            Hunt::run("keys", "kill-leader"),
            Hunt::test("unanimo-coordinator", "keys", ""),
        ],
        Mutant::M23 => vec![Hunt::test("unanimo-core", "tally", "")],
        Mutant::M24 => vec![bank("pause-leader,kill-leader")],
        Mutant::M25 => vec![transcripts("registration")],
        Mutant::M26 => vec![Hunt::test("unanimo-journal", "crash", "")],
        Mutant::M27 => vec![Hunt::unit_tests("unanimo-participant", "pause::")],
        Mutant::M28 => vec![Hunt::unit_tests("unanimo-coordinator", "raft::tests")],
        Mutant::M29 => vec![bank("kill-leader")],
        Mutant::M30 => vec![
            bank("kill-leader"),
            Hunt::unit_tests("jepsen-style-tests", "checker::"),
        ],
    }
}

/// Whether every hunt has to catch it, because each is for a part of it.
pub(super) fn all_are_needed(mutant: Mutant) -> bool {
    mutant == Mutant::M30
}
