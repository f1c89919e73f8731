//! What is to catch each planted bug.

use unanimo_core::mutants::Mutant;

use super::hunt::Hunt;

/// What is to catch it, in the order in which it is tried. The first that does ends the hunt.
pub(super) fn of(mutant: Mutant) -> Vec<Hunt> {
    let bank = |nemesis| Hunt::run("bank", nemesis);
    let register = |nemesis| Hunt::run("register", nemesis);
    let rules = || Hunt::test("unanimo-core", "rules", "");
    let transcripts = |name| Hunt::test("unanimo-core", "transcripts", name);
    let coordinator = |program, filter| Hunt::test("unanimo-coordinator", program, filter);
    let raft = |filter| Hunt::unit_tests("unanimo-coordinator", filter);
    match mutant {
        // Many transactions: somebody has to die between the Yes and its record.
        Mutant::M1 => vec![register("kill-participant"), register("power-loss")],
        Mutant::M2 => vec![
            bank("fsync-error"),
            Hunt::test("unanimo-journal", "crash", "a_failed_sync"),
        ],
        Mutant::M3 => vec![rules()],
        Mutant::M4 => vec![
            register("kill-leader"),
            coordinator("transactions", "answered_by_a_recorded_abort"),
        ],
        Mutant::M5 => vec![bank("kill-participant")],
        Mutant::M6 => vec![register("kill-leader"), rules()],
        Mutant::M7 => vec![rules()],
        Mutant::M8 => vec![register("kill-leader"), bank("kill-leader")],
        Mutant::M9 => vec![bank("kill-leader"), raft("raft::tests::crash")],
        Mutant::M10 => vec![bank("partition-minority,flapping,partition-leader")],
        Mutant::M11 => vec![bank("power-loss-all"), raft("raft::tests::crash")],
        Mutant::M12 => vec![register("partition-leader")],
        Mutant::M13 => vec![bank("kill-participant")],
        // It takes a day, or a clock that a test can move by one.
        Mutant::M14 => vec![coordinator("forgetting", "")],
        Mutant::M15 => vec![bank("kill-leader,kill-participant")],
        // Only a promise that is lost does harm, and then nobody registers its participant.
        Mutant::M16 => vec![transcripts("promise_of_an_earlier_life")],
        Mutant::M17 => vec![bank("kill-participant")],
        Mutant::M18 => vec![bank("kill-leader")],
        // The locks are missed for some milliseconds, until the decision is asked for.
        Mutant::M19 => vec![Hunt::test("unanimo-participant", "participant", "recovery::")],
        Mutant::M20 => vec![bank("bit-flip"), Hunt::test("unanimo-journal", "damage", "")],
        Mutant::M21 => vec![bank("kill-leader")],
        Mutant::M22 => vec![
            Hunt::run("keys", "kill-leader"),
            coordinator("keys", "duplicates_at_the_same_moment"),
        ],
        // A participant says No after its Yes only if it lost a promise, which it never does.
        Mutant::M23 => vec![Hunt::test("unanimo-core", "tally", "")],
        Mutant::M24 => vec![bank("pause-leader,kill-leader")],
        Mutant::M25 => vec![bank("old-copy-participant"), transcripts("registration")],
        Mutant::M26 => vec![Hunt::test("unanimo-journal", "crash", "a_power_loss")],
        Mutant::M27 => vec![Hunt::unit_tests("unanimo-participant", "pause::")],
        // It costs a second now and then, and nobody a decision.
        Mutant::M28 => vec![raft("raft_config::")],
        Mutant::M29 => vec![bank("kill-leader")],
        Mutant::M30 => vec![
            bank("kill-leader"),
            Hunt::unit_tests("jepsen-style-tests", "checker::"),
        ],
        Mutant::F1 => vec![raft("raft_config::")],
        // Real connections find out too, only later. The full-stack simulation hunts them.
        Mutant::F2 | Mutant::F3 => Vec::new(),
    }
}

/// Whether runs of real processes have to catch it. What a test besides finds of it is a further line of the table.
pub(super) fn runs_are_needed(mutant: Mutant) -> bool {
    matches!(
        mutant,
        Mutant::M1
            | Mutant::M2
            | Mutant::M4
            | Mutant::M6
            | Mutant::M8
            | Mutant::M9
            | Mutant::M13
            | Mutant::M15
            | Mutant::M17
            | Mutant::M20
    )
}

/// Whether every hunt has to catch it, because each is for a part of it.
pub(super) fn all_are_needed(mutant: Mutant) -> bool {
    mutant == Mutant::M30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_needs_runs_has_some_and_they_come_first() {
        for mutant in Mutant::ALL.into_iter().filter(|mutant| runs_are_needed(*mutant)) {
            let hunts = of(mutant);
            assert!(hunts[0].is_real(), "{}", mutant.name());
            assert!(
                hunts.is_sorted_by_key(|hunt| !hunt.is_real()),
                "{}",
                mutant.name()
            );
        }
    }
}
