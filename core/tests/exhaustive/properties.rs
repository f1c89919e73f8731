//! What holds in every state, and what some states have to show.

use stateright::{Model as _, Property};
use unanimo_core::table::View as _;
use unanimo_core::{Branch, BranchPhase, Finish, TransactionPhase};

use super::Protocol;
use super::message::{Message, Voted};
use super::names::MEMBERS;
use super::rule::Rule;
use super::scope::{LeaderChange, Scope};
use super::state::State;

type Check = fn(&Protocol, &State) -> bool;

/// Rules, by the names of `docs/protocol.md`.
const ALWAYS: [(&str, Check); 13] = [
    ("R1 one decision", |model, state| {
        keeps(state, Rule::OneDecision) && one_decision(model, state)
    }),
    ("R2 decide before you speak", |_, state| {
        keeps(state, Rule::DecideBeforeSpeak)
    }),
    ("R3 a Yes is a promise", |model, state| {
        keeps(state, Rule::Promise) && promises_are_held(model, state)
    }),
    ("R4 No is remembered", |_, state| {
        keeps(state, Rule::NoIsRemembered)
    }),
    ("R5 presumed abort is recorded first", |_, state| {
        keeps(state, Rule::PresumedAbort)
    }),
    ("R6 takeover adopts", |_, state| {
        keeps(state, Rule::TakeoverAdopts)
    }),
    ("R7 forget late", |model, state| {
        keeps(state, Rule::ForgetLate) && forgotten_late(model, state)
    }),
    ("R9 once", |_, state| keeps(state, Rule::Once)),
    ("R9 no alarm", |_, state| keeps(state, Rule::NoAlarm)),
    ("R11 know each other", |model, state| {
        keeps(state, Rule::KnowEachOther) && known_by_the_cluster(model, state)
    }),
    ("atomicity", |_, state| keeps(state, Rule::Atomicity)),
    ("validity", |_, state| keeps(state, Rule::Validity)),
    ("everything ends", everything_ends),
];

/// All properties of a scope.
pub(crate) fn of(scope: &Scope) -> Vec<Property<Protocol>> {
    let always = ALWAYS.map(|(name, check)| Property::always(name, check));
    let mut properties = Vec::from(always);
    properties.push(Property::sometimes("committed everywhere", committed_everywhere));
    let may_refuse = scope.answers.contains(&Voted::No) || scope.tardy || scope.deadlines || scope.contended;
    if may_refuse {
        properties.push(Property::sometimes("aborted everywhere", aborted_everywhere));
    }
    if scope.crashes > 0 {
        properties.push(Property::sometimes(
            "committed after all crashes",
            |model, state: &State| state.faults.crashes == 0 && committed_everywhere(model, state),
        ));
    }
    if scope.leader != LeaderChange::Never {
        properties.push(Property::sometimes(
            "adopted by a new leader and committed",
            |model, state: &State| adopted(state) && committed_everywhere(model, state),
        ));
    }
    if scope.leader != LeaderChange::Never && scope.crashes > 1 {
        properties.push(Property::sometimes(
            "adopted and committed after all crashes",
            |model, state: &State| {
                state.faults.crashes == 0 && adopted(state) && committed_everywhere(model, state)
            },
        ));
    }
    if scope.forgetting {
        properties.push(Property::sometimes(
            "forgotten by everybody",
            forgotten_by_everybody,
        ));
        properties.push(Property::sometimes(
            "a closed id is refused",
            |_, state: &State| {
                state
                    .network
                    .iter()
                    .any(|envelope| envelope.message == Message::Expired)
            },
        ));
    }
    if scope.old_copies > 0 {
        properties.push(Property::sometimes(
            "an old copy is refused",
            |_, state: &State| state.members.iter().any(|member| member.refused),
        ));
    }
    properties
}

fn keeps(state: &State, rule: Rule) -> bool {
    !state.facts.broken.contains_key(&rule)
}

/// What the table holds is what was decided first (R1).
fn one_decision(model: &Protocol, state: &State) -> bool {
    state.facts.decided.iter().all(|(transaction, first)| {
        let record = state.record(model.names.id(*transaction));
        record.is_none_or(|record| {
            record.decision.is_commit() == first.commit
                && model.names.number_of_request(record.request_hash) == first.request
        })
    })
}

/// Whoever is in doubt holds what it promised, and whoever said Yes holds it until the decision (R3).
fn promises_are_held(model: &Protocol, state: &State) -> bool {
    (0..MEMBERS as u8).all(|number| {
        let member = state.member(number);
        let holds =
            |transaction: u8| member.holds.contains(&transaction) || member.done.contains_key(&transaction);
        let doubts = model.names.transactions().filter(|one| member.in_doubt(*one));
        let mut said = model.names.requests().filter(|request| {
            let transaction = model.names.transaction_of(*request);
            state.has_said(number, *request, Voted::Yes)
                && state.commits(model, transaction, *request) != Some(false)
        });
        let kept = member.fell_back || said.all(|request| holds(model.names.transaction_of(request)));
        kept && doubts.into_iter().all(holds)
    })
}

/// A commit leaves the table only when it is closed and durable at every member that had promised (R7).
fn forgotten_late(model: &Protocol, state: &State) -> bool {
    state.facts.decided.iter().all(|(transaction, first)| {
        let gone = state.record(model.names.id(*transaction)).is_none();
        let bound = (0..MEMBERS as u8).filter(|number| first.bound & (1 << number) != 0);
        let mut done = bound.map(|number| state.member(number).done.contains_key(transaction));
        !gone || (state.has_closed(model, *transaction) && (!first.commit || done.all(|done| done)))
    })
}

/// Whoever the cluster knows in its present life remembers what commits rest on (R11).
fn known_by_the_cluster(model: &Protocol, state: &State) -> bool {
    (0..MEMBERS as u8).all(|number| {
        let member = state.member(number);
        let Ok(known) = state.raft.table.registration(model.names.participant(number));
        let confirmed = known.is_some_and(|known| known.witness.generation == member.generation);
        let commits = state.facts.decided.values().filter(|first| first.commit);
        let mut rests_on_it = commits.filter(|first| first.bound & (1 << number) != 0);
        !confirmed
            || rests_on_it.all(|first| {
                first
                    .request
                    .is_none_or(|request| member.remembers(model, request))
            })
    })
}

/// When nothing goes wrong any more and everything has been said, nobody is in doubt, nothing is held, and every
/// decision is known to all. Neither an initiator nor a deadline is needed for that.
fn everything_ends(model: &Protocol, state: &State) -> bool {
    // Who is refused needs somebody to act, and keeps the others waiting until their deadline.
    let quiet = state
        .members
        .iter()
        .all(|member| member.is_quiet() && !member.refused);
    if !quiet || !state.raft.pending.is_empty() || is_resolved(model, state) {
        return true;
    }
    let mut steps = Vec::new();
    model.progress(state, &mut steps);
    steps
        .into_iter()
        .any(|step| model.next_state(state, step).is_some())
}

fn is_resolved(model: &Protocol, state: &State) -> bool {
    let over = |branch: &Branch| matches!(branch.phase(), BranchPhase::Finished(_));
    let members = state
        .members
        .iter()
        .all(|member| member.holds.is_empty() && member.branches.values().all(over));
    let told = state.unacknowledged().all(|members| members.is_empty());
    let effects = state.facts.decided.iter().all(|(transaction, first)| {
        let bound = (0..MEMBERS as u8).filter(|number| first.bound & (1 << number) != 0);
        let mut done = bound.map(|number| state.member(number).done.contains_key(transaction));
        !first.commit || done.all(|done| done)
    });
    members && told && effects && !leader_is_busy(model, state)
}

/// Whether the leader still works on something. One that was deposed does not know it, and does not matter. Votes on what
/// is closed may never come, and wait for their deadline.
fn leader_is_busy(model: &Protocol, state: &State) -> bool {
    let leader = state.nodes.iter().rfind(|node| node.leads);
    let mut running = leader.into_iter().flat_map(|node| node.running.iter());
    running.any(|(transaction, run)| {
        let votes = matches!(run.transaction.phase(), TransactionPhase::Preparing { .. });
        !(votes && state.has_closed(model, *transaction))
    })
}

fn committed_everywhere(model: &Protocol, state: &State) -> bool {
    model.names.transactions().any(|transaction| {
        let first = state.facts.decided.get(&transaction);
        first.is_some_and(|first| {
            first.commit
                && (0..MEMBERS as u8)
                    .filter(|number| first.bound & (1 << number) != 0)
                    .all(|number| state.member(number).done.contains_key(&transaction))
        })
    })
}

fn aborted_everywhere(model: &Protocol, state: &State) -> bool {
    model.names.transactions().any(|transaction| {
        let first = state.facts.decided.get(&transaction);
        let aborted =
            |branch: &Branch| matches!(branch.phase(), BranchPhase::Finished(Finish::Aborted { .. }));
        first.is_some_and(|first| !first.commit)
            && state
                .members
                .iter()
                .all(|member| member.branches.get(&transaction).is_some_and(aborted))
    })
}

/// A new leader asks for votes without knowing the operations.
fn adopted(state: &State) -> bool {
    state.network.iter().any(|envelope| {
        let asked = matches!(
            envelope.message,
            Message::Prepare {
                with_operation: false,
                ..
            }
        );
        asked && envelope.node == 1
    })
}

fn forgotten_by_everybody(_: &Protocol, state: &State) -> bool {
    let empty = state.members.iter().all(|member| member.branches.is_empty());
    empty && state.raft.table.records().is_empty() && !state.facts.decided.is_empty()
}
