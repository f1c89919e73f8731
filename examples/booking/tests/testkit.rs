//! A shelf keeps the rules of a resource manager under repeats and crashes, also at each of its own writes.

#![allow(clippy::unwrap_used)]

use booking::Trade;
use booking::shelf::{CARD_LIMIT_CENTS, Shelf};
use booking::wire::Claim;
use bytes::Bytes;
use prost::Message as _;
use unanimo_testkit::{OpenError, Operations, Service, Storage};

struct Payment;

fn charge(amount: u64) -> Bytes {
    let claim = Claim {
        traveller: "ada".to_owned(),
        item: "card-1".to_owned(),
        amount,
    };
    claim.encode_to_vec().into()
}

impl Service for Payment {
    type Manager = Shelf;

    async fn open(&self, storage: &Storage) -> Result<Shelf, OpenError> {
        Ok(Shelf::open(
            Trade::Payment,
            storage.table(),
            storage.checkpointer(),
        )?)
    }

    async fn effects(&self, shelf: &Shelf) -> String {
        let charged = shelf.ledger(None).unwrap().into_iter();
        let charged: Vec<u64> = charged.map(|(_, claim)| claim.amount).collect();
        format!("charged {charged:?}")
    }

    fn operations(&self) -> Operations {
        Operations {
            operation: charge(60_000),
            rival: charge(50_000),
            refused: Some(charge(CARD_LIMIT_CENTS + 1)),
            read: None,
        }
    }
}

#[test]
fn a_shelf_keeps_every_rule_of_the_test_kit() {
    let matrix = unanimo_testkit::test(|| Payment);
    println!("{matrix}");
    matrix.assert_all_passed();
}
