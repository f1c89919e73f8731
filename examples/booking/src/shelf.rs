//! What a service has, what is held and what is taken: the resource manager of all three services.
//!
//! A seat and a room can be claimed once, a card up to its limit. `prepare` holds a claim, in memory; `commit` writes it
//! into the ledger. The ledger says by its keys which transactions were applied, so a commit that is repeated finds
//! its entry and changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use unanimo_core::TransactionId;
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::{Batch, Checkpointer, Table, TableError};

use crate::Trade;
use crate::wire::Claim;

/// Seats of the flight.
pub const SEATS: u64 = 240;
/// Rooms of the hotel.
pub const ROOMS: u64 = 200;
/// What may be charged on one card, in cents: a few journeys.
pub const CARD_LIMIT_CENTS: u64 = 100_000;
/// The longest name of a traveller or a card.
const NAME_BYTES: usize = 64;

/// Entries in one page of the ledger.
const PAGE: usize = 1000;

/// One service's shelf. A clone is another handle.
#[derive(Clone)]
pub struct Shelf {
    trade: Trade,
    table: Arc<dyn Table>,
    checkpointer: Checkpointer,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How much of each item is taken. The sum of the ledger.
    taken: BTreeMap<String, u64>,
    /// What transactions hold that are not decided.
    held: BTreeMap<TransactionId, Claim>,
}

/// Why a shelf cannot be used.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// The table failed. Whether the last change is there is not known.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The ledger has an entry that no shelf has written.
    #[error("the ledger of {trade} is damaged: {what}")]
    Damaged {
        /// Whose.
        trade: Trade,
        /// What was found.
        what: String,
    },
}

impl From<ShelfError> for ResourceError {
    fn from(error: ShelfError) -> Self {
        Self::failed(error)
    }
}

impl Shelf {
    /// The shelf whose ledger is in this table. The checkpointer is that table's.
    pub fn open(trade: Trade, table: Arc<dyn Table>, checkpointer: Checkpointer) -> Result<Self, ShelfError> {
        let shelf = Self {
            trade,
            table,
            checkpointer,
            state: Arc::default(),
        };
        let mut after = None;
        loop {
            let page = shelf.ledger(after)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let mut state = shelf.lock();
            for (_, claim) in page {
                *state.taken.entry(claim.item).or_default() += claim.amount;
            }
        }
        Ok(shelf)
    }

    /// Which service it is.
    pub fn trade(&self) -> Trade {
        self.trade
    }

    /// What committed transactions after this one took, in the order of their ids.
    pub fn ledger(&self, after: Option<TransactionId>) -> Result<Vec<(TransactionId, Claim)>, ShelfError> {
        let from = after.map_or_else(Vec::new, |transaction| [&key(transaction)[..], &[0]].concat());
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let bits = <[u8; 16]>::try_from(key).map(u128::from_be_bytes);
            let transaction = bits.ok().and_then(|bits| TransactionId::from_u128(bits).ok());
            let claim = Claim::decode(&value[..]).ok();
            transaction.zip(claim).ok_or_else(|| ShelfError::Damaged {
                trade: self.trade,
                what: "an entry is of no transaction".to_owned(),
            })
        };
        self.table
            .scan(&from, None, PAGE)?
            .into_iter()
            .map(entry)
            .collect()
    }

    /// How many transactions hold something.
    pub fn holding(&self) -> usize {
        self.lock().held.len()
    }

    /// What a transaction holds.
    pub fn held_by(&self, transaction: TransactionId) -> Option<Claim> {
        self.lock().held.get(&transaction).cloned()
    }

    /// Holds what is asked for, or says why not.
    fn hold(&self, transaction: TransactionId, mut claim: Claim) -> Result<Claim, String> {
        if claim.traveller.len() > NAME_BYTES || claim.item.len() > NAME_BYTES {
            return Err(format!("a name has more than {NAME_BYTES} bytes"));
        }
        let mut state = self.lock();
        claim.item = match self.trade {
            Trade::Seats => state
                .first_free("seat", SEATS)
                .ok_or("every seat is taken or held")?,
            Trade::Hotel => state
                .first_free("room", ROOMS)
                .ok_or("every room is taken or held")?,
            Trade::Payment => {
                let room = CARD_LIMIT_CENTS.saturating_sub(state.claimed(&claim.item));
                if claim.amount > room {
                    return Err(format!(
                        "{} has {room} cents left of its limit, {} are asked for",
                        claim.item, claim.amount
                    ));
                }
                claim.item
            }
        };
        state.held.insert(transaction, claim.clone());
        Ok(claim)
    }

    /// Writes the claim into the ledger, once.
    fn take(&self, transaction: TransactionId, claim: Claim) -> Result<(), ShelfError> {
        let mut state = self.lock();
        state.held.remove(&transaction);
        if self.has_taken(transaction)? {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(key(transaction), claim.encode_to_vec());
        self.table.apply(batch)?;
        *state.taken.entry(claim.item).or_default() += claim.amount;
        Ok(())
    }

    fn has_taken(&self, transaction: TransactionId) -> Result<bool, ShelfError> {
        Ok(self.table.get(&key(transaction))?.is_some())
    }

    fn read(&self, redo: &[u8]) -> Result<Claim, ShelfError> {
        Claim::decode(redo).map_err(|error| ShelfError::Damaged {
            trade: self.trade,
            what: format!("a redo cannot be read: {error}"),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How much of an item is taken or held.
    fn claimed(&self, item: &str) -> u64 {
        let held = self.held.values().filter(|claim| claim.item == item);
        let taken = self.taken.get(item).copied().unwrap_or(0);
        held.fold(taken, |sum, claim| sum.saturating_add(claim.amount))
    }

    fn first_free(&self, kind: &str, count: u64) -> Option<String> {
        let names = (1..=count).map(|number| format!("{kind}-{number}"));
        names.into_iter().find(|item| self.claimed(item) == 0)
    }
}

fn key(transaction: TransactionId) -> [u8; 16] {
    transaction.as_u128().to_be_bytes()
}

impl ResourceManager for Shelf {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let Ok(claim) = Claim::decode(operation) else {
            let reason = "the operation is no claim".to_owned();
            return Ok(Preparation::No { reason });
        };
        Ok(match self.hold(transaction, claim) {
            Ok(claim) => Preparation::Yes {
                redo: claim.encode_to_vec().into(),
            },
            Err(reason) => Preparation::No { reason },
        })
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.take(transaction, self.read(&redo)?)?;
        self.checkpointer.wait_durable().await.map_err(ShelfError::from)?;
        Ok(())
    }

    async fn abort(&self, transaction: TransactionId, _: Option<Bytes>) -> Result<(), ResourceError> {
        self.lock().held.remove(&transaction);
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let claim = self.read(&redo)?;
        if !self.has_taken(transaction)? {
            self.lock().held.insert(transaction, claim);
        }
        Ok(())
    }
}

/// What a seat or a room costs.
pub fn price_cents(item: &str) -> u64 {
    let number: u64 = item
        .rsplit_once('-')
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0);
    match item.starts_with("seat") {
        true => 8_900 + number % 5 * 1_000,
        false => 12_000 + number % 7 * 500,
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::Timestamp;
    use unanimo_table::MemoryTable;

    use super::*;

    fn shelf(trade: Trade, table: &MemoryTable) -> Shelf {
        let table: Arc<dyn Table> = Arc::new(table.clone());
        let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
        drop(writer.spawn().unwrap());
        Shelf::open(trade, table, checkpointer).unwrap()
    }

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn claim(item: &str, amount: u64) -> Bytes {
        let claim = Claim {
            traveller: "ada".to_owned(),
            item: item.to_owned(),
            amount,
        };
        claim.encode_to_vec().into()
    }

    async fn redo(shelf: &Shelf, number: u64, operation: Bytes) -> Result<Bytes, String> {
        match shelf.prepare(tx(number), operation).await.unwrap() {
            Preparation::Yes { redo } => Ok(redo),
            Preparation::No { reason } => Err(reason),
            Preparation::ReadOnly => unreachable!("claims write"),
        }
    }

    #[tokio::test]
    async fn what_is_held_or_taken_is_not_given_again_and_survives_a_restart() {
        let table = MemoryTable::new();
        let seats = shelf(Trade::Seats, &table);
        let first = redo(&seats, 1, claim("", 1)).await.unwrap();
        let second = redo(&seats, 2, claim("", 1)).await.unwrap();
        assert_eq!(seats.held_by(tx(1)).unwrap().item, "seat-1");
        assert_eq!(seats.held_by(tx(2)).unwrap().item, "seat-2");
        for _ in 0..2 {
            seats.commit(tx(1), first.clone()).await.unwrap();
        }
        let again = shelf(Trade::Seats, &table);
        assert_eq!(again.ledger(None).unwrap().len(), 1);
        again.restore(tx(1), first).await.unwrap();
        again.restore(tx(2), second.clone()).await.unwrap();
        assert_eq!(again.holding(), 1);
        redo(&again, 3, claim("", 1)).await.unwrap();
        assert_eq!(again.held_by(tx(3)).unwrap().item, "seat-3");
        again.abort(tx(2), Some(second)).await.unwrap();
        redo(&again, 4, claim("", 1)).await.unwrap();
        assert_eq!(again.held_by(tx(4)).unwrap().item, "seat-2");
    }

    #[tokio::test]
    async fn a_card_is_charged_up_to_its_limit() {
        let payment = shelf(Trade::Payment, &MemoryTable::new());
        let most = redo(&payment, 1, claim("card-1", CARD_LIMIT_CENTS))
            .await
            .unwrap();
        let refused = redo(&payment, 2, claim("card-1", 1)).await.unwrap_err();
        assert_eq!(refused, "card-1 has 0 cents left of its limit, 1 are asked for");
        payment.commit(tx(1), most).await.unwrap();
        assert!(redo(&payment, 3, claim("card-1", 1)).await.is_err());
        assert!(redo(&payment, 3, claim("card-2", u64::MAX)).await.is_err());
        assert!(redo(&payment, 3, Bytes::from_static(b"\xff")).await.is_err());
    }
}
