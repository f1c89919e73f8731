use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::chance::Lot;
use super::money::{self, ACCOUNTS};
use super::{Ask, Leaves, Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Call, Step, Style};

/// The most participants that one transfer has.
const MOST_MEMBERS: usize = 5;
/// What each kind of work is of a hundred operations. The rest is one-shot transfers.
const AUDITS: u32 = 5;
const REFUSED: u32 = 6;
const AT_HOME: u32 = 10;
const INTERACTIVE: u32 = 12;
const UNANSWERED: u32 = 2;
const AFTER_BEGIN: u32 = 1;
/// Of so many operations, one leaves locks behind until its time is over: rare, because everybody waits for those.
const ONE_LEAVES_LOCKS_IN: u32 = 400;
/// Of so many choices at the first participant, one is the hot account in any case.
const HOT_IN: u32 = 4;

/// Transfers between accounts of one to five participants, which never go below zero; and audits, which read every
/// account at once and always find the same total. Some transfers are of money that nobody has, and some clients go
/// away. The first account of the first participant is in use more than any other.
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
        money::opening(layout)
    }

    fn client(&self, layout: Layout, _: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Teller { layout, random })
    }
}

impl Work for Teller {
    fn next(&mut self) -> Request {
        if self.random.random_ratio(1, ONE_LEAVES_LOCKS_IN) {
            return Request::One(Ask::from(self.interactive()).leaves(Leaves::AfterCalls));
        }
        let mut lot = Lot::draw(&mut self.random);
        if lot.is(AUDITS) {
            self.audit().into()
        } else if lot.is(REFUSED) {
            self.refused().into()
        } else if lot.is(AT_HOME) {
            self.at_home().into()
        } else if lot.is(INTERACTIVE) {
            self.interactive().into()
        } else if lot.is(UNANSWERED) {
            Request::One(self.unanswered())
        } else if lot.is(AFTER_BEGIN) {
            Request::One(Ask::from(self.interactive()).leaves(Leaves::AfterBegin))
        } else {
            let steps = self.transfer();
            money::transact(Style::OneShot, steps).into()
        }
    }
}

impl Teller {
    fn audit(&self) -> Call {
        let read = money::accounts(self.layout).map(money::read);
        money::transact(Style::Interactive, read.collect())
    }

    /// Between accounts of two to five participants.
    fn transfer(&mut self) -> Vec<Step> {
        let amount = money::amount(&mut self.random);
        money::transfer(&self.some_accounts(), amount)
    }

    /// Whoever is to pay votes No.
    fn refused(&mut self) -> Call {
        let amount = money::too_much(&mut self.random);
        money::transact(Style::OneShot, money::transfer(&self.some_accounts(), amount))
    }

    /// Between two accounts of one participant: a transaction with one member.
    fn at_home(&mut self) -> Call {
        let names = self.layout.names();
        let name = &names[self.random.random_range(0..names.len())];
        let mut numbers: Vec<u64> = (0..ACCOUNTS).collect();
        numbers.shuffle(&mut self.random);
        let pair: Vec<_> = numbers[..2]
            .iter()
            .map(|number| (name.clone(), money::account(*number)))
            .collect();
        let amount = money::amount(&mut self.random);
        let style = match self.random.random() {
            true => Style::OneShot,
            false => Style::Interactive,
        };
        money::transact(style, money::transfer(&pair, amount))
    }

    /// Looks at each account before it changes it, one participant after the other in the order of their names, so that
    /// no two wait for each other.
    fn interactive(&mut self) -> Call {
        let mut moves = self.transfer();
        moves.sort_by(|one, other| one.participant.cmp(&other.participant));
        let steps = moves.into_iter().flat_map(|step| {
            let look = money::read((step.participant.clone(), step.cell.clone()));
            [look, step]
        });
        money::transact(Style::Interactive, steps.collect())
    }

    /// A client that does not hear how it came out.
    fn unanswered(&mut self) -> Ask {
        let call = match self.random.random() {
            true => money::transact(Style::OneShot, self.transfer()),
            false => self.interactive(),
        };
        let after = Duration::from_millis(self.random.random_range(0..30));
        Ask::from(call).leaves(Leaves::Unanswered(after))
    }

    /// Accounts of different participants, as many as there are up to five.
    fn some_accounts(&mut self) -> Vec<(String, String)> {
        let mut names = self.layout.names();
        let hot = names.first().cloned();
        names.shuffle(&mut self.random);
        let most = names.len().min(MOST_MEMBERS);
        let members = self.random.random_range(most.min(2)..=most);
        let mut accounts = Vec::new();
        for name in names.into_iter().take(members) {
            let at_hot = hot.as_ref() == Some(&name);
            let number = match at_hot && self.random.random_ratio(1, HOT_IN) {
                true => 0,
                false => self.random.random_range(0..ACCOUNTS),
            };
            accounts.push((name, money::account(number)));
        }
        accounts
    }
}
