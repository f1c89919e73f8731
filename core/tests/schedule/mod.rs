//! Random schedules: which world, which requests, and a list of choices. A choice is a few numbers, so that it
//! shrinks; against the world as it is at that moment it becomes an [`Action`].

mod coverage;
mod healing;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::invariants::Checker;
use crate::world::{Action, Presence, World, participant};

pub(crate) use coverage::Coverage;

/// A transaction: one request, or two that share the id by mistake.
type Requests = Vec<Vec<(usize, String)>>;

/// One random run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    coordinators: usize,
    participants: usize,
    transactions: Vec<Requests>,
    choices: Vec<Choice>,
}

/// What to do next; the numbers choose among what there is, modulo.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Submit { which: u8, node: u8, blind: bool },
    Join { which: u8, operation: u8 },
    Commit { which: u8, node: u8 },
    Expire { which: u8, transaction: u8 },
    Go { which: u16 },
    Repeat { which: u16 },
    Lose { which: u16 },
    CrashParticipant { which: u8, keep: u8 },
    RestartParticipant { which: u8 },
    CrashCoordinator { which: u8 },
    RestartCoordinator { which: u8 },
    Ask { which: u8, transaction: u8, node: u8 },
    Deadline { transaction: u8, node: u8 },
    AskForAbort { transaction: u8, node: u8 },
    Resend { transaction: u8, node: u8 },
    Read { transaction: u8, node: u8 },
    TakeOver { node: u8 },
    ParticipantClock { which: u8, steps: u8 },
    CoordinatorClock { which: u8, steps: u8 },
    Run,
}

/// Every schedule there is, those that often happen often.
pub(crate) fn schedules() -> impl Strategy<Value = Schedule> {
    let worlds = (2usize..=3, 2usize..=4);
    worlds.prop_flat_map(|(coordinators, participants)| {
        (vec(requests(participants), 1..=3), vec(choices(), 0..150)).prop_map(
            move |(transactions, choices)| Schedule {
                coordinators,
                participants,
                transactions,
                choices,
            },
        )
    })
}

fn requests(participants: usize) -> impl Strategy<Value = Requests> {
    let operation = prop_oneof![
        16 => Just("yes"),
        2 => Just("read"),
        2 => Just("no"),
        1 => Just("read|yes"),
        2 => Just("no|yes"),
    ];
    let members = proptest::sample::subsequence((1..=participants).collect::<Vec<_>>(), 1..=participants);
    let one = members.prop_flat_map(move |members| {
        vec(operation.clone(), members.len()).prop_map(move |operations| {
            let operations = operations.into_iter().map(str::to_owned);
            members.iter().copied().zip(operations).collect::<Vec<_>>()
        })
    });
    prop_oneof![
        3 => vec(one.clone(), 1),
        1 => vec(one, 2),
    ]
}

fn choices() -> impl Strategy<Value = Choice> {
    use Choice as C;
    prop_oneof![
        8 => any::<(u8, u8, u8)>().prop_map(|(which, node, blind)| C::Submit { which, node, blind: blind % 3 == 0 }),
        6 => any::<(u8, u8)>().prop_map(|(which, operation)| C::Join { which, operation }),
        3 => any::<(u8, u8)>().prop_map(|(which, node)| C::Commit { which, node }),
        1 => any::<(u8, u8)>().prop_map(|(which, transaction)| C::Expire { which, transaction }),
        60 => any::<u16>().prop_map(|which| C::Go { which }),
        5 => any::<u16>().prop_map(|which| C::Repeat { which }),
        4 => any::<u16>().prop_map(|which| C::Lose { which }),
        4 => any::<(u8, u8)>().prop_map(|(which, keep)| C::CrashParticipant { which, keep: keep % 3 }),
        6 => any::<u8>().prop_map(|which| C::RestartParticipant { which }),
        3 => any::<u8>().prop_map(|which| C::CrashCoordinator { which }),
        5 => any::<u8>().prop_map(|which| C::RestartCoordinator { which }),
        6 => any::<(u8, u8, u8)>().prop_map(|(which, transaction, node)| C::Ask { which, transaction, node }),
        1 => any::<(u8, u8)>().prop_map(|(transaction, node)| C::Deadline { transaction, node }),
        1 => any::<(u8, u8)>().prop_map(|(transaction, node)| C::AskForAbort { transaction, node }),
        4 => any::<(u8, u8)>().prop_map(|(transaction, node)| C::Resend { transaction, node }),
        2 => any::<(u8, u8)>().prop_map(|(transaction, node)| C::Read { transaction, node }),
        2 => any::<u8>().prop_map(|node| C::TakeOver { node }),
        1 => any::<(u8, u8)>().prop_map(|(which, steps)| C::ParticipantClock { which, steps }),
        1 => any::<(u8, u8)>().prop_map(|(which, steps)| C::CoordinatorClock { which, steps }),
        2 => Just(C::Run),
    ]
}

/// A run that broke a rule, or did not come to rest.
pub(crate) struct Broken {
    pub(crate) what: String,
    /// What was done, as a script that repeats it.
    pub(crate) script: Vec<String>,
    /// What happened.
    pub(crate) events: Vec<String>,
}

impl Schedule {
    /// Carries the schedule out with the rules checked after every step, then heals the world.
    pub(crate) fn carry_out(&self, coverage: &mut Coverage) -> Result<(), Broken> {
        let mut run = Run {
            schedule: self,
            world: World::new(self.coordinators, self.participants),
            checker: Checker::new(),
            script: Vec::new(),
        };
        let found = run.all();
        coverage.count(run.world.events(), run.checker.history());
        found.map_err(|what| Broken {
            what,
            events: run
                .world
                .events()
                .iter()
                .map(|event| event.line(run.world.names()))
                .collect(),
            script: run.script,
        })
    }
}

/// A run in progress.
struct Run<'a> {
    schedule: &'a Schedule,
    world: World,
    checker: Checker,
    script: Vec<String>,
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), String> {
        for choice in &self.schedule.choices {
            if let Some(action) = self.resolve(*choice) {
                self.perform(&action)?;
            }
        }
        self.heal()
    }

    /// Does it if it can be done, and checks the rules.
    fn perform(&mut self, action: &Action) -> Result<(), String> {
        if self.world.perform(action).is_ok() {
            self.script.push(action.to_string());
        }
        self.checker.check(&self.world)
    }

    fn node(&self, which: u8) -> usize {
        usize::from(which) % self.schedule.coordinators + 1
    }

    fn participant(&self, which: u8) -> usize {
        usize::from(which) % self.schedule.participants + 1
    }

    fn transaction(&self, which: u8) -> u64 {
        (usize::from(which) % self.schedule.transactions.len() + 1) as u64
    }

    /// One of the pending things in words, or nothing if there is none.
    fn pick(from: &[String], which: u16) -> Option<String> {
        (!from.is_empty()).then(|| from[usize::from(which) % from.len()].clone())
    }

    fn resolve(&self, choice: Choice) -> Option<Action> {
        Some(match choice {
            Choice::Submit { which, node, blind } => {
                let transaction = self.transaction(which);
                let requests = &self.schedule.transactions[transaction as usize - 1];
                Action::Submit {
                    node: self.node(node),
                    transaction,
                    branches: requests[usize::from(which / 16) % requests.len()].clone(),
                    blind,
                }
            }
            Choice::Join { which, operation } => {
                let (transaction, members) = self.interactive(which);
                let place = usize::from(operation) % members.len();
                let operations = ["yes", "yes", "yes", "read", "no|yes"];
                Action::Join {
                    participant: members[place],
                    transaction,
                    operation: operations[usize::from(operation / 8) % operations.len()].to_owned(),
                }
            }
            Choice::Commit { which, node } => {
                let (transaction, participants) = self.interactive(which);
                Action::Commit {
                    node: self.node(node),
                    transaction,
                    participants,
                }
            }
            Choice::Expire { which, transaction } => Action::Expire {
                participant: self.participant(which),
                transaction: self.transaction(transaction),
            },
            Choice::Go { which } => Action::Do(Self::pick(&self.world.pending(), which)?),
            Choice::Repeat { which } => Action::Repeat(Self::pick(&self.messages(), which)?),
            Choice::Lose { which } => Action::Lose(Self::pick(&self.losable(which), which)?),
            Choice::CrashParticipant { which, keep } => Action::CrashParticipant {
                participant: self.writing(which).unwrap_or_else(|| self.participant(which)),
                keep: keep.into(),
            },
            Choice::RestartParticipant { which } => Action::RestartParticipant {
                participant: self.participant(which),
            },
            Choice::CrashCoordinator { which } => Action::CrashCoordinator {
                node: self.deciding(which).unwrap_or_else(|| self.node(which)),
            },
            Choice::RestartCoordinator { which } => Action::RestartCoordinator {
                node: self.node(which),
            },
            Choice::Ask {
                which,
                transaction,
                node,
            } => self.ask(which, transaction, node)?,
            Choice::Deadline { transaction, node } => Action::Deadline {
                node: self.node(node),
                transaction: self.transaction(transaction),
            },
            Choice::AskForAbort { transaction, node } => Action::AskForAbort {
                node: self.node(node),
                transaction: self.transaction(transaction),
            },
            Choice::Resend { transaction, node } => Action::Resend {
                node: self.node(node),
                transaction: self.transaction(transaction),
            },
            Choice::Read { transaction, node } => Action::Read {
                node: self.node(node),
                transaction: self.transaction(transaction),
            },
            Choice::TakeOver { node } => Action::TakeOver {
                node: self.node(node),
            },
            Choice::ParticipantClock { which, steps } => Action::SetParticipantClock {
                participant: self.participant(which),
                at_ms: u64::from(steps) * 20,
            },
            Choice::CoordinatorClock { which, steps } => Action::SetCoordinatorClock {
                node: self.node(which),
                at_ms: u64::from(steps) * 20,
            },
            Choice::Run => Action::Run,
        })
    }

    /// A transaction as an interactive one, which may also be submitted by mistake: with the members of its first
    /// request.
    fn interactive(&self, which: u8) -> (u64, Vec<usize>) {
        let transaction = self.transaction(which);
        let members = self.schedule.transactions[transaction as usize - 1][0].iter();
        (
            transaction,
            members.map(|(participant, _)| *participant).collect(),
        )
    }

    /// Only a branch that the participant knows of has a timer.
    fn ask(&self, which: u8, transaction: u8, node: u8) -> Option<Action> {
        let number = self.participant(which);
        let at = self.world.participant(&participant(number));
        let id = self.transaction(transaction);
        let known = at.branches.contains_key(&crate::world::transaction(id));
        (known && at.presence == Presence::Serving).then(|| Action::Ask {
            participant: number,
            transaction: id,
            node: self.node(node),
        })
    }

    fn messages(&self) -> Vec<String> {
        let names = self.world.names();
        self.world
            .network()
            .iter()
            .map(|envelope| envelope.line(names))
            .collect()
    }

    /// Messages, or as often a proposal of a leader that is gone.
    fn losable(&self, which: u16) -> Vec<String> {
        let (messages, proposals) = (self.messages(), self.world.orphaned_proposals());
        if messages.is_empty() || (which >= u16::MAX / 2 && !proposals.is_empty()) {
            proposals
        } else {
            messages
        }
    }

    /// Half of the crashes look for a participant that has something to lose.
    fn writing(&self, which: u8) -> Option<usize> {
        let numbers = (1..=self.schedule.participants).filter(|number| {
            let journal = &self.world.participant(&participant(*number)).journal;
            !journal.tail().is_empty()
        });
        Self::among(&numbers.collect::<Vec<_>>(), which)
    }

    /// Half of the crashes look for a leader with a proposal on its way.
    fn deciding(&self, which: u8) -> Option<usize> {
        let proposals = self.world.raft().pending().iter();
        let nodes = proposals
            .map(|proposal| proposal.by)
            .filter(|seat| self.world.lives(*seat));
        Self::among(&nodes.map(|seat| seat.node).collect::<Vec<_>>(), which)
    }

    fn among(numbers: &[usize], which: u8) -> Option<usize> {
        let chosen = which >= u8::MAX / 2 && !numbers.is_empty();
        chosen.then(|| numbers[usize::from(which) % numbers.len()])
    }
}
