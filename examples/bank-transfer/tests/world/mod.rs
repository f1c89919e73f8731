//! A bank whose crashes and checkpoints come when the test says so. Each test program uses a part of it.

#![allow(dead_code)]

use std::pin::Pin;
use std::sync::Arc;

use bank_transfer::{AccountId, Bank, BankName, Cents, Operation};
use bytes::Bytes;
use futures::FutureExt as _;
use unanimo_core::{Timestamp, TransactionId};
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::{CheckpointStep, CheckpointWriter, Checkpointer, MemoryTable};

pub(crate) const ACCOUNTS: [&str; 3] = ["north-000001", "north-000002", "north-000003"];

pub(crate) fn id(text: &str) -> AccountId {
    text.parse().unwrap()
}

pub(crate) fn cents(cents: u64) -> Cents {
    Cents::new(cents).unwrap()
}

pub(crate) fn tx(number: usize) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1_000 + number as u64), 0)
}

pub(crate) fn debit(account: usize, amount: u64) -> Operation {
    Operation::Debit {
        account: id(ACCOUNTS[account]),
        amount: cents(amount),
    }
}

pub(crate) fn credit(account: usize, amount: u64) -> Operation {
    Operation::Credit {
        account: id(ACCOUNTS[account]),
        amount: cents(amount),
    }
}

pub(crate) fn transfer(from: usize, to: usize, amount: u64) -> Operation {
    Operation::Transfer {
        from: id(ACCOUNTS[from]),
        to: id(ACCOUNTS[to]),
        amount: cents(amount),
    }
}

pub(crate) type Committing = Pin<Box<dyn Future<Output = Result<(), ResourceError>>>>;

/// A bank on a table that can crash, with checkpoints written when the test says so.
pub(crate) struct World {
    pub(crate) table: MemoryTable,
    pub(crate) bank: Bank,
    pub(crate) writer: CheckpointWriter,
}

impl World {
    /// The bank of the north, with these balances on its accounts.
    pub(crate) fn new(balances: [u64; 3]) -> Self {
        let mut world = Self::over(MemoryTable::new());
        let accounts: Vec<_> = ACCOUNTS.into_iter().map(id).zip(balances.map(cents)).collect();
        let bank = world.bank.clone();
        let mut loading = Box::pin(bank.load(&accounts));
        assert!(
            loading.as_mut().now_or_never().is_none(),
            "it answers only when the accounts are on disk"
        );
        world.checkpoint();
        loading.now_or_never().unwrap().unwrap();
        world
    }

    pub(crate) fn over(table: MemoryTable) -> Self {
        let (checkpointer, writer) = Checkpointer::new(Arc::new(table.clone()));
        let bank = Bank::new(BankName::North, Arc::new(table.clone()), checkpointer);
        Self { table, bank, writer }
    }

    pub(crate) fn checkpoint(&mut self) {
        let step = self.writer.step();
        assert!(
            matches!(step, CheckpointStep::Written { .. } | CheckpointStep::Idle),
            "{step:?}"
        );
    }

    /// Loses what a crash may lose, and everything in memory.
    pub(crate) fn crash(self, seed: u64) -> Self {
        self.table.crash(seed);
        Self::over(self.table)
    }

    /// None is a Yes; else why not.
    pub(crate) fn prepare(&self, number: usize, operation: Operation) -> Option<String> {
        self.prepare_bytes(number, operation.encode())
    }

    pub(crate) fn prepare_bytes(&self, number: usize, operation: Bytes) -> Option<String> {
        match self
            .bank
            .prepare(tx(number), operation.clone())
            .now_or_never()
            .unwrap()
            .unwrap()
        {
            Preparation::Yes { redo } => {
                assert_eq!(redo, operation);
                None
            }
            Preparation::No { reason } => Some(reason),
            Preparation::ReadOnly => panic!("no operation only reads"),
        }
    }

    /// Applies a commit, which waits for the next checkpoint.
    pub(crate) fn start_commit(&self, number: usize, operation: Operation) -> Committing {
        let bank = self.bank.clone();
        let mut committing: Committing =
            Box::pin(async move { bank.commit(tx(number), operation.encode()).await });
        let at_once = committing.as_mut().now_or_never();
        assert!(
            at_once.is_none(),
            "a commit is not acknowledged before it is on disk: {at_once:?}"
        );
        committing
    }

    pub(crate) fn commit(&mut self, number: usize, operation: Operation) {
        let committing = self.start_commit(number, operation);
        self.checkpoint();
        committing.now_or_never().unwrap().unwrap();
    }

    pub(crate) fn abort(&self, number: usize) {
        self.bank.abort(tx(number), None).now_or_never().unwrap().unwrap();
    }

    pub(crate) fn restore(&self, number: usize, operation: Operation) {
        self.bank
            .restore(tx(number), operation.encode())
            .now_or_never()
            .unwrap()
            .unwrap();
    }

    pub(crate) fn balances(&self) -> Vec<u64> {
        self.bank
            .accounts(None, 10)
            .unwrap()
            .into_iter()
            .map(|(_, balance)| balance.get())
            .collect()
    }

    pub(crate) fn ledger(&self) -> Vec<TransactionId> {
        self.bank
            .ledger(None, 100)
            .unwrap()
            .into_iter()
            .map(|(transaction, _)| transaction)
            .collect()
    }
}
