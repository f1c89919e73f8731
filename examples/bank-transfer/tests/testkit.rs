//! The bank keeps the rules of a resource manager under repeats and crashes, also at each of its own writes.

#![allow(clippy::unwrap_used)]

use bank_transfer::{AccountId, Asked, Bank, BankName, Cents, Operation};
use bytes::Bytes;
use unanimo_testkit::{OpenError, Operations, Service, Storage};

struct North;

fn account() -> AccountId {
    AccountId::new(BankName::North, 1)
}

fn debit(amount: u64) -> Bytes {
    let amount = Cents::new(amount).unwrap();
    let account = account();
    Operation::Debit { account, amount }.encode()
}

impl Service for North {
    type Manager = Bank;

    async fn open(&self, storage: &Storage) -> Result<Bank, OpenError> {
        let bank = Bank::new(BankName::North, storage.table(), storage.checkpointer());
        if bank.accounts(None, 1)?.is_empty() {
            bank.load(&[(account(), Cents::new(100).unwrap())]).await?;
        }
        Ok(bank)
    }

    async fn effects(&self, bank: &Bank) -> String {
        let totals = bank.totals().unwrap();
        let balances = bank.accounts(None, 10).unwrap();
        format!("{balances:?}, {} transfers", totals.ledger_entries)
    }

    fn operations(&self) -> Operations {
        let check = Asked::Check {
            account: account(),
            at_least: Cents::new(1).unwrap(),
        };
        Operations {
            operation: debit(60),
            rival: debit(50),
            refused: Some(debit(101)),
            read: Some(check.encode()),
        }
    }
}

#[test]
fn the_bank_keeps_every_rule_of_the_test_kit() {
    let matrix = unanimo_testkit::test(|| North);
    println!("{matrix}");
    matrix.assert_all_passed();
}
