//! What an initiator asks for: a set of members and what each is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::{ParticipantId, RequestHash};

/// The participants of one transaction, in the order of their names, so that replays send in the same order.
pub type Members = BTreeSet<ParticipantId>;

/// What one participant is asked to do. Opaque here: only its resource manager reads it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Operation(Bytes);

impl Operation {
    /// An operation from its bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, as the initiator gave them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared and not copied.
    pub fn to_shared(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How large a request may be (R14). Every node of a cluster uses the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members of one transaction. Each costs a message and a forced write in either phase, and its name stands
    /// in the decision record, which has to stay below a few KiB.
    pub members: usize,
    /// Bytes of one operation. It is forced to disk at its participant and held in memory until the decision.
    pub operation_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: 64,
            operation_bytes: 48 * 1024,
        }
    }
}

/// A one-shot request that has been checked: one to [`Limits::members`] members, each with one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    branches: BTreeMap<ParticipantId, Operation>,
    hash: RequestHash,
}

impl Request {
    /// Checks the branches. Their order does not matter: the request is the same, with the same hash.
    pub fn new(
        branches: impl IntoIterator<Item = (ParticipantId, Operation)>,
        limits: Limits,
    ) -> Result<Self, RequestError> {
        let mut checked = BTreeMap::new();
        for (participant, operation) in branches {
            check_operation(&participant, &operation, limits)?;
            if checked.insert(participant.clone(), operation).is_some() {
                return Err(RequestError::RepeatedParticipant { participant });
            }
            // Counted on the way, so that a request with a million branches is not collected first.
            if checked.len() > limits.members {
                return Err(RequestError::TooManyBranches {
                    limit: limits.members,
                });
            }
        }
        if checked.is_empty() {
            return Err(RequestError::NoBranches);
        }
        let hash = RequestHash::of_branches(&checked);
        Ok(Self {
            branches: checked,
            hash,
        })
    }

    /// Whether it also keeps these limits, which may be lower than those it was made under.
    pub fn check(&self, limits: Limits) -> Result<(), RequestError> {
        if self.branches.len() > limits.members {
            return Err(RequestError::TooManyBranches {
                limit: limits.members,
            });
        }
        self.branches
            .iter()
            .try_for_each(|(participant, operation)| check_operation(participant, operation, limits))
    }

    /// The bytes of all its operations.
    pub fn operation_bytes(&self) -> usize {
        let bytes = |operation: &Operation| operation.as_bytes().len();
        self.branches.values().map(bytes).sum()
    }

    /// The members and what each is to do.
    pub fn branches(&self) -> &BTreeMap<ParticipantId, Operation> {
        &self.branches
    }

    /// The request's fingerprint.
    pub fn hash(&self) -> RequestHash {
        self.hash
    }
}

fn check_operation(
    participant: &ParticipantId,
    operation: &Operation,
    limits: Limits,
) -> Result<(), RequestError> {
    let (bytes, limit) = (operation.as_bytes().len(), limits.operation_bytes);
    if bytes <= limit {
        return Ok(());
    }
    Err(RequestError::OperationTooLarge {
        participant: participant.clone(),
        bytes,
        limit,
    })
}

/// A request that was refused before anything happened. Definite: it had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Nothing was asked of anybody.
    #[error("the transaction has no branches; name at least one participant")]
    NoBranches,
    /// More members than this cluster allows.
    #[error("the transaction has more than {limit} branches, the limit of this cluster; split it")]
    TooManyBranches {
        /// The limit.
        limit: usize,
    },
    /// A participant has one branch in a transaction, not two.
    #[error("participant {participant} is named twice; put what it has to do into one operation")]
    RepeatedParticipant {
        /// The participant.
        participant: ParticipantId,
    },
    /// An operation that is too large to be forced to disk with every vote.
    #[error(
        "the operation for {participant} has {bytes} bytes, the limit is {limit}; store the payload elsewhere and send a reference"
    )]
    OperationTooLarge {
        /// Whose operation.
        participant: ParticipantId,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(name: &str, operation: &'static str) -> (ParticipantId, Operation) {
        (ParticipantId::new(name).unwrap(), Operation::new(operation))
    }

    #[test]
    fn the_order_of_branches_does_not_matter_and_everything_else_does() {
        let limits = Limits::default();
        let hash = |branches: Vec<_>| Request::new(branches, limits).unwrap().hash();
        let first = hash(vec![branch("a", "1"), branch("b", "2")]);
        assert_eq!(first, hash(vec![branch("b", "2"), branch("a", "1")]));
        assert_ne!(first, hash(vec![branch("a", "12"), branch("b", "")]));
        assert_ne!(
            first,
            hash(vec![branch("a", "1"), branch("b", "2"), branch("c", "")])
        );
    }

    #[test]
    fn a_request_is_refused_with_what_is_wrong_with_it() {
        let limits = Limits {
            members: 2,
            operation_bytes: 3,
        };
        let check = |branches: Vec<_>| Request::new(branches, limits).unwrap_err();
        assert_eq!(check(vec![]), RequestError::NoBranches);
        let three = vec![branch("a", ""), branch("b", ""), branch("c", "")];
        assert_eq!(check(three), RequestError::TooManyBranches { limit: 2 });
        assert!(matches!(
            check(vec![branch("a", ""), branch("a", "")]),
            RequestError::RepeatedParticipant { .. }
        ));
        assert!(matches!(
            check(vec![branch("a", "1234")]),
            RequestError::OperationTooLarge { bytes: 4, .. }
        ));
        // The same of a request that was made under higher limits.
        let check = |branches: Vec<_>| {
            let request = Request::new(branches, Limits::default()).unwrap();
            request.check(limits)
        };
        assert_eq!(check(vec![branch("a", "123"), branch("b", "")]), Ok(()));
        let three = vec![branch("a", ""), branch("b", ""), branch("c", "")];
        assert_eq!(check(three), Err(RequestError::TooManyBranches { limit: 2 }));
        assert!(matches!(
            check(vec![branch("a", "1234")]),
            Err(RequestError::OperationTooLarge { bytes: 4, .. })
        ));
    }
}
