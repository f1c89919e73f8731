use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::{Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Action, Call, Step, Style};

/// Accounts at each participant.
const ACCOUNTS: u64 = 8;
/// What is on each of them at first.
const OPENING: i64 = 100;
/// The most that one transfer moves.
const MOST: i64 = 5;
/// One audit in so many operations.
const AUDIT_EVERY: u32 = 20;

/// Transfers between accounts of all participants, which never go below zero; and audits, which read every account at
/// once and always find the same total.
pub(super) struct Bank;

struct Teller {
    layout: Layout,
    random: StdRng,
}

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn opening(&self, layout: Layout) -> Vec<Step> {
        let open = |(participant, cell)| Step {
            participant,
            cell,
            action: Action::Add {
                delta: OPENING,
                floor: 0,
            },
        };
        accounts(layout).map(open).collect()
    }

    fn client(&self, layout: Layout, _: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Teller { layout, random })
    }
}

fn accounts(layout: Layout) -> impl Iterator<Item = (String, String)> {
    let names = layout.names();
    names
        .into_iter()
        .flat_map(|name| (0..ACCOUNTS).map(move |number| (name.clone(), format!("account-{number}"))))
}

impl Teller {
    fn audit(&self) -> Call {
        let read = |(participant, cell)| Step {
            participant,
            cell,
            action: Action::read(),
        };
        Call::Transact {
            transaction: None,
            style: Style::Interactive,
            key: None,
            steps: accounts(self.layout).map(read).collect(),
        }
    }

    /// From one account to one at another participant; with many participants sometimes to several.
    fn transfer(&mut self) -> Call {
        let mut names = self.layout.names();
        names.shuffle(&mut self.random);
        let members = self
            .random
            .random_range(2..=names.len().clamp(2, 4))
            .min(names.len());
        let cents = self.random.random_range(1..=MOST);
        let parts = members as i64 - 1;
        let steps = names
            .into_iter()
            .take(members)
            .enumerate()
            .map(|(place, participant)| Step {
                participant,
                cell: format!("account-{}", self.random.random_range(0..ACCOUNTS)),
                action: Action::Add {
                    delta: if place == 0 { -cents * parts } else { cents },
                    floor: 0,
                },
            });
        Call::Transact {
            transaction: None,
            style: Style::OneShot,
            key: None,
            steps: steps.collect(),
        }
    }
}

impl Work for Teller {
    fn next(&mut self) -> Request {
        Request::One(match self.random.random_range(0..AUDIT_EVERY) {
            0 => self.audit(),
            _ => self.transfer(),
        })
    }
}
