//! Transfers that look like a day of two banks, made from a seed.

use std::io::{self, Write};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::account::{ACCOUNTS_PER_BANK, HOT_ACCOUNT};
use crate::input::HEADER;
use crate::{AccountId, BankName, Cents, Transfer};

/// The sample that comes with the example: `generate --transfers 12000 --seed 1`.
pub const SAMPLE: &str = include_str!("../data/transfers.csv");
/// How errors name the sample.
pub const SAMPLE_NAME: &str = "data/transfers.csv (the sample)";

/// More than any account can hold: there are two thousand accounts with a thousand in each.
const BEYOND_ANY_BALANCE: u64 = 500_000_000;

/// Makes transfers: the same ones for the same seed.
///
/// A few accounts are busy and most are not, one hot account is in a twentieth of the transfers, a quarter stays
/// within a bank, and about one in thirty has to be refused, for an account that nobody opened or for an amount that
/// nobody has. More are refused once busy accounts run dry.
pub fn generate(transfers: usize, seed: u64) -> Vec<Transfer> {
    Generator::new(seed).take(transfers).collect()
}

/// Makes the transfers of a seed one after the other, without end.
#[derive(Debug)]
pub struct Generator {
    random: StdRng,
    place: u64,
}

impl Generator {
    /// The transfers of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            place: 0,
        }
    }
}

impl Iterator for Generator {
    type Item = Transfer;

    fn next(&mut self) -> Option<Transfer> {
        let made = transfer(self.place, &mut self.random);
        self.place += 1;
        Some(made)
    }
}

/// Writes transfers as a CSV file that [`read`](crate::input::read) takes.
pub fn write(transfers: &[Transfer], mut output: impl Write) -> io::Result<()> {
    writeln!(output, "{}", HEADER.join(","))?;
    for Transfer {
        from,
        to,
        amount,
        key,
        ..
    } in transfers
    {
        writeln!(output, "{from},{to},{amount},{key}")?;
    }
    output.flush()
}

fn transfer(place: u64, random: &mut StdRng) -> Transfer {
    let from_bank = if random.random_bool(0.5) {
        BankName::North
    } else {
        BankName::South
    };
    let to_bank = match (from_bank, random.random_bool(0.25)) {
        (bank, true) => bank,
        (BankName::North, false) => BankName::South,
        (BankName::South, false) => BankName::North,
    };
    let mut from = busy_account(from_bank, random);
    let mut to = busy_account(to_bank, random);
    match random.random_range(0..1000) {
        0..40 => to = HOT_ACCOUNT,
        40..50 => from = HOT_ACCOUNT,
        50..55 => to = nobodys_account(to_bank, random),
        55..60 => from = nobodys_account(from_bank, random),
        _ => {}
    }
    while to == from {
        to = busy_account(to_bank, random);
    }
    let cents = match random.random_range(0..1000) {
        0..20 => BEYOND_ANY_BALANCE + random.random_range(0..100_000),
        // Round amounts are the most frequent ones.
        20..500 => random.random_range(1..=16) * 500,
        _ => random.random_range(1..=12_000),
    };
    let Some(amount) = Cents::new(cents) else {
        unreachable!("{cents} cents are far below the largest amount")
    };
    // The header is row 1.
    Transfer {
        row: place + 2,
        from,
        to,
        amount,
        key: format!("t-{:06}", place + 1),
    }
}

/// An account that is open; those with low numbers are the busy ones.
fn busy_account(bank: BankName, random: &mut StdRng) -> AccountId {
    let place = random.random_range(0.0..1.0_f64).powi(2);
    AccountId::new(bank, (place * f64::from(ACCOUNTS_PER_BANK)) as u32)
}

/// An account that was never opened.
fn nobodys_account(bank: BankName, random: &mut StdRng) -> AccountId {
    AccountId::new(bank, random.random_range(ACCOUNTS_PER_BANK..AccountId::NUMBERS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;

    #[test]
    fn the_sample_is_what_the_generator_makes() {
        let mut made = Vec::new();
        write(&generate(12_000, 1), &mut made).unwrap();
        assert!(
            made == SAMPLE.as_bytes(),
            "make it again: bank-transfer generate --transfers 12000 --seed 1"
        );
    }

    #[test]
    fn the_sample_is_accepted_and_has_something_of_everything() {
        let transfers = input::read(SAMPLE.as_bytes(), SAMPLE_NAME).unwrap();
        assert_eq!(transfers, generate(12_000, 1));
        let count =
            |what: &dyn Fn(&Transfer) -> bool| transfers.iter().filter(|transfer| what(transfer)).count();
        let unopened = |account: AccountId| account >= AccountId::new(account.bank(), ACCOUNTS_PER_BANK);
        let cases = [
            (
                "within a bank",
                count(&|t| t.from.bank() == t.to.bank()),
                2700..3400,
            ),
            (
                "hot",
                count(&|t| t.from == HOT_ACCOUNT || t.to == HOT_ACCOUNT),
                500..1000,
            ),
            (
                "unknown accounts",
                count(&|t| unopened(t.from) || unopened(t.to)),
                80..160,
            ),
            (
                "beyond the balance",
                count(&|t| t.amount.get() >= BEYOND_ANY_BALANCE),
                180..300,
            ),
        ];
        for (what, count, range) in cases {
            assert!(range.contains(&count), "{what}: {count}");
        }
    }

    #[test]
    fn another_seed_makes_other_transfers() {
        assert_eq!(generate(50, 7), generate(50, 7));
        assert_ne!(generate(50, 7), generate(50, 8));
        assert_eq!(generate(50, 7)[..20], generate(20, 7));
    }
}
