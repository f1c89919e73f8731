//! Every behaviour of the protocol as a transcript: a script, and everything that happens when it is carried out.
//!
//! A script is a file of `transcripts/`: its intent in the first line, then one command in a line (see
//! `world/action.rs`), `---`, and the expected events. `UPDATE_TRANSCRIPTS=1` writes the events anew; read them
//! against the rules before you keep them.
//!
//! How to read the events: `c1 → p1 Prepare t1 yes` is sent, `p1 ← c1 Prepare t1 yes` is delivered,
//! `p1 t1: Unknown ⇒ Preparing` is a state change, `records` waits for the next `syncs` and `notes` does not,
//! `table holds` is the commit point. A second request under the id of `t1` is `t1'`.

#![allow(clippy::unwrap_used)]

mod world;

use std::path::PathBuf;

use world::{Action, World};

/// Three nodes and three participants are enough for every script.
const NODES: usize = 3;
const PARTICIPANTS: usize = 3;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Carries a script out and compares the events with the expected ones.
fn check(name: &str) {
    let path = folder().join(format!("{}.txt", name.replace('_', "-")));
    let text = std::fs::read_to_string(&path).unwrap();
    let (script, expected) = text.split_once("---\n").unwrap_or((&text, ""));
    assert!(
        script.starts_with("# "),
        "{name}: the first line says what the script shows"
    );
    let found = carry_out(script);
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, format!("{}\n---\n{found}", script.trim_end())).unwrap();
        return;
    }
    for (place, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}: event {} differs (left: now)", place + 1);
    }
    assert_eq!(found, expected, "{name}: one is longer");
}

fn carry_out(script: &str) -> String {
    let mut world = World::new(NODES, PARTICIPANTS);
    for line in script.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let action = Action::parse(line).unwrap();
        assert_eq!(action.to_string(), line, "a command prints as it is read");
        world.perform(&action).unwrap();
    }
    let mut found = String::new();
    for event in world.events() {
        found += &event.line(world.names());
        found.push('\n');
    }
    found
}

/// One test for each script, and one that finds scripts without a test.
macro_rules! transcripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_script_has_its_test() {
            let mut listed = vec![$(format!("{}.txt", stringify!($name).replace('_', "-"))),*];
            listed.sort();
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(listed, files);
        }
    };
}

transcripts! {
    abort_of_committed_refused
    abort_overtakes_its_prepare
    abort_repeated
    abort_requested_too_late
    abort_requested_while_voting
    abort_while_committing_refused
    abort_while_the_promise_is_recorded
    abort_while_the_resource_manager_works
    acknowledgement_lost
    all_read_only
    commit
    commit_for_another_request_refused
    commit_of_aborted_refused
    commit_of_unprepared_refused
    commit_repeated
    commit_to_a_reader
    crash_after_the_abort
    crash_after_the_vote
    crash_before_the_abort
    crash_before_the_acknowledgement
    crash_before_the_committed_record
    crash_before_the_prepared_record
    crash_before_the_sync
    crash_before_the_sync_record_kept
    crash_before_the_vote_is_heard
    crash_during_recovery
    crash_while_committing
    inquiry_adopts
    interactive_abort
    interactive_abort_while_extending
    interactive_abort_while_joining
    interactive_commit
    interactive_commit_of_a_stranger
    interactive_commit_with_a_reader
    interactive_crash_before_prepare
    interactive_deadline_passes
    interactive_deadline_passes_while_joining
    interactive_join_after_abort
    interactive_join_after_prepare
    interactive_join_refused
    interactive_join_twice
    interactive_join_twice_at_once
    interactive_join_twice_refused
    interactive_leader_dies
    interactive_other_request
    interactive_prepare_while_joining
    inquiry_adopts_half_prepared
    inquiry_while_running
    late_prepare_after_abort
    late_prepare_after_restart
    leader_dies_after_proposing
    leader_dies_before_deciding
    leader_dies_before_telling
    one_of_three_refuses
    one_reads_only
    prepare_after_its_deadline
    prepare_repeated_after_commit
    prepare_repeated_after_no
    prepare_repeated_after_read_only
    prepare_repeated_in_doubt
    prepare_repeated_while_committing
    prepare_repeated_while_preparing
    prepare_repeated_while_promising
    prepare_repeated_while_recording
    presumed_abort_is_recorded_first
    promise_of_an_earlier_life
    promise_of_an_earlier_life_lost
    proposal_lost_with_its_leader
    read_only_forgotten
    read_only_then_promised
    registration
    registration_of_a_copy
    registration_of_a_copy_from_before_a_commit
    registration_of_an_old_copy
    registration_outdated
    registration_overtaken_by_a_vote
    same_id_other_request
    same_id_other_request_at_two_leaders
    submitted_twice
    tombstone_lost
    voted_after_its_own_deadline
    voting_deadline
    zombie_leader
}
