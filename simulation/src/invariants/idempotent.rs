//! R12: one key stands for one transaction, until that is forgotten.

use std::collections::BTreeMap;

use unanimo_core::TransactionId;

use super::{History, Invariant, Verdict};
use crate::event::{Conclusion, Event};
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Idempotent {
    told: BTreeMap<u64, TransactionId>,
}

impl Invariant for Idempotent {
    const NAME: &'static str = "R12 idempotent initiators";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        let Event::Concluded {
            transaction,
            key: Some(key),
            conclusion: Conclusion::Committed | Conclusion::Aborted,
            ..
        } = event
        else {
            return Ok(());
        };
        match self.told.insert(*key, *transaction) {
            Some(before) if before != *transaction && !history.is_closed(before.min(*transaction)) => {
                Err("the same key was told of another transaction".to_owned())
            }
            _ => Ok(()),
        }
    }
}
