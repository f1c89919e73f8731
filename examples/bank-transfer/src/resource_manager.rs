//! The bank as a resource manager: what the participant library calls.

use bytes::Bytes;
use tokio::sync::oneshot;
use unanimo_core::TransactionId;
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::TableError;

use crate::asked::{Asked, Promised};
use crate::{Bank, BankError};

impl ResourceManager for Bank {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        Ok(match Asked::decode(&operation) {
            Ok(Asked::Move(operation)) => self.prepare_move(transaction, operation).await?,
            Ok(Asked::Check { account, at_least }) => self.check(account, at_least)?,
            Ok(Asked::Audit { cut }) => self.prepare_audit(transaction, cut).await?,
            Err(malformed) => Preparation::No {
                reason: malformed.to_string(),
            },
        })
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let newly_applied = match read_redo(transaction, &redo)? {
            Promised::Move(operation) => self.apply(transaction, operation)?.then_some(operation),
            Promised::Audited { total } => {
                self.apply_audit(transaction, total)?;
                None
            }
        };
        let (sender, durable) = oneshot::channel();
        let bank = self.clone();
        // In the callback and not after the wait, because nobody may be waiting any more.
        self.checkpointer.durable(move |result| {
            if let (Some(operation), Ok(())) = (newly_applied, &result) {
                bank.settle(operation);
            }
            let _ = sender.send(result);
        });
        let durable = durable.await.unwrap_or(Err(TableError::Closed));
        Ok(durable.map_err(BankError::from)?)
    }

    async fn abort(&self, transaction: TransactionId, _redo: Option<Bytes>) -> Result<(), ResourceError> {
        self.release(transaction);
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        Ok(self.take_again(transaction, read_redo(transaction, &redo)?)?)
    }
}

fn read_redo(transaction: TransactionId, redo: &[u8]) -> Result<Promised, BankError> {
    Promised::decode(redo).map_err(|error| BankError::Mismatch {
        what: format!("the redo of {transaction}: {error}"),
    })
}
