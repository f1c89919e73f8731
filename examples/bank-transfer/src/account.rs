//! The banks and their accounts.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use unanimo_core::ParticipantId;

use crate::Cents;

/// One of the two banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BankName {
    /// Accounts `north-…`, participant `bank-north`.
    North,
    /// Accounts `south-…`, participant `bank-south`.
    South,
}

impl BankName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::North, Self::South];

    /// How its accounts begin.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::South => "south",
        }
    }

    /// Its name as a participant.
    pub fn participant(self) -> ParticipantId {
        match ParticipantId::new(&format!("bank-{}", self.as_str())) {
            Ok(participant) => participant,
            Err(error) => unreachable!("both names are allowed: {error}"),
        }
    }
}

impl fmt::Display for BankName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bank-{}", self.as_str())
    }
}

impl FromStr for BankName {
    type Err = AccountError;

    fn from_str(name: &str) -> Result<Self, AccountError> {
        let named = |bank: &Self| bank.as_str() == name;
        Self::ALL.into_iter().find(named).ok_or(AccountError::NoSuchBank)
    }
}

/// Names an account, such as `north-000123`: the bank that keeps it, and its number there. That it can be named
/// does not mean that it has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    bank: BankName,
    number: u32,
}

impl AccountId {
    const DIGITS: usize = 6;
    /// Numbers are below this.
    pub const NUMBERS: u32 = 1_000_000;

    /// The account of this number.
    ///
    /// # Panics
    ///
    /// If the number has more than six digits.
    pub fn new(bank: BankName, number: u32) -> Self {
        assert!(
            number < Self::NUMBERS,
            "an account number has six digits: {number}"
        );
        Self { bank, number }
    }

    /// The bank that keeps it.
    pub fn bank(self) -> BankName {
        self.bank
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:06}", self.bank.as_str(), self.number)
    }
}

/// A text that names no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccountError {
    /// It does not begin with the name of a bank.
    #[error("names no bank; there are north and south")]
    NoSuchBank,
    /// Not a bank, a hyphen and six digits.
    #[error("is not an account; write it like north-000123")]
    NotAnAccount,
}

impl FromStr for AccountId {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let (bank, number) = text.split_once('-').ok_or(AccountError::NotAnAccount)?;
        let bank = bank.parse()?;
        if number.len() != Self::DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AccountError::NotAnAccount);
        }
        let number = number.parse().map_err(|_| AccountError::NotAnAccount)?;
        Ok(Self { bank, number })
    }
}

/// How many accounts each bank opens: `north-000000` to `north-000999`, and the same in the south.
pub const ACCOUNTS_PER_BANK: u32 = 1000;

/// The account that everybody pays into: a twentieth of the sample's transfers go through it.
pub const HOT_ACCOUNT: AccountId = AccountId {
    bank: BankName::South,
    number: 0,
};

/// What every account begins with. Small enough that in a long sample some run dry.
const OPENING_BALANCE: Cents = match Cents::new(100_000) {
    Some(balance) => balance,
    None => unreachable!(),
};

/// The accounts that a bank opens, with what is in them, in the order of their names.
pub fn opening_balances(bank: BankName) -> impl Iterator<Item = (AccountId, Cents)> {
    (0..ACCOUNTS_PER_BANK).map(move |number| (AccountId::new(bank, number), OPENING_BALANCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_print_and_parse() {
        let account: AccountId = "south-000456".parse().unwrap();
        assert_eq!(account, AccountId::new(BankName::South, 456));
        assert_eq!(account.to_string(), "south-000456");
        assert_eq!(account.bank().participant().as_str(), "bank-south");
    }

    #[test]
    fn what_names_no_account_is_refused_with_the_reason() {
        for text in ["west-000001", "-000001", "North-000001", "bank-north-000001"] {
            assert_eq!(
                text.parse::<AccountId>(),
                Err(AccountError::NoSuchBank),
                "{text:?}"
            );
        }
        for text in [
            "",
            "north",
            "north-1",
            "north-0000001",
            "north-00000x",
            "north-+00001",
            "north-",
            "north--00001",
        ] {
            assert_eq!(
                text.parse::<AccountId>(),
                Err(AccountError::NotAnAccount),
                "{text:?}"
            );
        }
    }

    #[test]
    fn accounts_order_as_their_names_do() {
        let mut accounts: Vec<AccountId> = BankName::ALL
            .into_iter()
            .rev()
            .flat_map(|bank| opening_balances(bank).map(|(account, _)| account))
            .collect();
        accounts.sort();
        assert!(accounts.is_sorted_by_key(AccountId::to_string));
        assert!(accounts.contains(&HOT_ACCOUNT));
    }
}
