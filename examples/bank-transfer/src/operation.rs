//! What a bank does in a transaction, and how it is written down.

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use unanimo_core::{Operation as BranchOperation, ParticipantId};

use crate::{AccountId, BankName, Cents, wire};

/// One bank's part of a transfer. The same bytes are the branch's operation, its redo, and the ledger's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Money leaves an account here; it arrives at the other bank.
    Debit {
        /// Where it is taken from.
        account: AccountId,
        /// How much.
        amount: Cents,
    },
    /// Money arrives on an account here; it leaves the other bank.
    Credit {
        /// Where it goes.
        account: AccountId,
        /// How much.
        amount: Cents,
    },
    /// Money changes accounts here.
    Transfer {
        /// Where it is taken from.
        from: AccountId,
        /// Where it goes.
        to: AccountId,
        /// How much.
        amount: Cents,
    },
}

/// Bytes that are not an operation. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed operation: {problem}")]
pub struct MalformedOperation {
    problem: String,
}

impl MalformedOperation {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
        }
    }
}

/// The branches of a transfer: two banks if money goes from one to the other, else one.
pub fn branches(from: AccountId, to: AccountId, amount: Cents) -> Vec<(ParticipantId, BranchOperation)> {
    operations(from, to, amount)
        .into_iter()
        .map(|(bank, operation)| (bank.participant(), BranchOperation::new(operation.encode())))
        .collect()
}

/// What a transfer does at which bank.
pub fn operations(from: AccountId, to: AccountId, amount: Cents) -> Vec<(BankName, Operation)> {
    if from.bank() == to.bank() {
        return vec![(from.bank(), Operation::Transfer { from, to, amount })];
    }
    vec![
        (
            from.bank(),
            Operation::Debit {
                account: from,
                amount,
            },
        ),
        (to.bank(), Operation::Credit { account: to, amount }),
    ]
}

impl Operation {
    /// How much money moves.
    pub fn amount(&self) -> Cents {
        match *self {
            Self::Debit { amount, .. } | Self::Credit { amount, .. } | Self::Transfer { amount, .. } => {
                amount
            }
        }
    }

    /// The account here that money leaves.
    pub fn debited(&self) -> Option<AccountId> {
        match *self {
            Self::Debit { account, .. } => Some(account),
            Self::Transfer { from, .. } => Some(from),
            Self::Credit { .. } => None,
        }
    }

    /// The account here that money arrives on.
    pub fn credited(&self) -> Option<AccountId> {
        match *self {
            Self::Credit { account, .. } => Some(account),
            Self::Transfer { to, .. } => Some(to),
            Self::Debit { .. } => None,
        }
    }

    /// The accounts here that it touches.
    pub fn accounts(&self) -> impl Iterator<Item = AccountId> {
        [self.debited(), self.credited()].into_iter().flatten()
    }

    /// The operation in bytes.
    pub fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    /// The operation in these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedOperation> {
        let message =
            wire::Operation::decode(bytes).map_err(|error| MalformedOperation::new(error.to_string()))?;
        Self::from_wire(&message)
    }

    /// The operation as a message.
    pub fn to_wire(self) -> wire::Operation {
        use wire::operation::Operation as Kind;
        let operation = match self {
            Self::Debit { account, amount } => Kind::Debit(wire::Debit {
                account: account.to_string(),
                amount_cents: amount.get(),
            }),
            Self::Credit { account, amount } => Kind::Credit(wire::Credit {
                account: account.to_string(),
                amount_cents: amount.get(),
            }),
            Self::Transfer { from, to, amount } => Kind::Transfer(wire::Transfer {
                from: from.to_string(),
                to: to.to_string(),
                amount_cents: amount.get(),
            }),
        };
        wire::Operation {
            operation: Some(operation),
        }
    }

    /// The operation in this message.
    pub fn from_wire(message: &wire::Operation) -> Result<Self, MalformedOperation> {
        use wire::operation::Operation as Kind;
        match &message.operation {
            Some(Kind::Debit(debit)) => Ok(Self::Debit {
                account: account(&debit.account)?,
                amount: amount(debit.amount_cents)?,
            }),
            Some(Kind::Credit(credit)) => Ok(Self::Credit {
                account: account(&credit.account)?,
                amount: amount(credit.amount_cents)?,
            }),
            Some(Kind::Transfer(transfer)) => {
                let (from, to) = (account(&transfer.from)?, account(&transfer.to)?);
                if from == to {
                    return Err(MalformedOperation::new(format!(
                        "from and to are the same account {from}"
                    )));
                }
                if from.bank() != to.bank() {
                    return Err(MalformedOperation::new(format!(
                        "{from} and {to} are at different banks"
                    )));
                }
                Ok(Self::Transfer {
                    from,
                    to,
                    amount: amount(transfer.amount_cents)?,
                })
            }
            Some(Kind::Check(_) | Kind::Audit(_) | Kind::Audited(_)) => {
                Err(MalformedOperation::new("it moves no money"))
            }
            None => Err(MalformedOperation::new("no operation is set")),
        }
    }
}

pub(crate) fn account(text: &str) -> Result<AccountId, MalformedOperation> {
    let shortened: String = text.chars().take(40).collect();
    text.parse()
        .map_err(|error| MalformedOperation::new(format!("account {shortened:?} {error}")))
}

pub(crate) fn amount(cents: u64) -> Result<Cents, MalformedOperation> {
    match Cents::new(cents) {
        Some(Cents::ZERO) => Err(MalformedOperation::new("the amount is zero")),
        Some(amount) => Ok(amount),
        None => Err(MalformedOperation::new(format!(
            "the amount of {cents} cents is too large"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AccountId {
        text.parse().unwrap()
    }

    #[test]
    fn an_operation_survives_the_way_through_bytes() {
        let amount = Cents::new(1250).unwrap();
        let (a, b, c) = (id("north-000001"), id("north-000002"), id("south-000001"));
        let within = operations(a, b, amount);
        assert_eq!(
            within,
            [(
                BankName::North,
                Operation::Transfer {
                    from: a,
                    to: b,
                    amount
                }
            )]
        );
        let between = operations(a, c, amount);
        assert_eq!(
            between,
            [
                (BankName::North, Operation::Debit { account: a, amount }),
                (BankName::South, Operation::Credit { account: c, amount })
            ]
        );
        for (_, operation) in within.into_iter().chain(between) {
            assert_eq!(Operation::decode(&operation.encode()), Ok(operation));
        }
    }

    #[test]
    fn malformed_bytes_are_refused_with_what_is_wrong() {
        use wire::operation::Operation as Kind;
        let debit = |account: &str, amount_cents| {
            Some(Kind::Debit(wire::Debit {
                account: account.to_owned(),
                amount_cents,
            }))
        };
        let transfer = |from: &str, to: &str| {
            Some(Kind::Transfer(wire::Transfer {
                from: from.to_owned(),
                to: to.to_owned(),
                amount_cents: 1,
            }))
        };
        let cases = [
            (None, "no operation is set"),
            (debit("north-000001", 0), "the amount is zero"),
            (debit("north-000001", u64::MAX), "too large"),
            (debit("east-000001", 1), "\"east-000001\" names no bank"),
            (debit("north", 1), "\"north\" is not an account"),
            (transfer("north-000001", "north-000001"), "the same account"),
            (transfer("north-000001", "south-000001"), "different banks"),
        ];
        for (operation, says) in cases {
            let bytes = wire::Operation { operation }.encode_to_vec();
            let error = Operation::decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Operation::decode(&[0xff; 7]).is_err());
    }
}
