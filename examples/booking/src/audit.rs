//! Compares what travellers were told with what the services have in their ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use unanimo_core::TransactionId;

use crate::Trade;
use crate::journey::Outcome;
use crate::shelf::{CARD_LIMIT_CENTS, price_cents};
use crate::wire::Claim;

/// What each service has committed.
pub type Ledgers = BTreeMap<Trade, BTreeMap<TransactionId, Claim>>;

/// A way in which the result is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Some services have it, others do not.
    HalfBooked {
        /// Which transaction.
        transaction: TransactionId,
        /// Who has it.
        at: Vec<Trade>,
    },
    /// The traveller was told that it is booked, and it is not.
    Lost(TransactionId),
    /// The traveller was told that it is not booked, and it is.
    Unwanted(TransactionId),
    /// A ledger has a transaction that nobody began.
    Unknown(TransactionId),
    /// Something was sold twice, or a card charged over its limit.
    Oversold {
        /// What.
        item: String,
    },
    /// What was paid is not what was booked.
    WrongPrice(TransactionId),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HalfBooked { transaction, at } => {
                let at: Vec<&str> = at.iter().map(|trade| trade.as_str()).collect();
                write!(f, "half_booked {transaction}: only at {}", at.join(" and "))
            }
            Self::Lost(transaction) => write!(f, "lost {transaction}: told booked, and it is not"),
            Self::Unwanted(transaction) => write!(f, "unwanted {transaction}: told not booked, and it is"),
            Self::Unknown(transaction) => write!(f, "unknown {transaction}: nobody began it"),
            Self::Oversold { item } => write!(f, "oversold {item}"),
            Self::WrongPrice(transaction) => write!(f, "wrong_price {transaction}"),
        }
    }
}

/// Every violation there is.
pub fn audit(outcomes: &[Outcome], ledgers: &Ledgers) -> Vec<Violation> {
    let mut found = Vec::new();
    let in_ledgers: BTreeSet<TransactionId> = ledgers
        .values()
        .flat_map(|ledger| ledger.keys().copied())
        .collect();
    let at = |transaction: &TransactionId| -> Vec<Trade> {
        let has = |trade: &Trade| {
            ledgers
                .get(trade)
                .is_some_and(|ledger| ledger.contains_key(transaction))
        };
        Trade::ALL.into_iter().filter(has).collect()
    };
    let mut begun = BTreeSet::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Booked(transaction) => {
                begun.insert(*transaction);
                if at(transaction).is_empty() {
                    found.push(Violation::Lost(*transaction));
                }
            }
            Outcome::Refused(transaction, _) | Outcome::Failed(Some(transaction), _) => {
                begun.insert(*transaction);
                if !at(transaction).is_empty() {
                    found.push(Violation::Unwanted(*transaction));
                }
            }
            Outcome::Unknown(transaction, _) => drop(begun.insert(*transaction)),
            Outcome::Failed(None, _) => {}
        }
    }
    for transaction in &in_ledgers {
        if !begun.contains(transaction) {
            found.push(Violation::Unknown(*transaction));
        }
        let at = at(transaction);
        if at.len() < Trade::ALL.len() {
            let transaction = *transaction;
            found.push(Violation::HalfBooked { transaction, at });
        } else if price(ledgers, transaction) != ledgers[&Trade::Payment][transaction].amount {
            found.push(Violation::WrongPrice(*transaction));
        }
    }
    found.extend(oversold(ledgers));
    found
}

fn price(ledgers: &Ledgers, transaction: &TransactionId) -> u64 {
    let of = |trade| price_cents(&ledgers[&trade][transaction].item);
    of(Trade::Seats) + of(Trade::Hotel)
}

fn oversold(ledgers: &Ledgers) -> Vec<Violation> {
    let mut found = Vec::new();
    for (trade, ledger) in ledgers {
        let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
        for claim in ledger.values() {
            *taken.entry(&claim.item).or_default() += claim.amount;
        }
        let limit = match trade {
            Trade::Seats | Trade::Hotel => 1,
            Trade::Payment => CARD_LIMIT_CENTS,
        };
        let over = taken.into_iter().filter(|(_, amount)| *amount > limit);
        found.extend(over.map(|(item, _)| Violation::Oversold {
            item: item.to_owned(),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use unanimo_core::Timestamp;

    use super::*;

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn claim(item: &str, amount: u64) -> Claim {
        Claim {
            traveller: "ada".to_owned(),
            item: item.to_owned(),
            amount,
        }
    }

    /// Two journeys that are right.
    fn right() -> (Vec<Outcome>, Ledgers) {
        let mut ledgers = Ledgers::new();
        for number in [1, 2] {
            let (seat, room) = (format!("seat-{number}"), format!("room-{number}"));
            let paid = claim("card-1", price_cents(&seat) + price_cents(&room));
            let claims = [
                (Trade::Seats, claim(&seat, 1)),
                (Trade::Hotel, claim(&room, 1)),
                (Trade::Payment, paid),
            ];
            for (trade, claim) in claims {
                ledgers.entry(trade).or_default().insert(tx(number), claim);
            }
        }
        let outcomes = vec![
            Outcome::Booked(tx(1)),
            Outcome::Unknown(tx(2), "?".to_owned()),
            Outcome::Refused(tx(3), Trade::Payment),
            Outcome::Failed(None, "no coordinator".to_owned()),
        ];
        (outcomes, ledgers)
    }

    #[test]
    fn what_is_right_passes() {
        let (outcomes, ledgers) = right();
        assert_eq!(audit(&outcomes, &ledgers), []);
    }

    #[test]
    fn every_way_to_be_wrong_is_found() {
        type Change = fn(&mut Vec<Outcome>, &mut Ledgers);
        let cases: [(Change, Violation); 6] = [
            (
                |_, ledgers| drop(ledgers.get_mut(&Trade::Hotel).unwrap().remove(&tx(2))),
                Violation::HalfBooked {
                    transaction: tx(2),
                    at: vec![Trade::Seats, Trade::Payment],
                },
            ),
            (
                |_, ledgers| {
                    ledgers
                        .values_mut()
                        .for_each(|ledger| drop(ledger.remove(&tx(1))))
                },
                Violation::Lost(tx(1)),
            ),
            (
                |outcomes, _| outcomes[0] = Outcome::Refused(tx(1), Trade::Hotel),
                Violation::Unwanted(tx(1)),
            ),
            (|outcomes, _| drop(outcomes.remove(1)), Violation::Unknown(tx(2))),
            (
                |_, ledgers| {
                    ledgers
                        .get_mut(&Trade::Seats)
                        .unwrap()
                        .get_mut(&tx(1))
                        .unwrap()
                        .amount = 2
                },
                Violation::Oversold {
                    item: "seat-1".to_owned(),
                },
            ),
            (
                |_, ledgers| {
                    ledgers
                        .get_mut(&Trade::Payment)
                        .unwrap()
                        .get_mut(&tx(1))
                        .unwrap()
                        .amount -= 1
                },
                Violation::WrongPrice(tx(1)),
            ),
        ];
        for (change, expected) in cases {
            let (mut outcomes, mut ledgers) = right();
            change(&mut outcomes, &mut ledgers);
            assert_eq!(audit(&outcomes, &ledgers), [expected]);
        }
    }
}
