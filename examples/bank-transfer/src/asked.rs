//! What a branch at a bank is asked to do, and what it has promised.

use bytes::Bytes;
use prost::Message as _;
use unanimo_core::Timestamp;

use crate::operation::{MalformedOperation, account, amount};
use crate::{AccountId, Cents, Operation, wire};

/// What a branch is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Money moves.
    Move(Operation),
    /// Nothing moves; the transaction goes on only if so much is there. The branch only reads: it holds nothing after
    /// its vote, and what it saw may have changed when the transaction is decided.
    Check {
        /// Where the money should be.
        account: AccountId,
        /// How much.
        at_least: Cents,
    },
    /// The sum of all accounts is read and stays as it is until the transaction is decided.
    Audit {
        /// Transfers begun from this moment on wait for the audit.
        cut: Timestamp,
    },
}

/// What a branch that voted Yes will do if it commits: its redo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promised {
    /// Money moves.
    Move(Operation),
    /// The audit was told this sum, in cents.
    Audited {
        /// The sum of all accounts.
        total: u64,
    },
}

impl Asked {
    /// In bytes.
    pub fn encode(&self) -> Bytes {
        use wire::operation::Operation as Kind;
        let kind = match *self {
            Self::Move(operation) => return operation.encode(),
            Self::Check { account, at_least } => Kind::Check(wire::Check {
                account: account.to_string(),
                at_least_cents: at_least.get(),
            }),
            Self::Audit { cut } => Kind::Audit(wire::Audit {
                cut_unix_ms: cut.unix_ms(),
            }),
        };
        encode(kind)
    }

    /// What these bytes ask for.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedOperation> {
        use wire::operation::Operation as Kind;
        let message = decode(bytes)?;
        match message.operation {
            Some(Kind::Check(check)) => Ok(Self::Check {
                account: account(&check.account)?,
                at_least: amount(check.at_least_cents)?,
            }),
            Some(Kind::Audit(audit)) => Ok(Self::Audit {
                cut: Timestamp::from_unix_ms(audit.cut_unix_ms),
            }),
            _ => Operation::from_wire(&message).map(Self::Move),
        }
    }
}

impl Promised {
    /// In bytes.
    pub fn encode(&self) -> Bytes {
        match *self {
            Self::Move(operation) => operation.encode(),
            Self::Audited { total } => encode(wire::operation::Operation::Audited(wire::Audited {
                total_cents: total,
            })),
        }
    }

    /// What these bytes promise.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedOperation> {
        let message = decode(bytes)?;
        match message.operation {
            Some(wire::operation::Operation::Audited(audited)) => Ok(Self::Audited {
                total: audited.total_cents,
            }),
            _ => Operation::from_wire(&message).map(Self::Move),
        }
    }
}

fn encode(kind: wire::operation::Operation) -> Bytes {
    wire::Operation {
        operation: Some(kind),
    }
    .encode_to_vec()
    .into()
}

fn decode(bytes: &[u8]) -> Result<wire::Operation, MalformedOperation> {
    wire::Operation::decode(bytes).map_err(|error| MalformedOperation::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_survives_the_way_through_bytes() {
        let (account, cents) = ("north-000001".parse().unwrap(), Cents::new(5).unwrap());
        let debit = Operation::Debit {
            account,
            amount: cents,
        };
        let check = Asked::Check {
            account,
            at_least: cents,
        };
        let cut = Timestamp::from_unix_ms(1_234);
        for asked in [Asked::Move(debit), check, Asked::Audit { cut }] {
            assert_eq!(Asked::decode(&asked.encode()), Ok(asked));
        }
        for promised in [Promised::Move(debit), Promised::Audited { total: 7 }] {
            assert_eq!(Promised::decode(&promised.encode()), Ok(promised));
        }
    }

    #[test]
    fn what_is_promised_cannot_be_asked_for_nor_the_reverse() {
        let audited = Promised::Audited { total: 7 }.encode();
        let error = Asked::decode(&audited).unwrap_err().to_string();
        assert!(error.contains("moves no money"), "{error}");
        let audit = Asked::Audit {
            cut: Timestamp::from_unix_ms(1),
        };
        assert!(Promised::decode(&audit.encode()).is_err());
        assert!(Operation::decode(&audit.encode()).is_err());
    }
}
