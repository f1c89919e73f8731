//! Short names for what has long ids: `t7`, and `t7'` for a second request under the id of `t7`.

use std::collections::BTreeMap;

use unanimo_core::{RequestHash, TransactionId};

/// The transactions of a run by number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: BTreeMap<TransactionId, u32>,
    ids: BTreeMap<u32, TransactionId>,
    requests: BTreeMap<TransactionId, Vec<RequestHash>>,
}

impl Names {
    pub(crate) fn learn(&mut self, number: u32, id: TransactionId) {
        self.numbers.insert(id, number);
        self.ids.insert(number, id);
    }

    /// Several requests may be made under one id.
    pub(crate) fn learn_request(&mut self, id: TransactionId, hash: RequestHash) {
        let known = self.requests.entry(id).or_default();
        if !known.contains(&hash) {
            known.push(hash);
        }
    }

    pub(crate) fn number(&self, id: TransactionId) -> u32 {
        self.numbers.get(&id).copied().unwrap_or(0)
    }

    pub(crate) fn id(&self, number: u32) -> Option<TransactionId> {
        self.ids.get(&number).copied()
    }

    /// The name of a request.
    pub(crate) fn request(&self, id: TransactionId, hash: RequestHash) -> String {
        let known = self.requests.get(&id);
        let place = known.and_then(|known| known.iter().position(|one| *one == hash));
        let ticks = "'".repeat(place.unwrap_or(0));
        format!("t{}{ticks}", self.number(id))
    }
}
