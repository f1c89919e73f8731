//! The protocol, explored to the end for two participants: every order of every step within each scope.
//!
//! Without optimisation the scopes are narrower, so that they take seconds. `cargo test -p unanimo-core --release --test
//! model` explores the wide ones and prints how many states there are. `UNANIMO_MODEL_THREADS` and `UNANIMO_MODEL` (part
//! of a scope's name) choose threads and scopes.

#![allow(clippy::unwrap_used)]

mod exhaustive;

use std::io::Write as _;
use std::num::NonZero;
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _};

use exhaustive::{LeaderChange, Met, Protocol, Scope, Voted};

const ANY: &[Voted] = &[Voted::Yes, Voted::ReadOnly, Voted::No];
const YES_OR_NO: &[Voted] = &[Voted::Yes, Voted::No];

/// Whether the wide scopes are explored.
const WIDE: bool = !cfg!(debug_assertions);

/// One of a wide and a narrow scope.
fn either(wide: Scope, narrow: Scope) -> Scope {
    if WIDE { wide } else { narrow }
}

fn scopes() -> Vec<Scope> {
    let named = Scope::named;
    let crashes = Scope {
        crashes: 1,
        ..named("crashes")
    };
    let leader_dies = Scope {
        leader: LeaderChange::Dies,
        ..named("leader dies")
    };
    let leader_deposed = Scope {
        leader: LeaderChange::Deposed,
        prompt: true,
        ..named("leader deposed")
    };
    let same_id = Scope {
        asked: &[(0, 0b11), (0, 0b11)],
        leader: LeaderChange::Dies,
        retries: true,
        prompt: true,
        ..named("two requests, one id")
    };
    let two_transactions = Scope {
        asked: &[(0, 0b11), (1, 0b01)],
        begun: 2,
        contended: true,
        prompt: true,
        ..named("two transactions")
    };
    let forgetting = Scope {
        forgetting: true,
        retries: true,
        answers: YES_OR_NO,
        ..named("forgetting")
    };
    let old_copies = Scope {
        crashes: 1,
        lives: true,
        old_copies: 1,
        ..named("old copies")
    };
    let abort_requests = Scope {
        abort_requests: true,
        prompt: true,
        ..named("abort requests")
    };
    let mut scopes = vec![
        either(
            Scope {
                answers: ANY,
                tardy: true,
                crashes: 2,
                deadlines: true,
                ..crashes.clone()
            },
            crashes,
        ),
        either(
            Scope {
                crashes: 1,
                ..leader_dies.clone()
            },
            leader_dies.clone(),
        ),
        Scope {
            answers: ANY,
            retries: true,
            prompt: true,
            ..leader_dies.renamed("leader dies, initiators repeat")
        },
        either(
            Scope {
                retries: true,
                prompt: false,
                ..leader_deposed.clone()
            },
            leader_deposed.clone(),
        ),
        either(
            Scope {
                crashes: 1,
                ..same_id.clone()
            },
            same_id.clone(),
        ),
        either(
            Scope {
                crashes: 1,
                prompt: false,
                ..two_transactions.clone()
            },
            two_transactions.clone(),
        ),
        either(
            Scope {
                crashes: 1,
                ..forgetting.clone()
            },
            Scope {
                prompt: true,
                crashes: 1,
                answers: &[Voted::Yes],
                ..forgetting
            },
        ),
        either(
            old_copies.clone(),
            Scope {
                prompt: true,
                ..old_copies
            },
        ),
        either(
            Scope {
                leader: LeaderChange::Dies,
                ..abort_requests.clone()
            },
            abort_requests,
        ),
    ];
    if WIDE {
        scopes.push(Scope {
            crashes: 2,
            prompt: true,
            ..leader_dies.renamed("leader dies, two crashes")
        });
        scopes.push(Scope {
            asked: &[(0, 0b11), (0, 0b10)],
            leader: LeaderChange::Deposed,
            ..same_id.renamed("two requests, one id, leader deposed")
        });
        scopes.push(Scope {
            asked: &[(0, 0b11), (1, 0b11)],
            prompt: false,
            ..two_transactions.renamed("two transactions of the same members")
        });
    }
    scopes
}

fn threads() -> usize {
    let wanted = std::env::var("UNANIMO_MODEL_THREADS").ok();
    let available = || std::thread::available_parallelism().map_or(1, NonZero::get);
    wanted.map_or_else(available, |text| text.parse().unwrap())
}

/// Past the test's capture: the figures are wanted also when nothing is wrong.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn the_rules_hold_in_every_state() {
    #[cfg(feature = "mutants")]
    plant_what_is_asked_for();
    let only = std::env::var("UNANIMO_MODEL").unwrap_or_default();
    let mut states = 0;
    let mut met = [0; Met::ALL.len()];
    for scope in scopes().into_iter().filter(|scope| scope.name.contains(&only)) {
        let (name, began) = (scope.name, Instant::now());
        let checker = Protocol::new(scope)
            .checker()
            .threads(threads())
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        states += checker.unique_state_count();
        for (place, what) in Met::ALL.into_iter().enumerate() {
            met[place] += checker.model().tally.times(what);
        }
        say(&format!(
            "model {name}: {} states, {} steps, depth {}, {:.1} s",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f64()
        ));
        let discoveries = checker.discoveries();
        for property in checker.model().properties() {
            match discoveries.get(property.name) {
                Some(path) if property.expectation.discovery_is_failure() => {
                    let steps: Vec<String> = path
                        .clone()
                        .into_actions()
                        .iter()
                        .map(|step| format!("{step:?}"))
                        .collect();
                    let last = path.last_state();
                    panic!(
                        "{name}: {} is broken ({:?}) by\n{}\n{last:#?}",
                        property.name,
                        last.facts.broken,
                        steps.join("\n")
                    )
                }
                None if !property.expectation.discovery_is_failure() => {
                    panic!("{name}: never {}", property.name)
                }
                Some(_) | None => {}
            }
        }
    }
    say(&format!("model: {states} states"));
    if only.is_empty() {
        // The narrow scopes leave some of it out.
        let missing: Vec<Met> = Met::ALL
            .into_iter()
            .enumerate()
            .filter(|(place, _)| met[*place] == 0)
            .map(|(_, what)| what)
            .collect();
        assert!(!WIDE || missing.is_empty(), "no scope ever met {missing:?}");
        assert!(
            !WIDE || states >= 1_000_000,
            "{states} states are too few to call it exhaustive"
        );
    }
}

/// Gives this process the planted bug that its environment asks for.
#[cfg(feature = "mutants")]
fn plant_what_is_asked_for() {
    use unanimo_core::mutants::{Mutant, plant};
    if let Ok(name) = std::env::var("UNANIMO_MUTANT") {
        plant(Mutant::named(&name).expect("there is such a mutant"));
    }
}
